"""sandbox's operations on accounts, through the lane, which checks every response."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest

from generated.sandbox import models
from handlers.sandbox import auth
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
from tests.identity.conftest import ADMIN, PASSWORD, MakeWorld, World

BODIES = {
    "auth_register": models.RegisterRequest,
    "auth_login": models.LoginRequest,
    "auth_refresh": models.RefreshTokenRequest,
    "auth_update_me": models.UpdateUserRequest,
}
DEMO = {"username": "demo", "password": PASSWORD}


def application(world: World) -> Application:
    """The rows of the tag Auth alone, over the parts of one world."""
    document = load_document(GENERATED / "sandbox")
    handlers: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            name = operation["operationId"]
            verb = name.removeprefix("auth_")
            if operation["tags"] == ["Auth"] and hasattr(auth, verb):
                handlers[name] = getattr(auth, verb)
                paths.setdefault(path, {})[method] = operation
    proxies = Proxies(["127.0.0.0/8"])
    around = Around(
        quartet=world,
        door=Door(
            world.identity,
            cookie_name="sage_session",
            origins=frozenset({"http://sandbox.test"}),
            proxies=proxies,
            proxy_header="",
        ),
        proxies=proxies,
        rates=Rates({"login": "100/minute"}),
        leases=Leases({}),
        idempotency=Idempotency.__new__(Idempotency),
        drain=Drain(),
        json_limit=1 << 20,
        forms=Limits(file=1, files=1),
        cookie=lambda value: (b"set-cookie", f"sage_session={value}; Path=/".encode()),
        check_responses=True,
    )
    routes = Routes(handlers, {}, BODIES, frozenset(handlers))
    contract = Contract("sandbox", {**document, "paths": paths}, routes, around)
    root = Root([contract], SHAPES["sandbox"])
    dispatch = Dispatch(
        roots={8000: root},
        default_root=root,
        contracts={"sandbox": contract},
        pages={},
        cors_origins=frozenset(),
        root_path="",
        json_limit=1 << 20,
    )
    return Application({"sandbox": contract}, dispatch)


def client_of(world: World) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=application(world), client=("127.0.0.1", 5))
    return httpx.AsyncClient(transport=transport, base_url="http://sandbox.test:8000")


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as made:
        yield made


async def said(awaitable: Any, status: int, code: int) -> Any:
    """The message of a refusal, or the data of a success."""
    response = await awaitable
    envelope = response.json()
    assert (response.status_code, envelope["code"]) == (status, code), envelope
    if code == 200:
        return envelope["data"]
    if code != 422:
        assert envelope["data"] == (None if status == 200 else {})
    return envelope["msg"]


async def register(client: httpx.AsyncClient, code: int = 200, **body: Any) -> Any:
    body.setdefault("password", PASSWORD)
    return await said(client.post("/api/auth/register", json=body), 200, code)


async def log_in(client: httpx.AsyncClient, code: int = 200, **body: Any) -> Any:
    body.setdefault("password", PASSWORD)
    return await said(client.post("/api/auth/login", json=body), 200, code)


async def refresh(client: httpx.AsyncClient, token: str, code: int = 200) -> Any:
    return await said(client.post("/api/auth/refresh", json={"refresh_token": token}), 200, code)


async def me(client: httpx.AsyncClient, access_token: str, code: int = 200) -> Any:
    headers = {"Authorization": f"Bearer {access_token}"}
    return await said(client.get("/api/auth/me", headers=headers), code, code)


async def test_registering_is_a_login(world: World, client: httpx.AsyncClient) -> None:
    data = await register(client, username="demo", email="Demo@Example.com", nickname="Demo")
    user, tokens = data["user"], data["tokens"]
    assert {k: v for k, v in user.items() if k not in ("id", "created_at")} == {
        "username": "demo",
        "email": "Demo@Example.com",
        "nickname": "Demo",
        "avatar": None,
        "role": "user",
        "status": "active",
    }
    assert user["created_at"].endswith("+00:00")
    assert tokens["token_type"] == "bearer"
    assert await me(client, tokens["access_token"]) == user
    assert "set-cookie" not in (await client.post("/api/auth/login", json=DEMO)).headers
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    assert (claims["username"], claims["role"], claims["type"]) == ("demo", "user", "access")
    assert claims["exp"] - claims["iat"] == 30 * 60
    stored = await world.users.get(user["id"])
    assert (stored.role, stored.email_verified) == ("operator", False)


async def test_a_name_is_enough_and_so_is_an_address(client: httpx.AsyncClient) -> None:
    """Without a username the account is called after the address, under a name that is free."""
    named = (await register(client, username="demo"))["user"]
    assert (named["username"], named["email"], named["nickname"]) == ("demo", None, "demo")
    blank = (await register(client, username="other", email="", nickname=""))["user"]
    assert (blank["email"], blank["nickname"]) == (None, "other")
    names = set()
    for number in range(3):
        mailed = (await register(client, email=f"demo@host{number}.example.com"))["user"]
        assert mailed["email"] == f"demo@host{number}.example.com"
        assert mailed["username"].startswith("demo")
        assert mailed["nickname"] == "demo"
        names.add(mailed["username"])
    assert len(names) == 3
    assert "demo" not in names


async def test_what_is_taken_is_refused_softly(client: httpx.AsyncClient) -> None:
    await register(client, username="demo", email="demo@example.com")
    assert await register(client, 400, username="DEMO") == "用户名已存在"
    for more in ({}, {"username": "another"}):
        taken = await register(client, 400, email="DEMO@example.com", **more)
        assert taken == "邮箱已被使用", taken
    assert (await register(client, username="another"))["user"]["email"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": None, "email": None},
        {"username": "", "email": ""},
        {"email": "no address"},
        {"username": "with@sign"},
        {"username": "demo", "password": "short"},
    ],
)
async def test_what_is_no_account_is_refused(
    body: dict[str, Any], client: httpx.AsyncClient
) -> None:
    response = await client.post("/api/auth/register", json={"password": PASSWORD, **body})
    envelope = response.json()
    short = body.get("username") == ""
    assert (response.status_code, envelope["code"]) == ((422, 422) if short else (200, 400))
    await log_in(client, 401, username="demo")


async def test_the_door_can_be_closed(world: World, client: httpx.AsyncClient) -> None:
    await world.system.update(ADMIN, allow_registration=False)
    assert await register(client, 403, **DEMO) == "系统未开放注册"
    await world.system.update(ADMIN, allow_registration=True)
    await register(client, **DEMO)


async def test_where_addresses_are_proved_this_door_is_closed(make_world: MakeWorld) -> None:
    async with client_of(await make_world(registration_verify_email=True)) as client:
        assert await register(client, 403, **DEMO)
        await log_in(client, 401, username="demo")


async def test_where_passwords_log_nobody_in(make_world: MakeWorld) -> None:
    await (await make_world()).add("demo")
    async with client_of(await make_world(mode="oauth")) as client:
        await register(client, 403, username="other")
        await log_in(client, 401, username="demo")


async def test_logging_in_by_either(world: World, client: httpx.AsyncClient) -> None:
    user = (await register(client, username="demo", email="demo@example.com"))["user"]
    for name in ({"username": "demo"}, {"username": "Demo"}, {"email": "DEMO@example.com"}):
        data = await log_in(client, **name)
        assert data["user"] == user
        assert (await me(client, data["tokens"]["access_token"]))["id"] == user["id"]
    both = await log_in(client, username="demo", email="nobody@example.com")
    assert both["user"] == user, "a username wins over an address"


async def test_every_failed_login_is_401_with_http_200(
    world: World, client: httpx.AsyncClient
) -> None:
    """And says no more than that, but for who is no longer active."""
    await register(client, username="demo", email="demo@example.com")
    failures = {
        await log_in(client, 401, **body)
        for body in (
            {"username": "demo", "password": "wrong"},
            {"email": "demo@example.com", "password": "wrong"},
            {"username": "nobody"},
            {"email": "nobody@example.com"},
        )
    }
    assert failures == {"用户名或密码错误"}
    for body in ({}, {"username": None, "email": ""}):
        assert await log_in(client, 401, **body) not in failures
    body = {"username": "demo", "password": "wrong"}
    english = {"Accept-Language": "en"}
    answer = await said(client.post("/api/auth/login", json=body, headers=english), 200, 401)
    assert "wrong" in answer


async def test_an_administrator_is_a_super_admin(world: World, client: httpx.AsyncClient) -> None:
    for username, role, shown in (
        ("root", "admin", "super_admin"),
        ("vera", "viewer", "user"),
        ("olga", "operator", "user"),
    ):
        await world.add(username, role=role)
        data = await log_in(client, username=username)
        assert data["user"]["role"] == shown
        claims = jwt.decode(data["tokens"]["access_token"], options={"verify_signature": False})
        assert claims["role"] == shown


async def test_a_refresh_token_is_good_once(client: httpx.AsyncClient) -> None:
    """Its second use ends the login with all its tokens, and no other login."""
    await register(client, **DEMO)
    first = (await log_in(client, username="demo"))["tokens"]
    other = (await log_in(client, username="demo"))["tokens"]
    second = await refresh(client, first["refresh_token"])
    assert sorted(second) == ["access_token", "refresh_token", "token_type"]
    assert second["refresh_token"] != first["refresh_token"]
    third = await refresh(client, second["refresh_token"])
    assert (await me(client, third["access_token"]))["username"] == "demo"
    assert await refresh(client, first["refresh_token"], 401) == "登录过期"
    await refresh(client, third["refresh_token"], 401)
    await me(client, third["access_token"], 401)
    assert (await me(client, other["access_token"]))["username"] == "demo"
    await refresh(client, other["refresh_token"])


async def test_what_is_no_refresh_token(world: World, client: httpx.AsyncClient) -> None:
    tokens = (await register(client, **DEMO))["tokens"]
    for token in ("", "none", tokens["access_token"], tokens["refresh_token"] + "x"):
        await refresh(client, token, 401)
    world.clock.ahead = 8 * 24 * 3600
    await refresh(client, tokens["refresh_token"], 401)
    world.clock.ahead = 0
    await refresh(client, tokens["refresh_token"])


async def test_an_access_token_lives_for_half_an_hour(
    world: World, client: httpx.AsyncClient
) -> None:
    tokens = (await register(client, **DEMO))["tokens"]
    world.clock.ahead = 30 * 60 - 5
    await me(client, tokens["access_token"])
    world.clock.ahead = 30 * 60 + 61
    await me(client, tokens["access_token"], 401)
    renewed = await refresh(client, tokens["refresh_token"])
    await me(client, renewed["access_token"])


async def test_whose_profile_it_is(client: httpx.AsyncClient) -> None:
    tokens = (await register(client, **DEMO))["tokens"]
    assert await said(client.get("/api/auth/me"), 401, 401) == "未登录"
    for credential in ("none", tokens["refresh_token"]):
        await me(client, credential, 401)
    cookie = {"Cookie": f"sage_session={tokens['access_token']}"}
    await said(client.get("/api/auth/me", headers=cookie), 401, 401)


async def test_changing_the_profile(world: World, client: httpx.AsyncClient) -> None:
    """What is absent, null or empty stays; the account's name, role and status are not on offer."""
    await world.add("vera", role="viewer")
    tokens = (await log_in(client, username="vera"))["tokens"]
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    for body, nickname, avatar in (
        ({"nickname": "Vera"}, "Vera", None),
        ({"avatar": "https://example.com/v.png"}, "Vera", "https://example.com/v.png"),
        ({"nickname": None, "avatar": None}, "Vera", "https://example.com/v.png"),
        ({}, "Vera", "https://example.com/v.png"),
        ({"nickname": "V", "avatar": "/v.png"}, "V", "/v.png"),
    ):
        user = await said(client.put("/api/auth/me", json=body, headers=headers), 200, 200)
        assert (user["nickname"], user["avatar"]) == (nickname, avatar), body
        assert await me(client, tokens["access_token"]) == user
    for wrong in (
        {"nickname": "n" * 65},
        {"nickname": "V\nadministrator"},
        {"nickname": "\u202eareV"},
        {"avatar": "https://example.com/" + "a" * 493},
        {"avatar": "javascript:alert(1)"},
        {"avatar": "data:text/html,x"},
        {"nickname": 5},
        {"role": "super_admin"},
        {"username": "root"},
    ):
        await said(client.put("/api/auth/me", json=wrong, headers=headers), 422, 422)
    assert (await me(client, tokens["access_token"]))["nickname"] == "V"
