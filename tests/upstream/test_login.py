"""Logging in at real providers, over HTTP: OpenID Connect, and plain OAuth 2."""

import json
import socket
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.serving import Server, serving
from tests.upstream.issuer import CLIENT_ID, CLIENT_SECRET, Issuer
from tests.upstream.parts import PASSWORD, Browser, mock_provider, running

BrowserAt = Callable[[Server], Browser]


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mock_provider(tmp_path_factory.mktemp("mock")) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def mocked(mock: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    provider = {
        "id": "mock",
        "name": "Mock",
        "issuer": mock,
        "client_id": "q",
        "client_secret": "s",
    }
    with running(tmp_path_factory.mktemp("mocked"), [provider], AUTH_MODE="oauth") as server:
        yield server


def test_openid_connect_from_the_first_request_to_the_session(
    mock: str, mocked: Server, browser_at: BrowserAt
) -> None:
    claims = {
        "email": "grace@example.com",
        "email_verified": True,
        "preferred_username": "grace",
        "name": "Grace Hopper",
        "picture": "https://example.com/grace.png",
    }
    httpx.put(f"{mock}/users/g-1", json=claims).raise_for_status()
    browser = browser_at(mocked)
    where = browser.begin(next="/agent/chat")
    asked = dict(parse_qsl(urlsplit(where).query))
    assert where.startswith(f"{mock}/oauth2/authorize?")
    assert asked["redirect_uri"] == f"{mocked.url}/api/auth/upstream/callback/mock"
    assert asked["scope"] == "openid profile email"
    assert asked["code_challenge_method"] == "S256"
    agreed = httpx.post(where, data={"sub": "g-1"})
    assert agreed.status_code == 302, agreed.text
    assert browser.back(agreed.headers["location"]) == "/agent/chat"
    found = browser.account
    assert found is not None
    user_id = found.pop("userid")
    assert found == {
        "username": "grace",
        "nickname": "Grace Hopper",
        "phonenum": None,
        "email": "grace@example.com",
        "role": "user",
        "avatar": "https://example.com/grace.png",
        "avatar_url": "https://example.com/grace.png",
    }
    # in another browser, by another name: the subject is what counts
    httpx.put(f"{mock}/users/g-1", json={**claims, "preferred_username": "hopper"})
    second = browser_at(mocked)
    agreed = httpx.post(second.begin("mock"), data={"sub": "g-1"})
    assert second.back(agreed.headers["location"]) == "/agent/chat"
    assert second.account is not None
    assert second.account["userid"] == user_id


def test_saying_no_at_the_provider(mocked: Server, browser_at: BrowserAt) -> None:
    browser = browser_at(mocked)
    denied = httpx.post(browser.begin("mock"), data={"action": "deny"})
    # this one leaves the state out, which the callback needs (RFC 6749 §4.1.2.1)
    assert "error=access_denied" in denied.headers["location"]
    assert browser.get(denied.headers["location"]).status_code == 422
    assert browser.account is None


def test_only_the_providers_log_in_in_the_mode_oauth(mocked: Server, browser_at: BrowserAt) -> None:
    browser = browser_at(mocked)
    info = browser.get("/api/system/info").json()["data"]
    assert info["auth_mode"] == "oauth"
    assert (info["has_local_auth"], info["has_oauth_auth"]) == (False, True)
    assert (info["oauth_enabled"], info["oauth_provider_name"]) == (True, "Mock")
    assert (info["default_auth_provider"], info["allow_registration"]) == ("mock", False)
    listed = browser.get("/api/auth/providers").json()["data"]
    assert listed == info["auth_providers"]
    assert listed == [
        {
            "id": "mock",
            "type": "oidc",
            "name": "Mock",
            "button_text": "使用 Mock 登录",
            "description": "使用 Mock 账号登录",
            "icon": "",
        }
    ]
    page = browser.get("/login?next=/agent/chat").text
    assert "<form" not in page
    assert 'href="/api/auth/upstream/login/mock?next=%2Fagent%2Fchat">Mock</a>' in page
    body = {"username_or_email": "admin", "password": PASSWORD}
    login = httpx.post(f"{mocked.url}/sage/api/auth/login", json=body)
    assert (login.status_code, login.json()["code"]) == (200, 400)
    for path, asked in (
        ("send-code", {"email": "new@example.com"}),
        (
            "",
            {
                "username": "new",
                "password": PASSWORD,
                "email": "new@example.com",
                "verification_code": "123456",
            },
        ),
    ):
        url = f"{mocked.url}/sage/api/auth/register/{path}".rstrip("/")
        refused = httpx.post(url, json=asked)
        assert (refused.status_code, refused.json()["code"]) == (200, 400)


def test_the_administrator_comes_by_a_verified_address(
    mock: str, mocked: Server, browser_at: BrowserAt
) -> None:
    claims = {"email": "admin@localhost.localdomain", "email_verified": True}
    httpx.put(f"{mock}/users/boss", json=claims).raise_for_status()
    browser = browser_at(mocked)
    agreed = httpx.post(browser.begin("mock"), data={"sub": "boss"})
    browser.back(agreed.headers["location"])
    assert browser.account is not None
    assert (browser.account["username"], browser.account["role"]) == ("admin", "admin")


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


def test_a_plain_oauth2_server(
    tmp_path_factory: pytest.TempPathFactory, browser_at: BrowserAt
) -> None:
    """Another Quartet, whose people log in here with their accounts there."""
    port = free_port()
    callback = f"http://127.0.0.1:{port}/api/auth/upstream/callback/other"
    client = {"client_id": "here", "redirect_uris": [callback], "skip_consent": True}
    given = {"ADMIN_PASSWORD": PASSWORD, "OAUTH_CLIENTS": json.dumps([client])}
    with serving(tmp_path_factory.mktemp("other") / "data", given=given) as other:
        provider = {
            "id": "other",
            "client_id": "here",
            "authorize_url": f"{other.url}/oauth2/authorize",
            "token_url": f"{other.url}/oauth2/token",
            "userinfo_url": f"{other.url}/oauth2/userinfo",
        }
        folder = tmp_path_factory.mktemp("here")
        with running(folder, [provider], "--port", str(port), ADMIN_EMAIL="") as here:
            body = {"username_or_email": "admin", "password": PASSWORD}
            with httpx.Client() as there:
                there.post(f"{other.url}/sage/api/auth/login", json=body).raise_for_status()
                browser = browser_at(here)
                sent = there.get(browser.begin("other", next="/sage/docs"))
            assert sent.headers["location"].startswith(f"{callback}?")
            assert browser.back(sent.headers["location"]) == "/sage/docs"
            found = browser.account
            assert found is not None
            # a new account: the administrator's name is taken here, its rights are not given
            assert found["username"].startswith("admin-")
            assert (found["email"], found["role"]) == ("admin@localhost.localdomain", "user")


def test_without_providers_there_is_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("none"), []) as server:
        for path in ("auth/upstream/login", "user/oauth/login"):
            reply = httpx.get(f"{server.url}/api/{path}")
            assert reply.status_code == 200
            assert reply.json()["code"] == 404
            assert reply.json()["message"] == "OAuth Provider 不存在"
            assert httpx.get(f"{server.url}/api/{path}/any").status_code == 404


def test_a_proxy_says_who_people_are(
    issuer: Issuer, tmp_path_factory: pytest.TempPathFactory, browser_at: BrowserAt
) -> None:
    folder = tmp_path_factory.mktemp("proxied")
    with running(folder, [issuer.openid()], AUTH_MODE="trusted_proxy") as server:
        browser = browser_at(server)
        assert browser.get("/api/auth/upstream/login").json()["code"] == 404
        assert browser.get("/api/auth/upstream/login/issuer").status_code == 404
        assert browser.get("/api/auth/upstream/callback/issuer?state=x").status_code == 404
        assert "upstream" not in browser.get("/login").text


@pytest.mark.parametrize("provider", ["issuer", "plain", "posts"])
def test_both_protocols(issuer: Issuer, browser: Browser, provider: str) -> None:
    issuer.person = {"sub": f"both-{provider}", "name": "Ann"}
    issuer.asked.clear()
    where = browser.begin(provider)
    assert ("nonce=" in where) == (provider == "issuer")
    assert browser.back(issuer.agreed(where)) == "/agent/chat"
    assert browser.account is not None
    assert browser.account["nickname"] == "Ann"
    (exchanged,) = [each for each in issuer.asked if each.path == "/token"]
    assert ("authorization" in exchanged.headers) == (provider != "posts")
    assert exchanged.form.get("client_id", CLIENT_ID) == CLIENT_ID


def test_the_compatibility_paths(issuer: Issuer, server: Server, browser: Browser) -> None:
    callback = f"{server.url}/api/user/oauth/callback/issuer"
    sent = browser.get(f"/api/user/oauth/login/issuer?next=/&redirect_uri={callback}")
    where = sent.headers["location"]
    assert dict(parse_qsl(urlsplit(where).query))["redirect_uri"] == callback
    assert browser.back(issuer.agreed(where)) == "/"
    assert browser.account is not None
    assert browser.get("/api/user/oauth/login").headers["location"].startswith(issuer.url)


def test_a_login_is_one_of_a_browser_with_many_open(issuer: Issuer, browser: Browser) -> None:
    """Both cookies are hidden from scripts, and no token is in any address."""
    sent = browser.get("/api/auth/upstream/login/issuer")
    begun = sent.headers["set-cookie"]
    assert begun.startswith("sage_upstream=")
    for attribute in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"):
        assert attribute in begun
    done = browser.get(issuer.agreed(sent.headers["location"]))
    set_, cleared = done.headers.get_list("set-cookie")
    assert set_.startswith("sage_session=")
    assert cleared.startswith("sage_upstream=; Max-Age=0")
    for attribute in ("HttpOnly", "SameSite=Lax", "Path=/"):
        assert attribute in set_
    assert done.headers["location"] == "/agent/chat"
    assert done.headers["cache-control"] == "no-store"
    assert done.content == b""


def test_over_https_the_cookie_belongs_to_the_host(
    issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("https")
    public = "https://quartet.example.com"
    with running(folder, [issuer.openid()], PUBLIC_URL=public) as server:
        sent = httpx.get(f"{server.url}/api/auth/upstream/login", headers={"host": "evil.example"})
        asked = dict(parse_qsl(urlsplit(sent.headers["location"]).query))
        assert asked["redirect_uri"] == f"{public}/api/auth/upstream/callback/issuer"
        cookie = sent.headers["set-cookie"]
        assert cookie.startswith("__Host-sage_upstream=")
        assert "Secure" in cookie
        back = issuer.agreed(sent.headers["location"]).replace(public, server.url)
        value = cookie.partition("=")[2].partition(";")[0]
        plainly = httpx.get(back, headers={"cookie": f"sage_upstream={value}"})
        assert "error=expired" in plainly.headers["location"]
        done = httpx.get(back, headers={"cookie": f"a=b; __Host-sage_upstream={value}; c=d"})
        assert done.headers["location"] == "/agent/chat"
        assert done.headers.get_list("set-cookie")[0].startswith("__Host-sage_session=")


def test_no_secret_is_kept_or_logged(issuer: Issuer, server: Server, browser: Browser) -> None:
    where = browser.begin("issuer")
    secrets = [dict(parse_qsl(urlsplit(where).query))["state"], browser.cookies["sage_upstream"]]
    issuer.asked.clear()
    browser.back(issuer.agreed(where))
    (exchanged,) = [each for each in issuer.asked if each.path == "/token"]
    secrets += [exchanged.form["code"], exchanged.form["code_verifier"], "an-access-token"]
    secrets += [browser.cookies["sage_session"], CLIENT_SECRET]
    kept = b"".join(path.read_bytes() for path in server.data.glob("quartet.sqlite*"))
    for secret in secrets:
        assert secret.encode() not in kept
        assert secret not in server.logged()
