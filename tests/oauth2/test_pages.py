"""/login and /consent by plain HTTP: where they lead, and who may answer (security 44, 46, 48)."""

import re
from collections.abc import Callable
from urllib.parse import quote, urlencode

import pytest

from domain.identity.destinations import Destinations
from tests.oauth2.parts import PASSWORD, Flow
from tests.server.http import Answer, ask
from tests.serving import Server

OWN = [
    "/",
    "/?x=1",
    "/consent?client_id=a&state=%2F%2Fevil",
    "/oauth2/authorize?redirect_uri=https%3A%2F%2Fclient.example.com",
    "/sage/api/oauth2/authorize?x",
    "/sage/docs",
    "/api/observability/jaeger",
    "/api/observability/jaeger/search?service=quartet",
    "/agent/chat",
    "/apps/one/two",
    "https://app.example.com/start",
]
FOREIGN = [
    "",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/%2F/evil.example",
    "/%2f%2fevil.example",
    "/%5Cevil.example",
    "/%252F/evil.example",
    "https://evil.example/",
    "https:evil.example",
    "https:///evil.example",
    "HTTPS://app.example.com/start",
    "https://app.example.com/start@evil.example",
    "https://app.example.com@evil.example/start",
    "https://app.example.com.evil.example/start",
    "https://app.example.com/start/../evil",
    "https://app.example.com/start?next=1",
    "javascript:alert(1)",
    "data:text/html,x",
    "/consent\r\nSet-Cookie: x=1",
    "/consent\n",
    "/consent\t",
    "/ consent",
    "\x00/consent",
    "/consent\x7f",
    "/consent#x",
    "/consent/../../evil",
    "/./consent",
    "/consent/",
    "/Consent",
    "/consenté",
    "/ｃonsent",
    "/api/user/logout",
    "/api/observability/jaeger/../../x",
    "/api/observability/jaeger/%2e%2e/x",
    "/api/observability/jaeger//evil.example",
    "/api/observability/jaeger/.hidden",
    "/agent/chat/more",
    "consent",
    "evil.example",
    "@evil.example",
    "/" + "a" * 9000,
]
PLACES = Destinations(("/agent/chat", "/apps/", "https://app.example.com/start"))


@pytest.mark.parametrize("wanted", OWN)
def test_what_is_listed_is_reached(wanted: str) -> None:
    assert PLACES.safe(wanted) == wanted


@pytest.mark.parametrize("wanted", FOREIGN)
def test_nothing_else_is(wanted: str) -> None:
    assert PLACES.safe(wanted) == "/"


def test_below_a_path() -> None:
    moved = Destinations(root="/ai")
    assert moved.safe("/ai/consent?x") == "/ai/consent?x"
    assert moved.safe("/consent") == moved.safe(None) == "/ai/"


@pytest.mark.parametrize("wanted", [w for w in FOREIGN if w and w.isprintable()])
def test_a_login_leads_nowhere_else(flow: Flow, wanted: str) -> None:
    path = f"/login?next={quote(wanted, safe='')}"
    assert flow.get(path).headers["location"] == "/"
    flow.cookie = ""
    page = flow.get(path).body.decode()
    assert re.findall(r'data-next="([^"]*)"', page) == ["/"]


def test_the_page_runs_its_own_script_alone(flow: Flow) -> None:
    flow.cookie = ""
    for path in ("/login", "/sage/login?local_only=1"):
        answer = flow.get(path)
        assert answer.status == 200
        policy = answer.headers["content-security-policy"]
        for part in (
            "default-src 'none'", "frame-ancestors 'none'", "form-action 'none'",
            "base-uri 'none'", "script-src 'self'",
        ):  # fmt: skip
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        text = answer.body.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|style=|\son[a-z]+=", text)
        for link in re.findall(r'(?:src|href)="([^"]*)"', text):
            assert ask(flow.url + link).status == 200, link


def answered(flow: Flow, body: object, **headers: str) -> Answer:
    flow.client_id = "asks"
    return ask(
        f"{flow.url}/consent?{urlencode(flow.query())}",
        "POST",
        body,
        {"Cookie": f"sage_session={flow.cookie}", **headers},
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Cookie": ""}, 401),
        ({"Cookie": "sage_session=guess"}, 401),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_nobody_agrees_for_another(
    flow: Flow, browser_of: Callable[[], tuple[str, str]], headers: dict[str, str], status: int
) -> None:
    _, flow.cookie = browser_of()
    answer = answered(flow, {"allow": True}, **headers)
    assert answer.status == status, answer
    assert "location" not in answer.json()
    flow.client_id = "asks"
    assert flow.authorize().headers["location"].startswith("/consent?")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"allow": 1}', b'{"allow": "yes"}', b"{}"])
def test_an_answer_is_yes_or_no(flow: Flow, body: bytes) -> None:
    answer = answered(flow, body, **{"Content-Type": "application/json"})
    assert answer.status in (400, 422)


def test_a_yes_holds_for_one_account_client_and_set_of_scopes(
    flow: Flow, browser_of: Callable[[], tuple[str, str]]
) -> None:
    flow.client_id = "asks"
    _, flow.cookie = browser_of()
    assert flow.authorize().headers["location"].startswith("/consent?")
    said = answered(flow, {"allow": True}, Origin=flow.url)
    assert "code=" in said.json()["location"]
    assert "code=" in flow.authorize().headers["location"]
    assert "code=" in flow.authorize(scope="profile openid").headers["location"]
    assert flow.authorize(scope="openid").headers["location"].startswith("/consent?")
    assert flow.authorize(scope="openid email").headers["location"].startswith("/consent?")
    _, flow.cookie = browser_of()
    assert flow.authorize().headers["location"].startswith("/consent?")


@pytest.mark.parametrize(
    "changes", [{"client_id": "nobody"}, {"redirect_uri": "https://evil.example/"}]
)
def test_the_consent_page_asks_for_no_stranger(flow: Flow, changes: dict[str, str | None]) -> None:
    query = urlencode(flow.query(**changes))
    shown = flow.get(f"/consent?{query}")
    assert shown.status in (400, 401)
    assert "evil.example" not in shown.body.decode()
    sent = ask(
        f"{flow.url}/consent?{query}", "POST", {"allow": False},
        {"Cookie": f"sage_session={flow.cookie}"},
    )  # fmt: skip
    assert sent.status in (400, 401)
    assert "location" not in sent.json()


def test_other_methods_and_repeated_parameters(oauth_server: Server) -> None:
    assert ask(f"{oauth_server.url}/consent", "DELETE").status == 405
    assert ask(f"{oauth_server.url}/login", "POST", {}).status == 405
    twice = ask(f"{oauth_server.url}/login?next=/&next=//evil.example")
    assert twice.status == 400
    assert PASSWORD not in twice.body.decode()
