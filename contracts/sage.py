"""What the suite does in the sage contract: accounts, things that accounts own, and per operation
a request that succeeds."""

import itertools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from contracts.client import ABSENT, Client
from contracts.running import Started

PASSWORD = "StrongPassword123"
_NUMBERS = itertools.count(1)
_RUN = os.urandom(3).hex()


def unique(prefix: str) -> str:
    """A name that no other test, process or run uses."""
    return f"{prefix}-{_RUN}-{next(_NUMBERS)}"


def address() -> dict[str, str]:
    """A client address of its own, for servers that trust this one as a proxy: what one test gets
    wrong locks no other out."""
    number = next(_NUMBERS)
    return {"x-forwarded-for": f"10.{os.getpid() % 256}.{number // 256 % 256}.{number % 256}"}


class Account(NamedTuple):
    """An account with its login. `client` sends as it."""

    user_id: str
    username: str
    password: str
    client: Client


class Request(NamedTuple):
    """The parts of a request that a test may change one by one."""

    operation_id: str
    path: Mapping[str, str] = {}
    query: Mapping[str, Any] = {}
    body: Any = ABSENT


class World:
    """One server, its administrator, and accounts made for the tests."""

    def __init__(self, started: Started, anonymous: Client) -> None:
        self.started = started
        self.anonymous = anonymous
        self.admin = self.login(*started.admin)
        self.owner = self.account("owner")
        self.stranger = self.account("stranger")
        self.viewer = self.new_viewer()

    def login(self, username: str, password: str) -> Account:
        """Log in. Raises AssertionError when that fails."""
        client = self.anonymous.holding(self.token(username, password))
        user_id = client.call("auth_get_session").data["user"]["userid"]
        return Account(user_id, username, password, client)

    def token(self, username: str, password: str) -> str:
        """The access token of a new login."""
        reply = self.anonymous.call(
            "auth_login",
            body={"username_or_email": username, "password": password},
            headers=address(),
        )
        assert reply.success, reply
        token: str = reply.data["access_token"]
        return token

    def create(self, username: str, **columns: str) -> None:
        """Make an account. `columns` are set behind the server's back."""
        body = {"username": username, "password": PASSWORD}
        made = self.admin.client.call("user_create", body=body)
        assert made.success, made
        if columns:
            self.started.set_account(username, **columns)

    def account(self, prefix: str = "someone", **columns: str) -> Account:
        """A new account, logged in."""
        username = unique(prefix)
        self.create(username, **columns)
        return self.login(username, PASSWORD)

    def new_viewer(self) -> Account:
        """An account that may read: a new one, or the one that was named."""
        if self.started.data is None:
            return self.login(*self.started.viewer)
        return self.account("viewer", role="viewer")

    def left(self) -> Client:
        """Holds the token of an account that was made inactive after its login."""
        username = unique("left")
        self.create(username)
        token = self.token(username, PASSWORD)
        self.started.set_account(username, status="inactive")
        return self.anonymous.holding(token)

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

    def user(self) -> str:
        """The id of an account that may be deleted."""
        body = {"username": unique("leaving"), "password": PASSWORD}
        return _one(self.admin.client.call("user_create", body=body), "user_id")


def said(text: str) -> list[dict[str, str]]:
    """A chat's messages: one, of the user."""
    return [{"role": "user", "content": text}]


def scripted(value: Any) -> str:
    """A message at which the script model answers this JSON value."""
    return "script:" + json.dumps([{"json": value}])


def _one(reply: Any, key: str) -> str:
    assert reply.success, reply
    value: str = reply.data[key]
    return value


DRAFT = {
    "name": "Clerk",
    "description": "Files things.",
    "systemPrefix": "You file things.",
    "systemContext": {},
    "availableWorkflows": {},
    "availableTools": [],
}
"""An agent's draft, as a model writes it."""

Making = Callable[[World, Account], Request]


def _on(operation_id: str, name: str, make: Callable[[World, Account], str], **more: Any) -> Making:
    """A request to a thing of the caller's own, made for it."""
    return lambda world, account: Request(operation_id, {name: make(world, account)}, **more)


def _plain(operation_id: str, **more: Any) -> Making:
    return lambda world, account: Request(operation_id, **more)


def _register(operation_id: str, send: str) -> Making:
    def make(world: World, account: Account) -> Request:
        email = f"{unique('new')}@example.com"
        reply = world.anonymous.call(send, body={"email": email}, headers=address())
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


SUCCEEDING: Mapping[str, Making] = {
    "system_check_active": _plain("system_check_active"),
    "system_check_health": _plain("system_check_health"),
    "system_get_info": _plain("system_get_info"),
    "system_update_settings": _plain("system_update_settings", body={"allow_registration": True}),
    "system_count_usage": _plain("system_count_usage", body={"days": 30}),
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
    "session_check_tasks": _on("session_check_tasks", "session_id", World.conversation),
}
"""operationId → a request of the account's that the operation answers with its success."""


def send(client: Client, request: Request, **changes: Any) -> Any:
    """Send a request, with other headers, or with parts of it changed."""
    headers = {**address(), **changes.pop("headers", {})}
    changed = request._replace(**changes)
    return client.call(
        changed.operation_id,
        path=changed.path,
        query=changed.query,
        body=changed.body,
        headers=headers,
    )
