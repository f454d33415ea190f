"""`UPSTREAM_PROVIDERS`: what can be listed, what stops the start, and how claims are read."""

import json
from typing import Any

import pytest

from domain.errors import Unauthenticated
from domain.identity.upstream_providers import BadProviders, Person, Provider, read_providers
from tests.serving import spawn

OPENID = {"id": "corp", "client_id": "q", "issuer": "https://login.example.com"}
PLAIN = {
    "id": "github",
    "client_id": "q",
    "authorize_url": "https://github.com/login/oauth/authorize",
    "token_url": "https://github.com/login/oauth/access_token",
    "userinfo_url": "https://api.github.com/user",
    "scopes": ["read:user"],
}


def read(*providers: Any) -> dict[str, Provider]:
    return read_providers(json.dumps(providers).encode())


def test_what_can_be_listed() -> None:
    assert read_providers(b" ") == {}
    assert read_providers(b"[]") == {}
    found = read(
        OPENID,
        PLAIN,
        {**OPENID, "id": "local", "issuer": "http://127.0.0.1:9000/realms/one"},
        {**OPENID, "id": "a-._Z9", "redirect_uris": ["http://localhost:3000/x"], "admits": False},
    )
    assert list(found) == ["corp", "github", "local", "a-._Z9"]
    assert found["corp"].shown == "corp"
    assert found["corp"].key != found["github"].key
    assert found["corp"].key == found["a-._Z9"].key


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "native"},
        {"id": "a/b"},
        {"id": "é"},
        {"id": "x" * 65},
        {"client_id": ""},
        {"issuer": ""},
        {"issuer": "http://login.example.com"},
        {"issuer": "http://169.254.169.254"},
        {"issuer": "https://user:secret@login.example.com"},
        {"issuer": "https://login.example.com/#x"},
        {"issuer": "https://"},
        {"issuer": "https://[::1"},
        {"issuer": "login.example.com"},
        {"issuer": "file:///etc/passwd"},
        {"token_url": "https://login.example.com/token"},
        {"scopes": ["profile"]},
        {"claims": {"subject": "email"}},
        {"redirect_uris": ["http://app.example.com/callback"]},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"client_auth": "private_key_jwt"},
        {"secret": "misspelt"},
        {"claims": {"mail": "x"}},
        {"admits": "no"},
    ],
)
def test_what_cannot(changes: dict[str, Any]) -> None:
    read(OPENID)
    with pytest.raises(BadProviders):
        read({**OPENID, **changes})


@pytest.mark.parametrize("missing", ["authorize_url", "token_url", "userinfo_url"])
def test_a_plain_provider_names_all_its_places(missing: str) -> None:
    with pytest.raises(BadProviders, match=missing):
        read({**PLAIN, missing: ""})
    with pytest.raises(BadProviders, match=missing):
        read({**PLAIN, missing: "http://github.com/x"})


@pytest.mark.parametrize("text", [b"{", b"{}", b"[1]", b'[{"id": "x"}]', b"\xff"])
def test_what_is_no_list_of_providers(text: bytes) -> None:
    with pytest.raises(BadProviders, match="UPSTREAM_PROVIDERS"):
        read_providers(text)


def test_an_id_comes_once() -> None:
    with pytest.raises(BadProviders, match="twice"):
        read(OPENID, OPENID)


def test_a_secret_is_not_shown() -> None:
    (provider,) = read({**OPENID, "client_secret": "s3cret"}).values()
    assert "s3cret" not in repr(provider)
    with pytest.raises(BadProviders) as refused:
        read({**OPENID, "client_secret": "s3cret", "issuer": "http://x"})
    assert "s3cret" not in str(refused.value)


def test_a_bad_list_stops_the_start(tmp_path: Any) -> None:
    file = tmp_path / "providers.json"
    file.write_text(json.dumps([{**OPENID, "issuer": "http://login.example.com"}]))
    server = spawn(tmp_path / "data", given={"UPSTREAM_PROVIDERS": str(file)})
    assert server.process.wait(60) == 1
    assert "UPSTREAM_PROVIDERS: 'corp': issuer: https is needed" in server.logged()


def person(claims: dict[str, Any], **names: str) -> Person:
    (provider,) = read({**PLAIN, "claims": names}).values()
    return provider.person(claims)


def test_who_claims_tell_of() -> None:
    claims = {
        "sub": "42",
        "preferred_username": " ada@corp ",
        "email": "ada@example.com",
        "email_verified": True,
        "name": "Ada",
        "picture": "https://example.com/a.png",
    }
    assert person(claims) == Person(
        "42", "ada", "ada@example.com", "Ada", "https://example.com/a.png"
    )
    github = {"id": 42, "login": "ada", "avatar_url": "https://example.com/a.png"}
    assert person(github, subject="id", username="login", picture="avatar_url") == Person(
        "42", "ada", None, None, "https://example.com/a.png"
    )
    assert person({"sub": "42"}) == Person("42", "", None, None, None)
    assert person({"sub": "42", "email": "ada@example.com"}).username == "ada"


@pytest.mark.parametrize("verified", [False, None, "true", 1, "yes", [True]])
def test_an_address_counts_when_the_provider_vouches_for_it(verified: Any) -> None:
    claims = {"sub": "42", "email": "ada@example.com"}
    assert person({**claims, "email_verified": True}).email == "ada@example.com"
    assert person({**claims, "email_verified": verified}).email is None


@pytest.mark.parametrize(
    "odd", [{"email": 7, "email_verified": True}, {"email": "@", "email_verified": True},
            {"preferred_username": ["x"]}, {"preferred_username": "a\0b"}, {"name": {"x": 1}},
            {"picture": "javascript:alert(1)"}, {"picture": "http://example.com/a.png"},
            {"picture": "https://example.com/" + "a" * 3000}, {"picture": "https://é"},
            {"preferred_username": "\ud800"}],
)  # fmt: skip
def test_claims_of_an_odd_form_are_left_out(odd: dict[str, Any]) -> None:
    assert person({"sub": "42", **odd}) == Person("42", "", None, None, None)


@pytest.mark.parametrize("subject", [None, "", "x" * 256, True, False, 1.5, ["x"], {}])
def test_without_a_subject_nobody_is_proved(subject: Any) -> None:
    with pytest.raises(Unauthenticated):
        person({"sub": subject})
