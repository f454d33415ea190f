"""Tokens: what is issued, and every way to forge one (security 2, 61)."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from domain.errors import Unauthenticated
from domain.identity.clock import Clock
from domain.identity.tokens import Tokens
from tests.identity.conftest import ISSUER, KEY

NOW = 1_800_000_000.0
KID = hashlib.sha256(b"quartet kid " + KEY).hexdigest()[:16]


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(KEY, ISSUER, lambda: NOW)


def payload(**changes: Any) -> dict[str, Any]:
    common = {
        "iss": ISSUER,
        "aud": "quartet",
        "sub": "u1",
        "sid": "s1",
        "jti": "j1",
        "iat": int(NOW),
        "exp": int(NOW) + 60,
        "type": "access",
    }
    return {name: value for name, value in {**common, **changes}.items() if value is not ...}


def signed(claims: dict[str, Any], key: bytes = KEY, **header: Any) -> str:
    return jwt.encode(claims, key, algorithm="HS256", headers={"kid": KID, **header})


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_an_access_token_says_what_the_rules_list(tokens: Tokens) -> None:
    token = tokens.access("u1", "s1", 86400, {"userid": "u1", "nickname": "安"})
    says = jwt.decode(
        token,
        KEY,
        algorithms=["HS256"],
        audience="quartet",
        options={"verify_iat": False, "verify_exp": False},
    )
    assert says.pop("jti")
    assert says == {
        "iss": ISSUER,
        "aud": "quartet",
        "sub": "u1",
        "sid": "s1",
        "iat": int(NOW),
        "exp": int(NOW) + 86400,
        "type": "access",
        "userid": "u1",
        "nickname": "安",
    }
    assert (tokens.read_access(token).user_id, tokens.read_access(token).session_id) == ("u1", "s1")


def test_a_contract_s_claims_replace_no_common_one(tokens: Tokens) -> None:
    token = tokens.access("u1", "s1", 60, {"sub": "admin", "sid": "x", "exp": 9e9, "type": "y"})
    read = tokens.read_access(token)
    assert (read.user_id, read.session_id, read.expires_at) == ("u1", "s1", NOW + 60)


def test_no_two_tokens_are_alike(tokens: Tokens) -> None:
    assert len({tokens.access("u1", "s1", 60) for _ in range(100)}) == 100


FORGED: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "words": lambda: "not a token",
    "not ascii": lambda: signed(payload()) + "é",
    "two parts": lambda: signed(payload()).rpartition(".")[0],
    "huge": lambda: signed(payload(x="x" * 10_000)),
    "alg none": lambda: f"{part({'alg': 'none', 'typ': 'JWT', 'kid': KID})}.{part(payload())}.",
    "alg None": lambda: f"{part({'alg': 'None', 'kid': KID})}.{part(payload())}.",
    "no alg": lambda: f"{part({'kid': KID})}.{part(payload())}.x",
    "HS512": lambda: jwt.encode(payload(), KEY * 2, algorithm="HS512", headers={"kid": KID}),
    "HS512 same key": lambda: jwt.encode(payload(), KEY, algorithm="HS512", headers={"kid": KID}),
    "another key": lambda: signed(payload(), key=b"x" * 40),
    "wrong kid": lambda: signed(payload(), kid="other"),
    "no kid": lambda: jwt.encode(payload(), KEY, algorithm="HS256"),
    "path as kid": lambda: signed(payload(), kid="../../dev/null"),
    "jku": lambda: signed(payload(), jku="http://127.0.0.1/keys"),
    "x5u": lambda: signed(payload(), x5u="http://127.0.0.1/cert"),
    "jwk": lambda: signed(payload(), jwk={"kty": "oct", "k": "eA"}),
    "x5c": lambda: signed(payload(), x5c=["eA"]),
    "crit": lambda: signed(payload(), crit=["exp"]),
    "tampered": lambda: _tampered(),
    "future nbf": lambda: signed(payload(nbf=int(NOW) + 60)),
    "nbf is text": lambda: signed(payload(nbf="0")),
    "wrong aud": lambda: signed(payload(aud="client-1")),
    "aud is a list": lambda: signed(payload(aud=["quartet", "client-1"])),
    "wrong iss": lambda: signed(payload(iss="http://elsewhere")),
    "refresh type": lambda: signed(payload(type="refresh")),
    "no type": lambda: signed(payload(type=...)),
    "exp is text": lambda: signed(payload(exp="9999999999")),
    "exp is true": lambda: signed(payload(exp=True)),
    "exp is infinite": lambda: signed(payload(exp=float("inf"))),
    "exp is nan": lambda: signed(payload(exp=float("nan"))),
    "sub is a number": lambda: _raw(payload(sub=1)),
    "sid is null": lambda: signed(payload(sid=None)),
    "payload is a list": lambda: _raw([1]),
    "deep payload": lambda: _raw_text("[" * 3000 + "]" * 3000),
    **{
        f"no {name}": (lambda name=name: signed(payload(**{name: ...})))
        for name in ("iss", "aud", "sub", "sid", "jti", "iat", "exp")
    },
}


def _raw_text(text: str) -> str:
    return jwt.api_jws.encode(text.encode(), KEY, algorithm="HS256", headers={"kid": KID})


def _raw(value: Any) -> str:
    return _raw_text(json.dumps(value))


def _tampered() -> str:
    header, _, signature = signed(payload()).split(".")
    return f"{header}.{part(payload(sub='admin'))}.{signature}"


@pytest.mark.filterwarnings("ignore:The HMAC key is")
@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_invalid(tokens: Tokens, name: str) -> None:
    tokens.read_access(signed(payload()))
    with pytest.raises(Unauthenticated) as refused:
        tokens.read_access(FORGED[name]())
    assert refused.value.key == "auth.invalid"


def test_a_public_key_is_no_secret(tokens: Tokens) -> None:
    """HS/RS swap: a token signed by RSA, and one signed with the public key's text."""
    private = rsa.generate_private_key(65537, 2048)
    token = jwt.encode(payload(), private, algorithm="RS256", headers={"kid": KID})
    with pytest.raises(Unauthenticated):
        tokens.read_access(token)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # PyJWT itself refuses to sign with such a key, so it is done by hand.
    text = f"{part({'alg': 'HS256', 'kid': KID})}.{part(payload())}"
    digest = hmac.new(public, text.encode(), hashlib.sha256).digest()
    with pytest.raises(Unauthenticated):
        tokens.read_access(f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}")


def test_an_expired_token_says_so(tokens: Tokens) -> None:
    for exp in (int(NOW), int(NOW) - 1, 0, -1):
        with pytest.raises(Unauthenticated) as refused:
            tokens.read_access(signed(payload(exp=exp)))
        assert refused.value.key == "auth.expired"
    assert tokens.read_access(signed(payload(exp=NOW + 0.5))).user_id == "u1"


def test_access_and_refresh_are_never_taken_for_each_other(tokens: Tokens) -> None:
    access, refresh = tokens.access("u1", "s1", 60), tokens.refresh("u1", "s1", 60, "secret")
    assert tokens.read_refresh(refresh).secret == "secret"
    with pytest.raises(Unauthenticated):
        tokens.read_access(refresh)
    with pytest.raises(Unauthenticated):
        tokens.read_refresh(access)
    with pytest.raises(Unauthenticated):
        tokens.read_refresh(signed(payload(aud="quartet:refresh", type="refresh")))


def test_a_clock_set_back_revives_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = [NOW]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    clock = Clock()
    tokens = Tokens(KEY, ISSUER, clock)
    token = tokens.access("u1", "s1", 3600)
    wall[0] += 86_400
    with pytest.raises(Unauthenticated):
        tokens.read_access(token)
    wall[0] -= 2 * 86_400
    with pytest.raises(Unauthenticated):
        tokens.read_access(token)
    tokens.read_access(tokens.access("u1", "s1", 3600))
