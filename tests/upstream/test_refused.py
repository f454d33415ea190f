"""What opens no login session: foreign states, crafted tokens, providers that are away, places
elsewhere (security 28, 46; OAuth in "Real cases"). Each is refused where its twin is let in."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from gateways.errors import UpstreamUnavailable
from gateways.outbound import Outbound
from gateways.upstream import Proof, RelyingParty, UpstreamClient
from tests.serving import Server
from tests.upstream.issuer import CLIENT_ID, CLIENT_SECRET, Issuer
from tests.upstream.parts import Browser, failed

BrowserAt = Callable[[Server], Browser]


def state_of(location: str) -> str:
    return dict(parse_qsl(urlsplit(location).query))["state"]


# --- the state ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["wrong", "", "\x00", "é" * 20, "x" * 2048])
def test_a_state_that_nobody_was_given(issuer: Issuer, browser: Browser, state: str) -> None:
    back = issuer.agreed(browser.begin("issuer"), state=state)
    sent = browser.get(back)
    if sent.status_code == 302:
        assert failed(sent.headers["location"])[0] == "expired"
    else:
        assert sent.status_code == 422
    assert browser.account is None


def test_a_state_is_needed(issuer: Issuer, browser: Browser) -> None:
    assert browser.get(issuer.agreed(browser.begin("issuer"), state=None)).status_code == 422
    assert browser.account is None


def test_a_state_is_good_once(issuer: Issuer, browser: Browser) -> None:
    where = browser.begin("issuer")
    secret = browser.cookies["sage_upstream"]
    assert browser.back(issuer.agreed(where)) == "/agent/chat"
    session = browser.cookies["sage_session"]
    browser.keep("sage_upstream", secret)
    assert failed(browser.back(issuer.agreed(where)))[0] == "expired"
    assert browser.cookies["sage_session"] == session


def test_a_state_belongs_to_its_browser(
    issuer: Issuer, server: Server, browser_at: BrowserAt
) -> None:
    """An attacker's own login does not become the victim's session, and the other way round."""
    attacker, victim = browser_at(server), browser_at(server)
    where = attacker.begin("issuer")
    victim.begin("issuer")
    assert failed(victim.back(issuer.agreed(where)))[0] == "expired"
    assert victim.account is None
    stranger = browser_at(server)
    assert failed(stranger.back(issuer.agreed(where)))[0] == "expired"
    assert "sage_session" not in stranger.cookies
    # refused elsewhere, it is still good where it belongs
    assert attacker.back(issuer.agreed(where)) == "/agent/chat"


def test_a_state_belongs_to_its_provider(issuer: Issuer, browser: Browser) -> None:
    back = issuer.agreed(browser.begin("issuer"))
    mixed_up = back.replace("/callback/issuer", "/callback/plain")
    assert failed(browser.back(mixed_up))[0] == "expired"
    assert browser.account is None


def test_another_issuer_answers(issuer: Issuer, browser: Browser) -> None:
    back = issuer.agreed(browser.begin("issuer"), iss="https://evil.example")
    assert failed(browser.back(back)) == ("untrusted", "/agent/chat")
    assert browser.back(issuer.agreed(browser.begin("issuer"), iss=None)) == "/agent/chat"


def test_the_provider_says_no(issuer: Issuer, browser: Browser) -> None:
    for said in ({"error": "access_denied", "code": None}, {"error": "x<script>"}, {"code": None}):
        back = issuer.agreed(browser.begin("issuer", next="/sage/docs"), **said)
        assert failed(browser.back(back)) == ("refused", "/sage/docs")
    assert browser.account is None
    page = browser.get("/login?error=refused&next=/sage/docs")
    assert '<p role="alert">The provider did not let you log in.</p>' in page.text
    for unknown in ("<script>alert(1)</script>", "expired", "closed" * 100):
        page = browser.get(f"/login?error={quote(unknown)}")
        assert '<p role="alert">That login did not work, or took too long.' in page.text
        assert "alert(1)" not in page.text


# --- the id_token -------------------------------------------------------------------------------

NOW = int(time.time())
CLAIMS: list[tuple[str, dict[str, Any]]] = [
    ("nonce of another login", {"nonce": "another"}),
    ("no nonce", {"nonce": None}),
    ("empty nonce", {"nonce": ""}),
    ("another issuer", {"iss": "https://evil.example"}),
    ("no issuer", {"iss": None}),
    ("an issuer in a list", {"iss": ["https://evil.example"]}),
    ("another audience", {"aud": "another"}),
    ("other audiences", {"aud": ["another", "third"]}),
    ("no audience", {"aud": None}),
    ("several audiences and no azp", {"aud": [CLIENT_ID, "another"]}),
    ("another azp", {"azp": "another"}),
    ("expired", {"exp": NOW - 3600}),
    ("no expiry", {"exp": None}),
    ("an expiry that is no number", {"exp": "never"}),
    ("not yet", {"nbf": NOW + 3600}),
    ("from the future", {"iat": NOW + 3600}),
    ("no subject", {"sub": None}),
    ("an empty subject", {"sub": ""}),
    ("a subject in a list", {"sub": ["ada"]}),
    ("a long subject", {"sub": "x" * 256}),
]


@pytest.mark.parametrize("changes", [each for _, each in CLAIMS], ids=[name for name, _ in CLAIMS])
def test_claims_that_prove_nobody(
    issuer: Issuer, browser: Browser, changes: dict[str, Any]
) -> None:
    issuer.token = changes
    if isinstance(sub := changes.get("sub"), str) and sub:
        issuer.person = {"sub": sub}
    assert failed(browser.back(issuer.agreed(browser.begin("issuer"))))[0] == "untrusted"
    assert browser.account is None
    issuer.behave()
    assert browser.back(issuer.agreed(browser.begin("issuer"))) == "/agent/chat"


def test_claims_that_may_vary(issuer: Issuer, browser: Browser) -> None:
    for changes in (
        {"aud": [CLIENT_ID]},
        {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID},
        {"exp": time.time() + 300.5},
        {"iat": int(time.time()) + 20},
    ):
        issuer.token = changes
        assert browser.back(issuer.agreed(browser.begin("issuer"))) == "/agent/chat"


def unsigned(claims: dict[str, Any], algorithm: str = "none") -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": algorithm}, claims))
    head, body = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    return f"{head}.{body}."


def stranger(claims: dict[str, Any], **header: Any) -> str:
    """Signed by a key that is not the provider's."""
    key = RSAKey.generate_key(2048, {"kid": "one"})
    return jwt.encode({"alg": "RS256", "kid": "one", **header}, claims, key)


SIGNED: dict[str, Callable[[Issuer, dict[str, Any]], Any]] = {
    "alg none": lambda issuer, claims: unsigned(claims),
    "alg None": lambda issuer, claims: unsigned(claims, "None"),
    "alg empty": lambda issuer, claims: unsigned(claims, ""),
    "HS256 by the public key": lambda issuer, claims: jwt.encode(
        {"alg": "HS256", "kid": "one"},
        claims,
        OctKey.import_key(issuer.key.as_pem(private=False).hex()),
    ),
    "another key under its name": lambda issuer, claims: stranger(claims),
    "a key in the header": lambda issuer, claims: stranger(
        claims, jwk=RSAKey.generate_key(2048).as_dict(private=False)
    ),
    "a key elsewhere": lambda issuer, claims: stranger(claims, jku="https://evil.example/jwks"),
    "an unknown key": lambda issuer, claims: stranger(claims, kid="two"),
    "a changed body": lambda issuer, claims: ".".join(
        (
            issuer._signed(claims).split(".")[0],
            unsigned({**claims, "sub": "admin"}).split(".")[1],
            issuer._signed(claims).split(".")[2],
        )
    ),
    "no token": lambda issuer, claims: "",
    "no JWT": lambda issuer, claims: "a.b.c",
    "five parts": lambda issuer, claims: "a.b.c.d.e",
    "a list": lambda issuer, claims: [issuer._signed(claims)],
    "deep": lambda issuer, claims: (
        base64.urlsafe_b64encode(b"[" * 100_000).decode().rstrip("=") + ".e30.AA"
    ),
    "alg in a list": lambda issuer, claims: (
        base64.urlsafe_b64encode(b'{"alg":["RS256"],"kid":"one"}').decode().rstrip("=") + ".e30.AA"
    ),
}


@pytest.mark.parametrize("how", SIGNED)
def test_signatures_that_prove_nobody(issuer: Issuer, browser: Browser, how: str) -> None:
    issuer.sign = lambda claims: SIGNED[how](issuer, claims)
    assert failed(browser.back(issuer.agreed(browser.begin("issuer"))))[0] == "untrusted"
    assert browser.account is None


def test_a_provider_changes_its_keys(
    issuer: Issuer, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.back(issuer.agreed(browser.begin("issuer")))
    monkeypatch.setattr(issuer, "key", RSAKey.generate_key(2048, {"kid": "new", "use": "sig"}))
    issuer.sign = lambda claims: jwt.encode({"alg": "RS256", "kid": "new"}, claims, issuer.key)
    assert browser.back(issuer.agreed(browser.begin("issuer"))) == "/agent/chat"


def test_userinfo_of_somebody_else(issuer: Issuer, browser: Browser) -> None:
    for told in ({"sub": "eve"}, {"sub": None}):
        issuer.told = told
        assert failed(browser.back(issuer.agreed(browser.begin("issuer"))))[0] == "untrusted"
    assert browser.account is None


@pytest.mark.parametrize("told", [{"sub": None}, {"sub": ""}, {"sub": True}, {"sub": ["x"]}])
def test_plain_userinfo_that_names_nobody(
    issuer: Issuer, browser: Browser, told: dict[str, Any]
) -> None:
    issuer.told = told
    assert failed(browser.back(issuer.agreed(browser.begin("plain"))))[0] == "untrusted"
    issuer.told = {"sub": 4711}
    assert browser.back(issuer.agreed(browser.begin("plain"))) == "/agent/chat"


# --- the code, and a provider that does not do its part -----------------------------------------


def test_a_code_of_another_login(issuer: Issuer, server: Server, browser_at: BrowserAt) -> None:
    """PKCE: a code that leaked is worth nothing in another login."""
    victim, thief = browser_at(server), browser_at(server)
    leaked = dict(parse_qsl(urlsplit(issuer.agreed(victim.begin("issuer"))).query))["code"]
    back = issuer.agreed(thief.begin("issuer"), code=leaked)
    assert failed(thief.back(back))[0] == "untrusted"
    assert thief.account is None


@pytest.mark.parametrize("provider", ["issuer", "plain"])
@pytest.mark.parametrize(
    ("path", "answer", "error"),
    [
        ("/token", (500, {}), "unavailable"),
        ("/token", (302, {"location": "http://127.0.0.1:9/token"}), "unavailable"),
        ("/token", (400, {"error": "invalid_grant"}), "untrusted"),
        ("/token", (200, {"error": "bad_verification_code"}), "untrusted"),
        ("/token", (200, b"no json"), "untrusted"),
        ("/token", (200, b"[" * 100_000), "untrusted"),
        ("/token", (200, {"access_token": "a\r\nx-evil: 1", "id_token": "x"}), "untrusted"),
        ("/token", (200, {"access_token": "é", "id_token": "x"}), "untrusted"),
        ("/userinfo", (500, {}), "unavailable"),
        ("/userinfo", (200, b"[]"), "unavailable"),
        ("/userinfo", (200, b"\xff"), "unavailable"),
        ("/userinfo", (200, b"x" * 600_000), "unavailable"),
        ("/userinfo", (302, {"location": "http://localhost:9/userinfo"}), "unavailable"),
    ],
)
def test_answers_that_are_none(
    issuer: Issuer, browser: Browser, provider: str, path: str, answer: tuple[int, Any], error: str
) -> None:
    where = browser.begin(provider, next="/sage/docs")
    issuer.answers[path] = answer
    assert failed(browser.back(issuer.agreed(where))) == (error, "/sage/docs")
    assert browser.account is None


@pytest.mark.parametrize("provider", ["away", "metadata", "inside"])
def test_a_provider_that_cannot_be_reached(browser: Browser, provider: str) -> None:
    assert failed(browser.begin(provider, next="/sage/docs")) == ("unavailable", "/sage/docs")
    assert "sage_upstream" not in browser.cookies


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"authorization_endpoint": "https://user@evil.example/authorize"},
        {"authorization_endpoint": "https://evil.example/\r\nset-cookie: a=b"},
        {"authorization_endpoint": "https://évil.example/"},
        {"authorization_endpoint": None},
        {"token_endpoint": "http://evil.example/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"jwks_uri": "http://evil.example/jwks"},
        {"jwks_uri": None},
        {"userinfo_endpoint": "http://evil.example/userinfo"},
        {"userinfo_endpoint": 7},
    ],
)
def test_metadata_that_is_not_believed(metadata: dict[str, Any]) -> None:
    """Asked of a gateway of its own: a server keeps metadata for an hour."""
    issuer = Issuer()
    try:
        issuer.metadata = metadata
        with pytest.raises(UpstreamUnavailable):
            asyncio.run(asked(issuer))
        issuer.metadata = {}
        assert asyncio.run(asked(issuer)).startswith(f"{issuer.url}/authorize?")
    finally:
        issuer.close()


@pytest.mark.parametrize(
    "metadata",
    [
        {"token_endpoint": "https://169.254.169.254/latest"},
        {"token_endpoint": "https://[::ffff:169.254.169.254]/latest"},
        {"jwks_uri": "https://10.0.0.1/jwks"},
        {"userinfo_endpoint": "https://[fd00::1]/userinfo"},
    ],
)
def test_metadata_leads_nowhere_inside(metadata: dict[str, Any]) -> None:
    issuer = Issuer()
    try:
        issuer.metadata = metadata
        with pytest.raises(UpstreamUnavailable, match=r"not a public address|metadata address"):
            asyncio.run(proved(issuer))
        issuer.metadata = {}
        assert asyncio.run(proved(issuer))["sub"] == "ada"
    finally:
        issuer.close()


async def asked(issuer: Issuer, challenge: str = "c" * 43) -> str:
    outbound = Outbound(["oauth=127.0.0.1"])
    try:
        party = RelyingParty(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, issuer=issuer.url)
        return await UpstreamClient(outbound).authorization_url(
            party, redirect_uri="https://here", state="s", nonce="n", challenge=challenge
        )
    finally:
        await outbound.close()


async def proved(issuer: Issuer) -> dict[str, Any]:
    verifier = "v" * 43
    digest = hashlib.sha256(verifier.encode()).digest()
    where = await asked(issuer, base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
    code = dict(parse_qsl(urlsplit(issuer.agreed(where)).query))["code"]
    outbound = Outbound(["oauth=127.0.0.1"])
    try:
        party = RelyingParty(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, issuer=issuer.url)
        proof = Proof(code=code, redirect_uri="https://here", verifier=verifier, nonce="n")
        return await UpstreamClient(outbound).claims(party, proof)
    finally:
        await outbound.close()


# --- places elsewhere ---------------------------------------------------------------------------

FOREIGN = [
    "",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/%2F/evil.example",
    "/%5Cevil.example",
    "/%252F/evil.example",
    "https://evil.example/",
    "https:evil.example",
    "https:///evil.example",
    "http://127.0.0.1:8000@evil.example/",
    "javascript:alert(1)",
    "data:text/html,x",
    "/agent/chat\r\nset-cookie: x=y",
    "/agent/chat\t",
    "/ agent/chat",
    "\x00/agent/chat",
    "/agent/chat#x",
    "/agent/chat/../../evil",
    "/agent/chat/more",
    "/./agent/chat",
    "/Agent/chat",
    "/ａgent/chat",
    "/api/user/logout",
    "@evil.example",
    "evil.example",
    "/" + "a" * 3000,
]


@pytest.mark.parametrize("wanted", FOREIGN)
def test_a_login_leads_to_listed_places_alone(
    issuer: Issuer, browser: Browser, wanted: str
) -> None:
    sent = browser.get(f"/api/auth/upstream/login/issuer?next={quote(wanted, safe='')}")
    if sent.status_code == 422:  # too long, or NUL
        assert len(wanted) > 2048 or "\0" in wanted
        return
    back = issuer.agreed(sent.headers["location"])
    # what stands in the callback's own address is no place to go either
    assert browser.back(f"{back}&next={quote(wanted, safe='')}") in ("/", "/agent/chat")


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/api/auth/upstream/callback/issuer",
        "{url}/api/auth/upstream/callback/plain",
        "{url}/api/auth/upstream/callback/issuer/",
        "{url}/api/auth/upstream/callback/issuer?x=1",
        "{url}/api/auth/upstream/callback/issuer#x",
        "{url}/api/auth/upstream/../upstream/callback/issuer",
        "{url}.evil.example/api/auth/upstream/callback/issuer",
        "{url}@evil.example/api/auth/upstream/callback/issuer",
        "/api/auth/upstream/callback/issuer",
        "https://app.example.com/x",
        "//evil.example",
        "javascript:alert(1)",
    ],
)
def test_the_provider_is_told_of_listed_addresses_alone(
    issuer: Issuer, server: Server, browser: Browser, wanted: str
) -> None:
    value = quote(wanted.format(url=server.url), safe="")
    refused = browser.get(f"/api/auth/upstream/login/issuer?redirect_uri={value}")
    assert (refused.status_code, refused.json()["code"]) == (400, 400)
    assert "location" not in refused.headers
    assert "sage_upstream" not in browser.cookies


def test_an_address_that_the_operator_lists(server: Server, browser: Browser) -> None:
    listed = "https://app.example.com/x"
    where = browser.begin("members", redirect_uri=listed)
    assert dict(parse_qsl(urlsplit(where).query))["redirect_uri"] == listed


def test_no_address_comes_from_the_request(server: Server) -> None:
    headers = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "x"}
    sent = httpx.get(f"{server.url}/api/auth/upstream/login/issuer", headers=headers)
    assert "evil" not in sent.headers["location"]


def test_a_provider_that_is_not_there(browser: Browser) -> None:
    for path in ("login/nobody", "callback/nobody?state=x", "login/native"):
        assert browser.get(f"/api/auth/upstream/{path}").status_code == 404


# --- accounts -----------------------------------------------------------------------------------


def test_whoever_has_no_account_may_get_none(
    issuer: Issuer, server: Server, browser: Browser
) -> None:
    issuer.person = {"sub": "newcomer"}
    where = browser.begin("members")
    assert failed(browser.back(issuer.agreed(where)))[0] == "closed"
    assert browser.account is None
    browser.back(issuer.agreed(browser.begin("issuer")))  # the same issuer, and it admits
    assert browser.account is not None
    browser.back(issuer.agreed(browser.begin("members")))
    assert browser.account is not None
