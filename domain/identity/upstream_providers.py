"""The login providers that an operator lists (`UPSTREAM_PROVIDERS`)."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from domain.errors import Unauthenticated, Unusable
from domain.mail_address import mail_address
from gateways.upstream import RelyingParty, bad_url, is_local

SUBJECT_MAX = 255
"""OpenID Connect Core §2: a subject has at most 255 characters."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PICTURE_MAX = 2048
_RESERVED = ("native",)


class BadProviders(ValueError):
    """The list of providers cannot be used; the message says which and why, and no secret."""


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a provider calls the things that are read of its claims."""

    subject: str = "sub"
    username: str = "preferred_username"
    email: str = "email"
    email_verified: str = "email_verified"
    name: str = "name"
    picture: str = "picture"


class Person(msgspec.Struct, frozen=True):
    """Who logged in at a provider. `email` is one that the provider vouches for, else None."""

    subject: str
    username: str
    email: str | None
    name: str | None
    picture: str | None


class Provider(RelyingParty, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider. `admits` says whether people without an account get one. `redirect_uris` are
    further addresses of the callback that a client may name; they are compared whole."""

    id: str
    name: str = ""
    icon: str = ""
    claims: Claims = Claims()
    admits: bool = True
    redirect_uris: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Provider(id={self.id!r})"

    @property
    def shown(self) -> str:
        """What people read it as."""
        return self.name or self.id

    @property
    def key(self) -> str:
        """What its subjects are kept under: an operator may give an `id` to another provider,
        whose subjects are other people."""
        return hashlib.sha256((self.issuer or self.userinfo_url).encode()).hexdigest()

    def person(self, claims: Mapping[str, Any]) -> Person:
        """Who claims tell of. Raises Unauthenticated("upstream.untrusted") without a subject."""
        subject = claims.get(self.claims.subject)
        if isinstance(subject, int) and not isinstance(subject, bool):
            subject = str(subject)
        if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_MAX:
            raise Unauthenticated("upstream.untrusted")
        email = _text(claims.get(self.claims.email))
        username = _text(claims.get(self.claims.username)) or email or ""
        picture = _text(claims.get(self.claims.picture))
        fits = picture.startswith("https://") and len(picture) <= _PICTURE_MAX
        return Person(
            subject=subject,
            username=username.partition("@")[0].strip(),
            email=_address(email) if claims.get(self.claims.email_verified) is True else None,
            name=_text(claims.get(self.claims.name))[:128] or None,
            picture=picture if fits and picture.isascii() and picture.isprintable() else None,
        )


def _text(value: object) -> str:
    """A claim as text without what no database keeps."""
    if not isinstance(value, str) or "\0" in value:
        return ""
    return value.encode("utf-8", "ignore").decode().strip()


def _address(text: str) -> str | None:
    try:
        return mail_address(text) if text else None
    except Unusable:
        return None


def read_providers(text: bytes) -> dict[str, Provider]:
    """The providers of a JSON list, by id, in their order. Raises BadProviders."""
    if not text.strip():
        return {}
    try:
        providers = msgspec.json.decode(text, type=list[Provider])
    except msgspec.DecodeError as error:
        raise BadProviders(f"UPSTREAM_PROVIDERS: {error}") from None
    for provider in providers:
        for problem in _problems(provider):
            raise BadProviders(f"UPSTREAM_PROVIDERS: {provider.id!r}: {problem}")
    found = {provider.id: provider for provider in providers}
    if len(found) != len(providers):
        raise BadProviders("UPSTREAM_PROVIDERS: an id comes twice")
    return found


def _problems(provider: Provider) -> list[str]:
    problems = []
    if not _ID.fullmatch(provider.id) or provider.id in _RESERVED:
        problems.append("id is 1 to 64 of A-Z a-z 0-9 . _ - and not 'native'")
    if not provider.client_id:
        problems.append("client_id is empty")
    urls = {
        name: getattr(provider, name) for name in ("authorize_url", "token_url", "userinfo_url")
    }
    if provider.issuer:
        if any(urls.values()):
            problems.append("an issuer says by itself where its endpoints are")
        if "openid" not in provider.scopes:
            problems.append("an issuer is asked for the scope openid")
        if provider.claims.subject != "sub":
            problems.append("an issuer's subject is its claim sub")
        urls = {"issuer": provider.issuer}
    for name, url in urls.items():
        if not url:
            problems.append(f"neither an issuer nor {name} is given")
        elif why := bad_url(url, local=is_local(url)):
            problems.append(f"{name}: {why}")
    for url in provider.redirect_uris:
        if why := bad_url(url, local=is_local(url)):
            problems.append(f"redirect_uri {url}: {why}")
    return problems
