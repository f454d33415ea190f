"""What the suite does in the sandbox contract: accounts, things that accounts own, per operation a
request that succeeds, and whatever else the operations need (contracts/README.md, "A new
operation")."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import requests

from contracts import parts, running
from contracts.client import Client, Form, Reply
from contracts.document import Operation
from contracts.parts import PASSWORD, Account, Making, Request, on, one, plain, send, unique
from contracts.running import SKILL_TREE, skill_md
from contracts.ways import Way, prepared


class World(parts.World):
    """sandbox at one server."""

    def login_request(self, username: str, password: str) -> Request:
        return Request("auth_login", body={"username": username, "password": password})

    def tokens(self, username: str, password: str) -> dict[str, str]:
        """The pair of a new login. Raises AssertionError when that fails."""
        reply = send(self.anonymous, self.login_request(username, password))
        assert reply.success, reply
        found: dict[str, str] = reply.data["tokens"]
        return found

    def token(self, username: str, password: str) -> str:
        return self.tokens(username, password)["access_token"]

    def user_id(self, client: Client) -> str:
        return one(client.call("auth_get_me"), "id")

    def create(self, username: str, **columns: str) -> None:
        self.registered(username)
        if columns:
            self.started.set_account(username, **columns)

    def registered(self, username: str) -> str:
        """A new account's id."""
        body = {"username": username, "password": PASSWORD}
        made = send(self.anonymous, Request("auth_register", body=body))
        if made.status == 403:  # a generated request of sage's closed registration
            self.open_registration(True)
            made = send(self.anonymous, Request("auth_register", body=body))
        assert made.success, made
        found: str = made.data["user"]["id"]
        return found

    def user(self, account: Account) -> str:
        """The id of an account that may be shut out and deleted."""
        return self.registered(unique("leaving"))

    def request(self, operation_id: str, account: Account) -> Request:
        return SUCCEEDING[operation_id](self, account)

    def makers(self) -> Mapping[str, Callable[[Account], str]]:
        return {
            "user_id": self.user,
            "session_id": self.session,
            "server_name": self.mcp_server,
            "a2a_id": self.a2a_agent,
            "skill_key": self.skill,
        }

    def open_registration(self, allowed: bool) -> None:
        """The setting that this contract has no operation for, through sage's."""
        answer = requests.post(
            f"{self.started.url}/sage/api/system/update_settings",
            json={"allow_registration": allowed},
            headers={"authorization": f"Bearer {self.admin.client.token}"},
            timeout=20,
        )
        assert answer.json()["code"] == 200, answer.text

    # --- things that an account owns ------------------------------------------------------

    def file(self, account: Account) -> str:
        """A new file's id."""
        return one(send(account.client, Request("file_upload", form=REPORT)), "id")

    def session(self, account: Account) -> str:
        """A new session's id."""
        return one(send(account.client, Request("session_create")), "session_id")

    def worked(self, account: Account) -> str:
        """A session in whose sandbox the shell `main` has written a.txt."""
        self.settle()
        session_id = self.session(account)
        body = {"message": f"script:{json.dumps(WORK)}"}
        reply = send(account.client, Request("session_chat", {"session_id": session_id}, body=body))
        assert [name for name, _ in reply.events][-1] == "done", reply.events
        return session_id

    def settle(self) -> None:
        """Give sessions the model and the limits that they begin with: generated requests of an
        administrator set others."""
        for name, body in (("app_config_update_llm", MODEL), ("app_config_update_agent", LIMITS)):
            reply = send(self.admin.client, Request(name, body=body))
            assert reply.success, reply

    # --- what is the platform's -----------------------------------------------------------

    def mcp_server(self, account: Account) -> str:
        """The name of a new server of the platform, which is not asked for its tools yet."""
        body = self.mcp_body()
        made = send(self.admin.client, Request("app_config_create_mcp_servers", body=body))
        assert made.success, made
        return next(iter(body["mcpServers"]))

    def mcp_body(self) -> dict[str, Any]:
        config = {"url": self.started.mcp_url, "enabled": False}
        return {"mcpServers": {unique("mcp"): config}}

    def a2a_agent(self, account: Account) -> str:
        """The id of a new agent of the platform; nothing answers for it."""
        body = self.a2a_body()
        made = send(self.admin.client, Request("app_config_create_a2a_server", body=body))
        assert made.success, made
        listed = self.anonymous.call("app_config_list_a2a_servers").data["a2a_servers"]
        return next(each["id"] for each in listed if each["description"] == body["base_url"])

    def skill(self, account: Account) -> str:
        """The id of a new skill of the platform."""
        return one(send(self.admin.client, Request("skill_install", body=self.skill_body())), "id")

    def skill_body(self) -> dict[str, str]:
        return {
            "source_type": "github",
            "source_ref": SKILL_TREE,
            "skill_md": skill_md(unique("skill")),
        }

    def a2a_body(self) -> dict[str, str]:
        return {"base_url": f"{self.started.mcp_url}/{unique('agent')}"}


# --- a request that succeeds, per operation -----------------------------------------------------


def _register(world: World, account: Account) -> Request:
    world.open_registration(True)
    return Request("auth_register", body={"username": unique("new"), "password": PASSWORD})


def _refresh(world: World, account: Account) -> Request:
    tokens = world.tokens(account.username, account.password)
    return Request("auth_refresh", body={"refresh_token": tokens["refresh_token"]})


def _linked(world: World, account: Account) -> Request:
    kept = send(world.admin.client, Request("status_upload_object", form=REPORT))
    link = urlsplit(one(kept, "presigned_get_url"))
    return Request("status_download_object", query=dict(parse_qsl(link.query)))


REPORT: Form = [("file", ("report.csv", b"a,b\n1,2\n"))]

MODEL = {"base_url": "", "model_name": "embedded/script"}
LIMITS = {"max_iterations": 100, "max_retries": 3, "max_search_results": 10}
WORK = [
    {"call": "shell_execute", "args": {"command": "echo 42 > a.txt"}},
    {"say": "Written."},
]
"""Steps for embedded/script."""


def _each_method(name: str) -> list[str]:
    """An operation and its aliases, one for each method."""
    methods = ("head", "post", "put", "patch", "delete", "options")
    return [name, *(f"{name}_{method}" for method in methods)]


SUCCEEDING: Mapping[str, Making] = {
    # --- auth
    "auth_register": _register,
    "auth_login": lambda world, account: world.login_request(account.username, account.password),
    "auth_refresh": _refresh,
    "auth_get_me": plain("auth_get_me"),
    "auth_authorize_wechat": plain("auth_authorize_wechat"),
    "auth_finish_wechat": plain("auth_finish_wechat", query={"code": "none", "state": "none"}),
    "auth_update_me": plain("auth_update_me", body={"nickname": "Demo", "avatar": "/demo.png"}),
    # --- admin
    "admin_list_users": plain("admin_list_users", query={"skip": 0, "limit": 20}),
    "admin_get_user": on("admin_get_user", "user_id", World.user),
    "admin_update_status": on(
        "admin_update_status", "user_id", World.user, body={"status": "inactive"}
    ),
    "admin_delete_user": on("admin_delete_user", "user_id", World.user),
    # --- status
    "status_check": plain("status_check"),
    "status_check_objects": plain("status_check_objects"),
    "status_upload_object": plain("status_upload_object", form=REPORT),
    "status_download_object": _linked,
    # --- files
    "file_upload": plain("file_upload", form=REPORT),
    "file_get": on("file_get", "file_id", World.file),
    "file_download": on("file_download", "file_id", World.file),
    "file_delete": on("file_delete", "file_id", World.file),
    # --- sessions
    "session_create": plain("session_create"),
    "session_list": plain("session_list"),
    "session_stream": plain("session_stream"),
    "session_get": on("session_get", "session_id", World.session),
    "session_chat": on("session_chat", "session_id", World.session, body={"message": "Hello"}),
    "session_stop": on("session_stop", "session_id", World.session),
    "session_clear_unread_count": on("session_clear_unread_count", "session_id", World.session),
    "session_delete": on("session_delete", "session_id", World.session),
    "session_list_files": on("session_list_files", "session_id", World.session),
    "session_read_file": on(
        "session_read_file", "session_id", World.worked, body={"filepath": "a.txt"}
    ),
    "session_read_shell": on(
        "session_read_shell", "session_id", World.worked, body={"session_id": "main"}
    ),
    # --- app config
    "app_config_get_llm": plain("app_config_get_llm"),
    "app_config_update_llm": plain("app_config_update_llm", body=MODEL),
    "app_config_get_agent": plain("app_config_get_agent"),
    "app_config_update_agent": plain("app_config_update_agent", body=LIMITS),
    "app_config_list_mcp_servers": plain("app_config_list_mcp_servers"),
    "app_config_create_mcp_servers": lambda world, account: Request(
        "app_config_create_mcp_servers", body=world.mcp_body()
    ),
    "app_config_delete_mcp_server": on(
        "app_config_delete_mcp_server", "server_name", World.mcp_server
    ),
    "app_config_update_mcp_server_enabled": on(
        "app_config_update_mcp_server_enabled",
        "server_name",
        World.mcp_server,
        body={"enabled": True},
    ),
    "app_config_list_a2a_servers": plain("app_config_list_a2a_servers"),
    "app_config_create_a2a_server": lambda world, account: Request(
        "app_config_create_a2a_server", body=world.a2a_body()
    ),
    "app_config_delete_a2a_server": on("app_config_delete_a2a_server", "a2a_id", World.a2a_agent),
    "app_config_update_a2a_server_enabled": on(
        "app_config_update_a2a_server_enabled",
        "a2a_id",
        World.a2a_agent,
        body={"enabled": True},
    ),
    # --- user tools
    "user_tools_list_mcp": plain("user_tools_list_mcp"),
    "user_tools_update_mcp_enabled": on(
        "user_tools_update_mcp_enabled",
        "server_name",
        World.mcp_server,
        body={"enabled": False},
    ),
    "user_tools_list_a2a": plain("user_tools_list_a2a"),
    "user_tools_update_a2a_enabled": on(
        "user_tools_update_a2a_enabled", "a2a_id", World.a2a_agent, body={"enabled": False}
    ),
    "user_tools_list_skills": plain("user_tools_list_skills"),
    "user_tools_update_skill_enabled": on(
        "user_tools_update_skill_enabled", "skill_key", World.skill, body={"enabled": False}
    ),
    # --- skills
    "skill_list": plain("skill_list"),
    "skill_install": lambda world, account: Request("skill_install", body=world.skill_body()),
    "skill_update_enabled": on(
        "skill_update_enabled", "skill_key", World.skill, body={"enabled": True}
    ),
    "skill_delete": on("skill_delete", "skill_key", World.skill),
    "skill_get_policy": plain("skill_get_policy"),
    "skill_update_policy": plain("skill_update_policy", body={"mode": "off"}),
    **{name: plain(name) for name in _each_method("legacy_skill_refuse_root")},
    **{name: plain(name, path={"rest": "install"}) for name in _each_method("legacy_skill_refuse")},
}
"""operationId → a request of the account's that the operation answers with its success."""


# --- statuses that need a way of their own ------------------------------------------------------


def _registration_closed(world: World, operation: Operation) -> Reply:
    request = SUCCEEDING[operation.id](world, world.owner)
    world.open_registration(False)
    try:
        return send(world.anonymous, request)
    finally:
        world.open_registration(True)


def _with(**fields: Any) -> Way:
    """The request that would succeed, with other fields in its body."""

    def way(world: World, operation: Operation) -> Reply:
        client, request = prepared(world, operation)
        return send(client, request, body={**request.body, **fields})

    return way


def _name_taken(world: World, operation: Operation) -> Reply:
    return _with(username=world.owner.username)(world, operation)


def _on_oneself(world: World, operation: Operation) -> Reply:
    client, request = prepared(world, operation)
    return send(client, request, path={"user_id": world.admin.user_id})


def _on_an_administrator(world: World, operation: Operation) -> Reply:
    client, request = prepared(world, operation)
    other = world.account("chief", role="admin")
    return send(client, request, path={"user_id": other.user_id})


def _model_unchanged(world: World, operation: Operation) -> Reply:
    """A model has a version once one is stored."""
    stored = send(world.admin.client, SUCCEEDING["app_config_update_llm"](world, world.admin))
    return send(
        world.anonymous, Request(operation.id), headers={"if-none-match": stored.headers["etag"]}
    )


def _without_wechat(world: World, operation: Operation) -> Reply:
    """A server where nobody logs in with WeChat."""
    request = SUCCEEDING[operation.id](world, world.owner)
    with (
        tempfile.TemporaryDirectory() as folder,
        running.server(Path(folder) / "data", WECHAT_FRONTEND_URL="") as alone,
    ):
        return send(world.anonymous.at(alone.url), request)


def _smoking(world: World, operation: Operation) -> Reply:
    return send(world.owner.client, Request(operation.id, query={"smoke": "true"}))


def _no_boolean(world: World, operation: Operation) -> Reply:
    return send(world.admin.client, Request(operation.id, query={"smoke": "maybe"}))


def _no_bucket(world: World, operation: Operation) -> Reply:
    client, request = prepared(world, operation)
    return send(client, request, query={"bucket": "nobodys-bucket"})


def _link(**changes: str) -> Way:
    """A link to an object, with other parameters."""

    def way(world: World, operation: Operation) -> Reply:
        _, request = prepared(world, operation)
        return send(world.anonymous, request, query={**request.query, **changes})

    return way


def _link_to_nothing(world: World, operation: Operation) -> Reply:
    """A link that is good, to an object that is gone."""
    _, request = prepared(world, operation)
    assert world.started.data is not None
    (world.started.data / "objects" / request.query["object"]).unlink()
    return send(world.anonymous, request)


PARTICULAR: Mapping[tuple[str, int], Way] = {
    ("status_check_objects", 403): _smoking,
    ("status_check_objects", 422): _no_boolean,
    ("status_download_object", 403): _link(signature="0" * 64),
    ("status_download_object", 404): _link_to_nothing,
    ("app_config_get_llm", 304): _model_unchanged,
}
"""(operationId, status) → a way to it, where ways.GENERAL has none that fits."""

SOFT: Mapping[tuple[str, int], Way] = {
    ("auth_authorize_wechat", 500): _without_wechat,
    ("auth_finish_wechat", 500): _without_wechat,
    ("status_upload_object", 400): _no_bucket,
    ("auth_register", 400): _name_taken,
    ("auth_register", 403): _registration_closed,
    ("auth_login", 401): _with(password="not the password"),
    ("auth_refresh", 401): _with(refresh_token="none"),
    **{
        (name, status): way
        for name in ("admin_update_status", "admin_delete_user")
        for status, way in ((400, _on_oneself), (403, _on_an_administrator))
    },
}
"""The same for codes that come with HTTP 200."""


# --- whose things are whose ---------------------------------------------------------------------


class Foreign(NamedTuple):
    """An id in a request that is its owner's: another account gets 403 for it, and 404 for one
    that is not there. `make` makes the owner's request, SUCCEEDING's unless it is given;
    `administrator` says whether an administrator reaches the thing. `place` is path, query or
    body, where `name` may lead through objects and lists: `attachments/0`."""

    operation_id: str
    name: str
    place: str = "path"
    make: Making | None = None
    administrator: bool = True


FOREIGN: tuple[Foreign, ...] = (
    Foreign("file_get", "file_id"),
    Foreign("file_download", "file_id"),
    Foreign("file_delete", "file_id"),
    Foreign("session_get", "session_id"),
    Foreign("session_chat", "session_id"),
    Foreign("session_stop", "session_id"),
    Foreign("session_clear_unread_count", "session_id", administrator=False),
    Foreign("session_delete", "session_id", administrator=False),
    Foreign("session_list_files", "session_id"),
    Foreign("session_read_file", "session_id"),
    Foreign("session_read_shell", "session_id"),
)

OPEN: Mapping[tuple[str, str], str] = {
    ("session_chat", "event_id"): "a position in the session that the path names",
    ("session_read_shell", "session_id"): "in the body a shell of the session in the path",
    **{
        (name, "a2a_id"): "an agent of the platform is nobody's"
        for name in (
            "app_config_delete_a2a_server",
            "app_config_update_a2a_server_enabled",
            "user_tools_update_a2a_enabled",
        )
    },
    **{
        (name, "skill_key"): "a skill of the platform is nobody's"
        for name in ("skill_update_enabled", "skill_delete", "user_tools_update_skill_enabled")
    },
    **{
        (name, "user_id"): "for administrators, who see every account"
        for name in ("admin_get_user", "admin_update_status", "admin_delete_user")
    },
}
"""(operationId, name of an id) → why it needs no row in FOREIGN."""


# --- sequences and generated requests -----------------------------------------------------------

GROUPS: Mapping[str, tuple[str, ...]] = {"files": ("File",), "sessions": ("Session",)}
"""Sequences along the document's links: a name → the tags whose operations take part."""

NAMES: Mapping[str, tuple[str, ...]] = {"auth_register": ("username", "email")}
"""operationId → fields of its body that have to be unique."""
