"""sage's operations on accounts, through the lane: every response is checked against the spec."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from generated.sage import models
from handlers.sage import auth, system, user
from server.app import GENERATED, Application
from server.dispatch import Dispatch, Root
from server.lane.access import Door
from server.lane.contract import Contract, Routes, load_document
from server.lane.forms import Limits
from server.lane.idempotency import Idempotency
from server.lane.leases import Leases
from server.lane.operation import Around
from server.lane.origin import Proxies
from server.lane.rates import Rates
from server.lane.replies import Drain
from server.lane.shapes import SHAPES
from tests.identity.conftest import PASSWORD, MakeWorld, World

RESOURCES = {"auth": auth, "user": user, "system": system}
BODIES = {
    "auth_send_code": models.RegistrationCodeRequest,
    "auth_register": models.RegisterRequest,
    "auth_login": models.LoginRequest,
    "user_change_password": models.PasswordChange,
    "user_create": models.UserAddRequest,
    "user_delete": models.UserDeleteRequest,
    "user_update_config": models.UserConfig,
    "system_update_settings": models.SystemSettings,
    "system_count_usage": models.UsageRequest,
}


def application(world: World, proxy_header: str = "") -> Application:
    """The rows of accounts alone, over the parts of one world."""
    document = load_document(GENERATED / "sage")
    handlers: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    paths: dict[str, Any] = {}
    for path, item in document["paths"].items():
        kept = {}
        for method, operation in item.items():
            name = operation["operationId"]
            resource, _, verb = name.partition("_")
            if operation["tags"][0].lower() not in RESOURCES:
                continue
            kept[method] = operation
            if "x-alias-of" in operation:
                aliases[name] = operation["x-alias-of"]
            else:
                module = RESOURCES[resource]
                handlers[name] = getattr(module, verb, None) or getattr(module, f"{verb}_")
        if kept:
            paths[path] = kept
    proxies = Proxies(["127.0.0.0/8"])
    around = Around(
        quartet=world,
        door=Door(
            world.identity,
            cookie_name="sage_session",
            origins=frozenset({"http://sage.test"}),
            proxies=proxies,
            proxy_header=proxy_header,
        ),
        proxies=proxies,
        rates=Rates({"login": "100/minute", "send_code": "100/minute"}),
        leases=Leases({}),
        idempotency=Idempotency.__new__(Idempotency),
        drain=Drain(),
        json_limit=1 << 20,
        forms=Limits(file=1, files=1),
        cookie=lambda value: (b"set-cookie", f"sage_session={value}; Path=/".encode()),
        check_responses=True,
    )
    contract = Contract(
        "sage",
        {**document, "paths": paths},
        Routes(handlers, aliases, BODIES, frozenset(handlers) - {"system_check_active"}),
        around,
    )
    root = Root([contract], SHAPES["sage"])
    dispatch = Dispatch(
        roots={8000: root},
        default_root=root,
        contracts={"sage": contract},
        pages={},
        cors_origins=frozenset(),
        root_path="",
        json_limit=1 << 20,
    )
    return Application({"sage": contract}, dispatch)


def client_of(world: World, **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=application(world, **options), client=("127.0.0.1", 5))
    return httpx.AsyncClient(transport=transport, base_url="http://sage.test:8000")


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as made:
        yield made


async def said(awaitable: Any, status: int, code: int) -> Any:
    """The message of a refusal, or the data of a success."""
    response = await awaitable
    envelope = response.json()
    assert (response.status_code, envelope["code"]) == (status, code), envelope
    return envelope["data"] if code == 200 else envelope["message"]


async def logged_in(
    client: httpx.AsyncClient, username: str, password: str = PASSWORD
) -> dict[str, str]:
    body = {"username_or_email": username, "password": password}
    tokens = await said(client.post("/api/auth/login", json=body), 200, 200)
    client.cookies.clear()
    return {"Authorization": f"Bearer {tokens['access_token']}"}


@pytest.mark.parametrize("base", ["/api/auth", "/api/user"])
async def test_register_log_in_look_log_out(
    world: World, client: httpx.AsyncClient, base: str
) -> None:
    data = await said(
        client.post(f"{base}/register/send-code", json={"email": "a@example.com"}), 200, 200
    )
    assert data == {"expires_in": 300, "retry_after": 30}
    body = {
        "username": "alice",
        "password": "StrongPassword123",
        "email": "a@example.com",
        "phonenum": "13800000000",
        "verification_code": world.mailbox.code("a@example.com"),
    }
    wrong = {**body, "verification_code": "x"}
    assert await said(client.post(f"{base}/register", json=wrong), 400, 500) == "验证码错误"
    user_id = (await said(client.post(f"{base}/register", json=body), 200, 200))["user_id"]
    credentials = {"username_or_email": "alice", "password": "StrongPassword123"}
    tokens = await said(client.post(f"{base}/login", json=credentials), 200, 200)
    assert sorted(tokens) == ["access_token", "expires_in", "refresh_token"]
    assert "sage_session" in client.cookies
    look = "/api/auth/session" if base == "/api/auth" else "/api/user/check_login"
    assert await said(client.get(look), 200, 200) == {
        "user": {
            "userid": user_id,
            "username": "alice",
            "nickname": None,
            "phonenum": "13800000000",
            "email": "a@example.com",
            "role": "user",
            "avatar": None,
            "avatar_url": None,
        },
        "has_provider": False,
        "has_agent": False,
    }
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    cookies = dict(client.cookies)
    assert await said(client.post(f"{base}/logout"), 200, 200) == {}
    assert dict(client.cookies) != cookies
    client.cookies.clear()
    stale = {"Cookie": f"sage_session={cookies['sage_session']}"}
    assert await said(client.get(look, headers=stale), 401, 401) == "登录过期"
    assert await said(client.get(look, headers=bearer), 401, 401) == "登录过期"
    assert await said(client.get(look), 401, 401) == "未登录"


async def test_a_wrong_password_is_said_as_documented(
    world: World, client: httpx.AsyncClient
) -> None:
    await world.add("alice")
    for name in ("alice", "nobody"):
        body = {"username_or_email": name, "password": "wrong"}
        assert await said(client.post("/api/auth/login", json=body), 401, 500) == (
            "用户名或密码错误"
        )
    english = {"Accept-Language": "en"}
    body = {"username_or_email": "alice", "password": "wrong"}
    assert "wrong" in await said(
        client.post("/api/auth/login", json=body, headers=english), 401, 500
    )


async def test_modes_answer_softly(make_world: MakeWorld) -> None:
    native = await make_world()
    await native.add("alice")
    credentials = {"username_or_email": "alice", "password": PASSWORD}
    async with client_of(await make_world(mode="oauth")) as client:
        message = await said(client.post("/api/auth/login", json=credentials), 200, 400)
        assert message == "当前服务未启用本地账号密码登录"
        assert await said(client.get("/api/auth/providers"), 200, 200) == []
    async with client_of(await make_world(mode="trusted_proxy"), proxy_header="X-User") as client:
        await said(client.post("/api/auth/login", json=credentials), 200, 403)
        message = await said(
            client.post("/api/auth/register/send-code", json={"email": "a@example.com"}), 200, 400
        )
        assert message == "当前服务未启用本地账号注册"
        session = await said(client.get("/api/auth/session", headers={"X-User": "pat"}), 200, 200)
        assert session["user"]["userid"] == "pat"


async def test_registration_is_closed_by_an_administrator(
    world: World, client: httpx.AsyncClient
) -> None:
    await world.add("root", role="admin")
    admin = await logged_in(client, "root")
    path = "/api/system/update_settings"
    body = {"allow_registration": False}
    assert await said(client.post(path, json=body, headers=admin), 200, 200) == {}
    info = await said(client.get("/api/system/info"), 200, 200)
    assert info["allow_registration"] is False
    assert info["auth_providers"][0]["button_text"] == "账号密码登录"
    message = await said(
        client.post("/api/auth/register/send-code", json={"email": "a@example.com"}), 403, 500
    )
    assert message == "系统未开放注册"


async def test_administration(world: World, client: httpx.AsyncClient) -> None:
    await world.add("root", role="admin")
    admin = {"headers": await logged_in(client, "root")}
    body = {"username": "bob", "password": PASSWORD, "email": "bob@example.com"}
    user_id = (await said(client.post("/api/user/add", json=body, **admin), 200, 200))["user_id"]
    assert await said(client.post("/api/user/add", json=body, **admin), 409, 500) == "用户名已存在"
    page = await said(client.get("/api/user/list?page=1&page_size=1", **admin), 200, 200)
    assert page["total"] == 2
    assert page["items"][0]["user_id"] == user_id
    assert page["items"][0]["created_at"].endswith("+00:00")
    options = await said(client.get("/api/user/options", **admin), 200, 200)
    assert options[0] == {"label": "bob", "value": user_id}

    bob = {"headers": await logged_in(client, "bob")}
    for method, path, sent in (
        ("GET", "/api/user/list", None),
        ("POST", "/api/user/add", body),
        ("POST", "/api/user/delete", {"user_id": user_id}),
        ("POST", "/api/system/update_settings", {"allow_registration": True}),
    ):
        denied = await said(client.request(method, path, json=sent, **bob), 200, 403)
        assert denied == "权限不足"

    root = next(item for item in (await world.users.page(1, 10))[0] if item.username == "root")
    path = "/api/user/delete"
    await said(client.post(path, json={"user_id": root.id}, **admin), 403, 500)
    assert await said(client.post(path, json={"user_id": "x"}, **admin), 404, 500) == "用户不存在"
    assert await said(client.post(path, json={"user_id": user_id}, **admin), 200, 200) == {}
    assert await said(client.get("/api/user/config", **bob), 401, 401) == "登录过期"


async def test_own_account(world: World, client: httpx.AsyncClient) -> None:
    await world.add("vera", role="viewer")
    vera = {"headers": await logged_in(client, "vera")}
    other = {"headers": await logged_in(client, "vera")}
    assert await said(client.get("/api/user/config", **vera), 200, 200) == {"config": {}}
    for sent, whole in (
        ({"theme": "dark", "bar": {"a": 1}}, {"theme": "dark", "bar": {"a": 1}}),
        ({"bar": {"b": 2}}, {"theme": "dark", "bar": {"b": 2}}),
    ):
        body = {"config": sent}
        answer = await said(client.post("/api/user/config", json=body, **vera), 200, 200)
        assert answer == {"config": whole}
    path = "/api/user/change-password"
    body = {"old_password": "wrong", "new_password": "another password"}
    assert await said(client.post(path, json=body, **vera), 401, 500) == "旧密码错误"
    body = {"old_password": PASSWORD, "new_password": "short"}
    assert "8 到 128" in await said(client.post(path, json=body, **vera), 400, 500)
    body = {"old_password": PASSWORD, "new_password": "another password"}
    assert await said(client.post(path, json=body, **vera), 200, 200) == {}
    await said(client.get("/api/auth/session", **vera), 200, 200)
    await said(client.get("/api/auth/session", **other), 401, 401)


async def test_health(client: httpx.AsyncClient) -> None:
    health = await said(client.get("/api/health"), 200, 200)
    assert health["status"] == "healthy"
    active = await client.get("/active")
    assert active.text == "Service is available."
    assert active.headers["content-type"].startswith("text/plain")
