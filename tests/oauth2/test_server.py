"""The authorization server by its wire: RFC 6749, RFC 7636, RFC 9700 (security 2, 4, 47)."""

import asyncio
import base64
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.oauth2.parts import BACK, PASSWORD, SECRET, Flow, cookie_of, post, told
from tests.server.http import ask, bearer
from tests.serving import Server

MakeBrowser = Callable[[], tuple[str, str]]


@pytest.mark.parametrize(
    "path", ["/.well-known/oauth-authorization-server", "/api/oauth2/metadata", "/oauth2/metadata"]
)
def test_metadata(oauth_server: Server, path: str) -> None:
    found = ask(oauth_server.url + path).json()
    assert found["issuer"] == f"{oauth_server.url}/oauth2"
    assert found["code_challenge_methods_supported"] == ["S256"]
    for name in ("authorization", "token", "userinfo"):
        assert found[f"{name}_endpoint"].startswith(found["issuer"])
        status = ask(found[f"{name}_endpoint"]).status
        assert status in (400, 401, 405)


def test_the_whole_flow(flow: Flow) -> None:
    sent = flow.authorize()
    assert sent.status == 302
    assert told(sent)["state"] == "xyz"
    assert told(sent)["iss"] == f"{flow.url}/oauth2"
    answer = flow.exchange(told(sent)["code"])
    assert answer.status == 200, answer
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    tokens = answer.json()
    assert set(tokens) == {"token_type", "access_token", "expires_in", "refresh_token", "scope"}
    assert (tokens["scope"], tokens["expires_in"]) == ("openid profile", 3600)
    for method in ("GET", "POST"):
        info = flow.userinfo(tokens["access_token"], method).json()
        assert info["preferred_username"] == "admin"
        assert info["role"] == "admin"
        assert "email" not in info
    renewed = flow.refresh(tokens["refresh_token"]).json()
    assert renewed["refresh_token"] != tokens["refresh_token"]
    assert flow.userinfo(renewed["access_token"]).status == 200


def test_the_email_takes_its_scope(flow: Flow, browser_of: MakeBrowser) -> None:
    name, flow.cookie = browser_of()
    for scope, shown in (("openid email", True), ("openid", False)):
        tokens = flow.exchange(flow.code(scope=scope)).json()
        info = flow.userinfo(tokens["access_token"]).json()
        assert (info.get("email") == f"{name}@example.com") is shown
        assert info.get("email_verified", False) is shown


def test_who_is_not_logged_in_goes_to_the_login_page(flow: Flow) -> None:
    flow.cookie = ""
    answer = flow.authorize()
    assert answer.status == 302
    where = urlsplit(answer.headers["location"])
    assert (where.netloc, where.path) == ("", "/login")
    back = urlsplit(parse_qs(where.query)["next"][0])
    assert back.path == "/oauth2/authorize"
    assert {k: v[0] for k, v in parse_qs(back.query).items()} == flow.query()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"client_id": "nobody"}, 401),
        ({"client_id": None}, 401),
        ({"client_id": 'a"b\\c\x80é'}, 401),
        ({"redirect_uri": "https://evil.example/callback"}, 400),
        ({"redirect_uri": f"{BACK}/"}, 400),
        ({"redirect_uri": f"{BACK}?x=1"}, 400),
        ({"redirect_uri": BACK.upper()}, 400),
        ({"redirect_uri": f"{BACK}/../evil"}, 400),
        ({"redirect_uri": BACK.replace("https", "http")}, 400),
        ({"redirect_uri": 'https://client.example.com/"<é\n'}, 400),
        ({"redirect_uri": ""}, 400),
        ({"client_id": "nobody", "response_type": "token"}, 401),
        ({"redirect_uri": "https://evil.example/", "response_type": "token"}, 400),
        ({"state": "x" * 3000}, 400),
    ],
)
def test_nothing_is_sent_to_a_stranger(
    flow: Flow, changes: dict[str, str | None], status: int
) -> None:
    answer = flow.authorize(**changes)
    assert answer.status == status, answer
    assert "location" not in answer.headers
    assert set(answer.json()) == {"error", "error_description"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_type": 'co"de\\é'}, "unsupported_response_type"),
        ({"scope": "openid admin"}, "invalid_scope"),
        ({"client_id": "web", "scope": "openid email"}, "invalid_scope"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"client_id": "web", "code_challenge": None, "code_challenge_method": None},
         "invalid_request"),
        ({"client_id": "old", "code_challenge_method": "plain"}, "invalid_request"),
    ],
)  # fmt: skip
def test_the_client_is_told(flow: Flow, changes: dict[str, str | None], error: str) -> None:
    answer = flow.authorize(**changes)
    assert answer.status == 302, answer
    said = told(answer)
    assert said["error"] == error
    assert said["state"] == "xyz"
    assert said["iss"] == f"{flow.url}/oauth2"
    assert "code" not in said


def test_no_parameter_is_repeated(flow: Flow) -> None:
    query = urlencode(flow.query())
    for again in ("state=abc", f"redirect_uri={BACK}", "client_id=web"):
        answer = flow.get(f"/oauth2/authorize?{query}&{again}")
        assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    form = urlencode({"grant_type": "refresh_token", "refresh_token": "x"})
    answer = post(f"{flow.url}/oauth2/token", f"{form}&grant_type=authorization_code")
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")


def test_a_code_is_good_once_and_its_reuse_ends_what_it_gave(flow: Flow) -> None:
    code = flow.code()
    tokens = flow.exchange(code).json()
    again = flow.exchange(code)
    assert (again.status, again.json()["error"]) == (400, "invalid_grant")
    assert flow.userinfo(tokens["access_token"]).status == 401
    assert flow.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


async def test_a_code_is_good_once_among_many_at_once(flow: Flow) -> None:
    code = flow.code()
    answers = await asyncio.gather(*(asyncio.to_thread(flow.exchange, code) for _ in range(12)))
    assert [answer.status for answer in answers].count(200) <= 1
    assert {answer.status for answer in answers} <= {200, 400}


def test_a_refresh_token_is_good_once_and_its_reuse_ends_the_family(flow: Flow) -> None:
    first = flow.exchange(flow.code()).json()
    second = flow.refresh(first["refresh_token"]).json()
    assert flow.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    assert flow.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"
    for tokens in (first, second):
        assert flow.userinfo(tokens["access_token"]).status == 401


@pytest.mark.parametrize(
    "form",
    [
        {"code_verifier": "x" * 43},
        {"code_verifier": None},
        {"code_verifier": "short"},
        {"redirect_uri": f"{BACK}/other"},
        {"redirect_uri": None},
        {"client_id": "asks"},
        {"code": None},
        {"code": "unknown"},
        {"grant_type": "password"},
        {"grant_type": None},
        {"grant_type": 'x"\\é'},
    ],
)
def test_a_code_is_bound(flow: Flow, form: dict[str, str | None]) -> None:
    """To its client, redirect URI and challenge; a wrong try leaves it good."""
    code = flow.code()
    wrong = flow.exchange(code, **form)
    assert wrong.status == 400, wrong
    assert wrong.json()["error"] in (
        "invalid_grant", "invalid_request", "unsupported_grant_type",
    )  # fmt: skip
    assert flow.exchange(code).status == 200


def test_a_public_client_need_not_name_itself(flow: Flow) -> None:
    tokens = flow.exchange(flow.code(), client_id=None).json()
    assert flow.refresh(tokens["refresh_token"], client_id=None).status == 200
    wrong = flow.exchange(flow.code(), client_id=None, code_verifier="y" * 50)
    assert (wrong.status, wrong.json()["error"]) == (400, "invalid_grant")


def test_a_client_with_a_secret_proves_itself(flow: Flow) -> None:
    flow.client_id = "web"
    basic = base64.b64encode(f"web:{SECRET}".encode()).decode()
    bad = base64.b64encode(b"web:wrong").decode()

    def by_header(value: str, **form: str) -> int:
        fields = {
            "grant_type": "authorization_code",
            "code": flow.code(),
            "redirect_uri": BACK,
            "code_verifier": flow.verifier,
            **form,
        }
        answer = post(f"{flow.url}/oauth2/token", urlencode(fields), Authorization=value)
        if answer.status == 401:
            assert answer.json()["error"] == "invalid_client"
            assert answer.headers["www-authenticate"].startswith("Basic")
        return answer.status

    assert by_header(f"Basic {basic}") == 200
    for value in (f"Basic {bad}", "Basic ///", "Basic gIA6gIA=", "Bearer x", "Basic", "Basic Og=="):
        assert by_header(value) == 401, value
    assert by_header(f"Basic {basic}", client_secret=SECRET) == 400
    assert by_header(f"Basic {basic}", client_id="spa") == 400
    assert flow.exchange(flow.code(), client_secret=SECRET).status == 200
    for secret in ("wrong", ""):
        assert flow.exchange(flow.code(), client_secret=secret).status == 401
    assert flow.exchange(flow.code()).status == 401
    assert flow.exchange(flow.code(), client_id=None).status == 401
    stolen = flow.exchange(flow.code(), client_id="spa")
    assert (stolen.status, stolen.json()["error"]) == (400, "invalid_grant")


def test_pkce_is_optional_where_the_configuration_says_so(flow: Flow) -> None:
    flow.client_id, flow.secret = "old", SECRET
    plain = {"code_challenge": None, "code_challenge_method": None}
    assert flow.exchange(flow.code(**plain), code_verifier=None).status == 200
    # a verifier without a challenge is a downgrade (RFC 9700 §4.8.2)
    assert flow.exchange(flow.code(**plain)).status == 400
    assert flow.exchange(flow.code(), code_verifier=None).status == 400


def test_a_refresh_can_narrow_and_never_widen(flow: Flow) -> None:
    tokens = flow.exchange(flow.code(scope="openid profile")).json()
    wide = flow.refresh(tokens["refresh_token"], scope="openid profile email")
    assert (wide.status, wide.json()["error"]) == (400, "invalid_scope")
    narrow = flow.refresh(tokens["refresh_token"], scope="openid").json()
    assert narrow["scope"] == "openid"
    assert flow.refresh(narrow["refresh_token"]).json()["scope"] == "openid profile"


def test_tokens_of_one_kind_are_none_of_another(flow: Flow) -> None:
    """Security 2: the client's token opens userinfo alone, a login's token never does."""
    tokens = flow.exchange(flow.code()).json()
    for path in ("/api/auth/session", "/api/user/list", "/api/agent/list"):
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert ask(flow.url + path, headers=headers).status == 401
    login = bearer(flow.url, "admin", PASSWORD)["Authorization"].removeprefix("Bearer ")
    for token in (login, tokens["refresh_token"], "", "a.b.c", flow.cookie):
        answer = flow.userinfo(token)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert flow.get("/oauth2/userinfo").status == 401


def test_a_grant_ends_with_its_login(flow: Flow, browser_of: MakeBrowser) -> None:
    name, flow.cookie = browser_of()
    tokens = flow.exchange(flow.code()).json()
    unused = flow.code()
    other = Flow(flow.url, cookie_of(flow.url, name, PASSWORD))
    kept = other.exchange(other.code()).json()
    assert ask(
        f"{flow.url}/sage/api/auth/logout", "POST", {}, {"Cookie": f"sage_session={flow.cookie}"}
    ).status == 200  # fmt: skip
    until = time.monotonic() + 1
    while flow.userinfo(tokens["access_token"]).status != 401:
        assert time.monotonic() < until
    assert flow.refresh(tokens["refresh_token"]).status == 400
    assert flow.exchange(unused).status == 400
    assert flow.userinfo(kept["access_token"]).status == 200


def test_a_secret_is_never_in_the_database_nor_in_the_log(flow: Flow, oauth_server: Server) -> None:
    code = flow.code()
    tokens = flow.exchange(code).json()
    kept = b"".join(path.read_bytes() for path in oauth_server.data.glob("quartet.sqlite*"))
    for secret in (code, tokens["refresh_token"], tokens["access_token"], flow.verifier):
        assert secret.encode() not in kept
        assert secret not in oauth_server.logged()
