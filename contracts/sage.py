"""What the suite does in the sage contract: accounts, things that accounts own, and per operation
a request that succeeds."""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import requests

from contracts import parts
from contracts.client import Client, Form
from contracts.parts import (
    NUMBERS,
    PASSWORD,
    PNG,
    RUN,
    Account,
    Making,
    Request,
    address,
    send,
    unique,
)
from contracts.parts import on as _on
from contracts.parts import one as _one
from contracts.parts import plain as _plain
from contracts.running import CHALLENGE, CLIENT_ID, PROVIDER, REDIRECT_URI, VERIFIER, skill


class World(parts.World):
    """sage at one server."""

    spent = frozenset({"auth_logout", "auth_logout_compat", "user_change_password"})

    def login_request(self, username: str, password: str) -> Request:
        body = {"username_or_email": username, "password": password}
        return Request("auth_login", body=body)

    def token(self, username: str, password: str) -> str:
        return _one(send(self.anonymous, self.login_request(username, password)), "access_token")

    def user_id(self, client: Client) -> str:
        found: str = client.call("auth_get_session").data["user"]["userid"]
        return found

    def create(self, username: str, **columns: str) -> None:
        body = {"username": username, "password": PASSWORD}
        made = self.admin.client.call("user_create", body=body)
        assert made.success, made
        if columns:
            self.started.set_account(username, **columns)

    def request(self, operation_id: str, account: Account) -> Request:
        return SUCCEEDING[operation_id](self, account)

    def makers(self) -> Mapping[str, Callable[[Account], str]]:
        return {
            "agent_id": self.agent,
            "provider_id": self.provider,
            "llm_provider_id": self.provider,
            "session_id": self.conversation,
            "kdb_id": self.knowledge_base,
            "doc_id": self.document,
            "version_str": lambda _: self.version(),
            "server_name": self.mcp_server,
        }

    # --- what an account grants to an OAuth2 client ---------------------------------------

    def authorization(self, **changes: str) -> dict[str, str]:
        """An authorization request of the suite's client (running.CLIENT)."""
        return {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT_URI,
            "scope": "openid profile email",
            "state": unique("state"),
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **changes,
        }

    def exchange(self, account: Account) -> dict[str, str]:
        """A token request with a code of its own."""
        reply = account.client.call("oauth2_authorize", query=self.authorization())
        assert reply.success, reply
        answer = parse_qs(urlsplit(reply.headers["location"]).query)
        return {
            "grant_type": "authorization_code",
            "code": answer["code"][0],
            "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
        }

    def granted(self, account: Account) -> Client:
        """Holds an access token that the account granted to the client."""
        reply = self.anonymous.call("oauth2_issue_token", fields=self.exchange(account))
        assert reply.success, reply
        return self.anonymous.holding(reply.body["access_token"])

    # --- logging in elsewhere -------------------------------------------------------------

    def begun(self, **query: str) -> tuple[str, str]:
        """A login that was begun at the provider: where the browser goes, and its cookie."""
        reply = self.anonymous.call(
            "auth_begin_upstream", path={"provider_id": PROVIDER}, query=query, headers=address()
        )
        assert reply.success, reply
        return reply.headers["location"], reply.headers["set-cookie"].partition(";")[0]

    def agreed(self, location: str, subject: str = "") -> dict[str, str]:
        """What the provider sends a browser back with, once somebody has logged in there."""
        answer = requests.post(
            location, data={"sub": subject or unique("person")}, allow_redirects=False, timeout=20
        )
        assert answer.status_code == 302, answer.text
        said = parse_qs(urlsplit(answer.headers["location"]).query)
        return {name: values[0] for name, values in said.items()}

    # --- things that an account owns ------------------------------------------------------

    def agent(self, account: Account, **fields: Any) -> str:
        """A new agent's id."""
        body = {"name": unique("agent"), **fields}
        return _one(account.client.call("agent_create", body=body), "agent_id")

    def provider(self, account: Account) -> str:
        """A new provider's id."""
        return _one(
            account.client.call("llm_provider_create", body=self.provider_body()), "provider_id"
        )

    def provider_body(self) -> dict[str, Any]:
        """A provider that answers: the script model beside the server."""
        return {
            "name": unique("provider"),
            "base_url": self.started.model_url,
            "api_keys": ["sk-contracts"],
            "model": unique("script"),
        }

    def conversation(self, account: Account, text: str = "Hello there.") -> str:
        """A conversation of one finished turn; its session id."""
        session_id = unique("sess")
        reply = account.client.call(
            "chat_stream", body={"messages": said(text), "session_id": session_id}
        )
        assert reply.success, reply
        assert reply.lines[-1]["type"] == "stream_end", reply.lines
        return session_id

    def share(self, account: Account) -> str:
        """A share id of a new conversation."""
        session_id = self.conversation(account)
        return _one(
            account.client.call("share_create", path={"session_id": session_id}), "share_id"
        )

    def workspace(self, account: Account) -> tuple[str, str]:
        """An agent and the path of a file in its workspace."""
        agent = self.agent(account)
        return agent, self.started.worked(agent, account.user_id, "sess_1/summary.md")

    def version(self) -> str:
        """A published version's name."""
        body = {"version": f"1.{next(NUMBERS)}.0-{RUN}"}
        return _one(self.admin.client.call("version_create", body=body), "version")

    def knowledge_base(self, account: Account) -> str:
        """A new, empty knowledge base's id."""
        body = {"name": unique("base"), "type": "rag"}
        return _one(account.client.call("knowledge_base_create", body=body), "kdb_id")

    def task(self, account: Account) -> tuple[str, str]:
        """A new knowledge base with one document; its id and that of the document's task."""
        base = self.knowledge_base(account)
        request = Request("knowledge_document_upload", form=uploaded(base))
        return base, _one(send(account.client, request), "taskId")

    def document(self, account: Account) -> str:
        """A new document's id."""
        base, _ = self.task(account)
        listed = account.client.call("knowledge_document_list", query={"kdb_id": base})
        found: str = listed.data["list"][0]["id"]
        return found

    def published(self, account: Account, name: str = "a.png", content: bytes = PNG) -> str:
        """The public address of an uploaded file."""
        form: Form = [("file", (name, content))]
        return _one(account.client.call("oss_create", form=form), "url")

    def mcp_server(self, account: Account) -> str:
        """A new MCP server's name."""
        return _one(account.client.call("mcp_create", body=self.mcp_body()), "server_name")

    def mcp_body(self) -> dict[str, Any]:
        """An MCP server that answers."""
        return {
            "name": unique("mcp"),
            "protocol": "streamable_http",
            "streamable_http_url": self.started.mcp_url,
        }

    def mcp_tool(self, account: Account) -> str:
        """A tool of a new MCP server; it takes no arguments."""
        server = self.mcp_server(account)
        listed = account.client.call("tool_list", query={"type": "mcp"}).data["tools"]
        found: str = next(
            tool["name"] for tool in listed if tool["source"] == server and "greet" in tool["name"]
        )
        return found

    def skill(self, account: Account, name: str = "", **fields: str) -> str:
        """A new skill's name."""
        name = name or unique("skill")
        reply = account.client.call("skill_upload", form=packed(name, **fields))
        assert reply.success, reply
        return name

    def user(self) -> str:
        """The id of an account that may be deleted."""
        body = {"username": unique("leaving"), "password": PASSWORD}
        return _one(self.admin.client.call("user_create", body=body), "user_id")


def said(text: str) -> list[dict[str, str]]:
    """A chat's messages: one, of the user."""
    return [{"role": "user", "content": text}]


def uploaded(base_id: str, name: str = "login.md", **fields: str) -> Form:
    """A form that takes one file into a knowledge base."""
    content = b"# Login\n\nA login gives an access token."
    return [("kdb_id", base_id), *fields.items(), ("files", (name, content))]


def packed(name: str, **fields: str) -> Form:
    """A form that uploads a skill."""
    return [*fields.items(), ("file", (f"{name}.zip", skill(name)))]


def skill_md(name: str) -> str:
    """A SKILL.md as its owner may write it anew."""
    return f"---\nname: {name}\ndescription: Asks.\n---\n# Ask five people\n"


def _of_skill(operation_id: str) -> Making:
    """A request that names a skill of the account's in its query."""
    return lambda world, account: Request(operation_id, query={"name": world.skill(account)})


def _written(world: World, account: Account) -> Request:
    name = world.skill(account)
    return Request("skill_update_content", body={"name": name, "content": skill_md(name)})


def scripted(value: Any) -> str:
    """A message at which the script model answers this JSON value."""
    return "script:" + json.dumps([{"json": value}])


DRAFT = {
    "name": "Clerk",
    "description": "Files things.",
    "systemPrefix": "You file things.",
    "systemContext": {},
    "availableWorkflows": {},
    "availableTools": [],
}
"""An agent's draft, as a model writes it."""


def address_of(url: str) -> dict[str, str]:
    """The path parameters in the public address of a file."""
    *_, link, name = urlsplit(url).path.split("/")
    return {"link": link, "file_name": unquote(name)}


def _register(operation_id: str, sending: str) -> Making:
    def make(world: World, account: Account) -> Request:
        email = f"{unique('new')}@example.com"
        reply = world.anonymous.call(sending, body={"email": email}, headers=address())
        assert reply.success, reply
        return Request(
            operation_id,
            body={
                "username": unique("new"),
                "password": PASSWORD,
                "email": email,
                "verification_code": world.started.mailed(email),
            },
        )

    return make


def _login(operation_id: str) -> Making:
    return lambda world, account: Request(
        operation_id,
        body={"username_or_email": account.username, "password": account.password},
    )


def _send_code(operation_id: str) -> Making:
    return lambda world, account: Request(
        operation_id, body={"email": f"{unique('mail')}@example.com"}
    )


def _probe(operation_id: str) -> Making:
    return lambda world, account: Request(operation_id, body=world.provider_body())


def _chat(operation_id: str) -> Making:
    return lambda world, account: Request(
        operation_id, body={"messages": said("Good morning."), "session_id": unique("sess")}
    )


def _in_workspace(operation_id: str) -> Making:
    def make(world: World, account: Account) -> Request:
        agent, path = world.workspace(account)
        return Request(operation_id, {"agent_id": agent}, {"file_path": path})

    return make


def _published(operation_id: str) -> Making:
    def make(world: World, account: Account) -> Request:
        world.version()
        return Request(operation_id)

    return make


def _of_base(operation_id: str, place: str = "body", **more: Any) -> Making:
    """A request that names a knowledge base of the caller's in its body or its query."""
    return lambda world, account: Request(
        operation_id, **{place: {"kdb_id": world.knowledge_base(account), **more}}
    )


def _of_task(operation_id: str, place: str) -> Making:
    def make(world: World, account: Account) -> Request:
        base, task = world.task(account)
        return Request(operation_id, **{place: {"kdb_id": base, "task_id": task}})

    return make


def _exchange(operation_id: str) -> Making:
    return lambda world, account: Request(operation_id, fields=world.exchange(account))


def _authorize(operation_id: str) -> Making:
    return lambda world, account: Request(operation_id, query=world.authorization())


def _begin(operation_id: str) -> Making:
    return lambda world, account: Request(operation_id, {"provider_id": PROVIDER})


def _finish(operation_id: str) -> Making:
    def make(world: World, account: Account) -> Request:
        location, cookie = world.begun()
        return Request(
            operation_id,
            {"provider_id": PROVIDER},
            world.agreed(location),
            headers={"cookie": cookie},
        )

    return make


SUCCEEDING: Mapping[str, Making] = {
    **{
        f"{name}{path}": make(f"{name}{path}")
        for path in ("", "_compat")
        for name, make in (
            ("auth_begin_upstream", _begin),
            ("auth_begin_upstream_default", _plain),
            ("auth_finish_upstream", _finish),
        )
    },
    **{
        name: _plain(name)
        for base in ("oauth2_get_metadata", "oauth2_get_userinfo", "oauth2_check_userinfo")
        for name in (base, f"{base}_root")
    },
    "oauth2_get_metadata_well_known": _plain("oauth2_get_metadata_well_known"),
    "oauth2_authorize": _authorize("oauth2_authorize"),
    "oauth2_authorize_root": _authorize("oauth2_authorize_root"),
    "oauth2_issue_token": _exchange("oauth2_issue_token"),
    "oauth2_issue_token_root": _exchange("oauth2_issue_token_root"),
    "system_check_active": _plain("system_check_active"),
    "system_check_health": _plain("system_check_health"),
    "system_get_info": _plain("system_get_info"),
    "system_update_settings": _plain("system_update_settings", body={"allow_registration": True}),
    "system_count_usage": _plain("system_count_usage", body={"days": 30}),
    "tool_list": _plain("tool_list", query={"type": "basic"}),
    "tool_execute": _plain(
        "tool_execute", body={"tool_name": "calculator", "tool_params": {"expression": "6 * 7"}}
    ),
    "mcp_create": lambda world, account: Request("mcp_create", body=world.mcp_body()),
    "mcp_list": _plain("mcp_list"),
    "mcp_delete": _on("mcp_delete", "server_name", World.mcp_server),
    "mcp_refresh": _on("mcp_refresh", "server_name", World.mcp_server),
    "version_check": _published("version_check"),
    "version_get_latest": _published("version_get_latest"),
    "version_list": _published("version_list"),
    "version_create": lambda world, account: Request(
        "version_create",
        body={
            "version": f"v2.{next(NUMBERS)}.0-{RUN}",
            "release_notes": "Better.",
            "artifacts": [{"platform": "linux-x86_64", "installer_url": "https://example.com/a"}],
        },
    ),
    "version_import_github": _plain("version_import_github"),
    "version_delete": lambda world, account: Request(
        "version_delete", {"version_str": world.version()}
    ),
    "workspace_list": _on("workspace_list", "agent_id", World.agent),
    "workspace_download": _in_workspace("workspace_download"),
    "workspace_delete": _in_workspace("workspace_delete"),
    "jaeger_login": _plain("jaeger_login"),
    "jaeger_check": _plain("jaeger_check"),
    "jaeger_redirect": _plain("jaeger_redirect"),
    **{
        name: _on(name, "full_path", lambda world, account: "search")
        for name in (
            "jaeger_redirect_path",
            *(
                f"jaeger_redirect_path_{method}"
                for method in ("head", "post", "put", "patch", "delete", "options")
            ),
        )
    },
    "oss_create": lambda world, account: Request(
        "oss_create", form=[("path", "uploads/images"), ("file", ("example.png", PNG))]
    ),
    "oss_download": lambda world, account: Request(
        "oss_download", address_of(world.published(account))
    ),
    "auth_send_code": _send_code("auth_send_code"),
    "auth_send_code_compat": _send_code("auth_send_code_compat"),
    "auth_register": _register("auth_register", "auth_send_code"),
    "auth_register_compat": _register("auth_register_compat", "auth_send_code_compat"),
    "auth_login": _login("auth_login"),
    "auth_login_compat": _login("auth_login_compat"),
    "auth_get_session": _plain("auth_get_session"),
    "auth_get_session_compat": _plain("auth_get_session_compat"),
    "auth_list_providers": _plain("auth_list_providers"),
    "auth_list_providers_compat": _plain("auth_list_providers_compat"),
    "auth_logout": _plain("auth_logout"),
    "auth_logout_compat": _plain("auth_logout_compat"),
    "user_list_options": _plain("user_list_options"),
    "user_change_password": lambda world, account: Request(
        "user_change_password",
        body={"old_password": account.password, "new_password": "StrongerPassword456"},
    ),
    "user_list": _plain("user_list", query={"page": 1, "page_size": 5}),
    "user_create": lambda world, account: Request(
        "user_create", body={"username": unique("made"), "password": PASSWORD}
    ),
    "user_delete": lambda world, account: Request("user_delete", body={"user_id": world.user()}),
    "user_get_config": _plain("user_get_config"),
    "user_update_config": _plain("user_update_config", body={"config": {"theme": "dark"}}),
    "llm_provider_verify": _probe("llm_provider_verify"),
    "llm_provider_verify_capabilities": _probe("llm_provider_verify_capabilities"),
    "llm_provider_verify_multimodal": _probe("llm_provider_verify_multimodal"),
    "llm_provider_list": _plain("llm_provider_list"),
    "llm_provider_create": _probe("llm_provider_create"),
    "llm_provider_update": _on(
        "llm_provider_update", "provider_id", World.provider, body={"temperature": 0.2}
    ),
    "llm_provider_delete": _on("llm_provider_delete", "provider_id", World.provider),
    "agent_list": _plain("agent_list"),
    "agent_get_default_prompt": _plain("agent_get_default_prompt", query={"language": "en"}),
    "agent_create": lambda world, account: Request("agent_create", body={"name": unique("agent")}),
    "agent_get": _on("agent_get", "agent_id", World.agent),
    "agent_replace": lambda world, account: Request(
        "agent_replace", {"agent_id": world.agent(account)}, body={"name": unique("agent")}
    ),
    "agent_delete": _on("agent_delete", "agent_id", World.agent),
    "agent_generate": _plain("agent_generate", body={"agent_description": scripted(DRAFT)}),
    "agent_optimize_prompt": _plain(
        "agent_optimize_prompt",
        body={"original_prompt": scripted({"optimized_prompt": "Be brief."})},
    ),
    "agent_list_grants": _on("agent_list_grants", "agent_id", World.agent),
    "agent_set_grants": lambda world, account: Request(
        "agent_set_grants",
        {"agent_id": world.agent(account)},
        body={"user_ids": [world.stranger.user_id]},
    ),
    "chat_create": lambda world, account: Request(
        "chat_create", body={"messages": said("Hello."), "agent_id": world.agent(account)}
    ),
    "chat_stream": _chat("chat_stream"),
    "chat_stream_web": _chat("chat_stream_web"),
    "chat_resume": _on("chat_resume", "session_id", World.conversation),
    "chat_stream_sessions": _plain("chat_stream_sessions"),
    "conversation_list": _plain("conversation_list", query={"page_size": 3}),
    "conversation_list_messages": _on(
        "conversation_list_messages", "session_id", World.conversation
    ),
    "conversation_rename": _on(
        "conversation_rename", "session_id", World.conversation, body={"title": "Renamed"}
    ),
    "conversation_delete": _on("conversation_delete", "session_id", World.conversation),
    "share_create": _on("share_create", "session_id", World.conversation),
    "share_delete": _on("share_delete", "session_id", World.conversation),
    "share_list_messages": _on("share_list_messages", "session_id", World.share),
    "session_interrupt": _on("session_interrupt", "session_id", World.conversation),
    "knowledge_base_create": lambda world, account: Request(
        "knowledge_base_create", body={"name": unique("base"), "type": "rag"}
    ),
    "knowledge_base_update": _of_base("knowledge_base_update", name="Renamed"),
    "knowledge_base_get": _of_base("knowledge_base_get", "query"),
    "knowledge_base_retrieve": _of_base("knowledge_base_retrieve", query="How does login work?"),
    "knowledge_base_list": _plain("knowledge_base_list", query={"page_size": 3}),
    "knowledge_base_delete": _on("knowledge_base_delete", "kdb_id", World.knowledge_base),
    "knowledge_base_clear": _of_base("knowledge_base_clear"),
    "knowledge_base_redo": _of_base("knowledge_base_redo"),
    "knowledge_document_list": _of_base("knowledge_document_list", "query", query_status="0,2"),
    "knowledge_document_get": _on("knowledge_document_get", "doc_id", World.document),
    "knowledge_document_upload": lambda world, account: Request(
        "knowledge_document_upload",
        form=uploaded(world.knowledge_base(account), override="true"),
    ),
    "knowledge_document_delete": _on("knowledge_document_delete", "doc_id", World.document),
    "knowledge_document_redo": _on("knowledge_document_redo", "doc_id", World.document),
    "knowledge_document_check_task": _of_task("knowledge_document_check_task", "query"),
    "knowledge_document_redo_task": _of_task("knowledge_document_redo_task", "body"),
    "skill_list": _plain("skill_list", query={"dimension": "user"}),
    "skill_list_available": lambda world, account: Request(
        "skill_list_available", query={"agent_id": world.agent(account)}
    ),
    "skill_upload": lambda world, account: Request("skill_upload", form=packed(unique("skill"))),
    "skill_import": lambda world, account: Request(
        "skill_import", body={"url": f"{world.started.skills_url}/{unique('skill')}.zip"}
    ),
    "skill_delete": _of_skill("skill_delete"),
    "skill_get_content": _of_skill("skill_get_content"),
    "skill_update_content": _written,
    "session_check_tasks": _on("session_check_tasks", "session_id", World.conversation),
}
"""operationId → a request of the account's that the operation answers with its success."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "agents": ("Agent",),
    "providers": ("LLM Provider",),
    "conversations": ("Conversation", "Share"),
    "accounts": ("User",),
    "knowledge": ("Knowledge Base",),
    "versions": ("Version",),
    "mcp": ("MCP",),
}
"""Sequences along the document's links: a name → the tags whose operations take part."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "agent_create": ("name",),
    "agent_replace": ("name",),
    "llm_provider_create": ("model",),
    "llm_provider_update": ("model",),
    "user_create": ("username", "email"),
    "mcp_create": ("name",),
}
"""operationId → fields of its body that have to be unique."""
