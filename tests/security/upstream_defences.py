"""The defences of logging in at a provider: whose login it is, what proves it, where it leads."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import bindparam, delete, select, update

from domain.identity import upstream
from domain.identity.upstream_providers import Provider
from storage.database import Statement, Unit
from storage.schema import upstream_logins as logins
from storage.schema import users
from storage.upstream import Began, hashed
from storage.users import UserStore
from tests.security import asgi
from tests.security.asgi import Reply
from tests.security.defences import without
from tests.security.place import Place, issuer, unique

STORE = "storage.upstream:UpstreamStore"
_STATE = logins.c.state_hash == bindparam("state_hash")
_BROWSER = logins.c.browser_hash == bindparam("browser_hash")
_PROVIDER = logins.c.provider == bindparam("provider")


async def begun(place: Place, **query: str) -> tuple[str, str]:
    """Where the browser goes, and its cookie; the provider keeps the protocol again."""
    issuer().behave()
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    reply = await place.ask("GET", f"/api/auth/upstream/login/issuer?{asked}")
    return reply.headers.get("location", ""), reply.headers["set-cookie"].partition(";")[0]


async def back(place: Place, location: str, cookie: str) -> Reply:
    """The callback's answer to a browser that the provider sent there."""
    parts = urlsplit(location)
    target = f"{parts.path}?{parts.query}"
    return await asgi.ask(place.application, "GET", target, headers={"cookie": cookie})


def entered(reply: Reply) -> bool:
    """Whether a login session was opened."""
    assert reply.http == 302, reply
    return not urlsplit(reply.headers["location"]).path.endswith("/login")


async def goes(place: Place, **changes: Any) -> bool:
    """Whether somebody whom the provider tells of in a changed way gets in."""
    location, cookie = await begun(place)
    for name, value in changes.items():
        setattr(issuer(), name, value)
    return entered(await back(place, issuer().agreed(location), cookie))


def _taking(*conditions: Any, forget: bool = True) -> Any:
    """UpstreamStore.take with some of its conditions alone."""
    found = (logins.c.next, logins.c.redirect_uri)
    statement = Statement(
        delete(logins).where(*conditions).returning(*found)
        if forget
        else select(*found).where(*conditions)
    )

    def take(self: Any, state: str, *, browser: str, provider: str, now: float) -> Unit[Any]:
        given = {
            "state_hash": hashed(state),
            "browser_hash": hashed(browser),
            "provider": provider,
        }
        named = {each.left.name for each in conditions}
        rows = yield statement(**{name: given[name] for name in named})
        return Began(*rows[0]) if rows else None

    return take


# --- whose login it is --------------------------------------------------------------------------


@without(46, once={f"{STORE}.take": _taking(_STATE, _BROWSER, _PROVIDER, forget=False)})
async def a_login_at_a_provider_comes_back_once(place: Place) -> None:
    location, cookie = await begun(place)
    assert entered(await back(place, issuer().agreed(location), cookie))
    assert not entered(await back(place, issuer().agreed(location), cookie))


_made = upstream._made


@without(
    46,
    cookie={
        f"{STORE}.take": _taking(_STATE, _PROVIDER),
        "domain.identity.upstream:_made": lambda what, browser, state: _made(what, "x", state),
    },
)
async def a_login_at_a_provider_is_its_browsers(place: Place) -> None:
    location, _ = await begun(place)
    _, others = await begun(place)
    for cookie in (others, "a=b"):
        assert not entered(await back(place, issuer().agreed(location), cookie))


@without(46, provider={f"{STORE}.take": _taking(_STATE, _BROWSER)})
async def a_login_at_one_provider_is_none_at_another(place: Place) -> None:
    location, cookie = await begun(place)
    await back(place, issuer().agreed(location), cookie)  # the account is there
    location, cookie = await begun(place)
    mixed_up = issuer().agreed(location).replace("/callback/issuer", "/callback/second")
    assert not entered(await back(place, mixed_up, cookie))


@without(46, pkce={"domain.identity.upstream:_made": lambda *_: "v" * 43})
async def a_code_that_leaked_is_worth_nothing(place: Place) -> None:
    location, _ = await begun(place)
    leaked = dict(parse_qsl(urlsplit(issuer().agreed(location)).query))["code"]
    location, cookie = await begun(place)
    assert not entered(await back(place, issuer().agreed(location, code=leaked), cookie))


# --- where it leads -----------------------------------------------------------------------------


@without(
    46,
    next={"domain.identity.destinations:Destinations.safe": lambda self, wanted: wanted or "/"},
)
async def a_login_at_a_provider_leads_to_our_pages_alone(place: Place) -> None:
    for wanted in ("//evil.example", "https://evil.example/", "/%2f/evil", "/sage/docs/../evil"):
        location, cookie = await begun(place, next=wanted)
        reply = await back(place, issuer().agreed(location), cookie)
        assert reply.headers["location"] == "/"


def _any_callback(self: Any, provider: Provider, wanted: str | None) -> str:
    return wanted or f"http://127.0.0.1:8000/api/auth/upstream/callback/{provider.id}"


@without(46, listed={"domain.identity.upstream:Upstream._callback": _any_callback})
async def a_provider_sends_nobody_elsewhere(place: Place) -> None:
    for wanted in ("https://evil.example/", "http://127.0.0.1:8000.evil.example/callback"):
        asked = f"redirect_uri={quote(wanted, safe='')}"
        reply = await place.ask("GET", f"/api/auth/upstream/login/issuer?{asked}")
        assert (reply.http, "location" in reply.headers) == (400, False)


@without(46, urls={"gateways.upstream:bad_url": lambda url, local: ""})
async def a_providers_metadata_leads_to_no_script(place: Place) -> None:
    known = place.quartet.upstream._client._kept
    try:
        for place_of in ("javascript:alert(1)//", "http://evil.example/authorize"):
            known.clear()
            issuer().behave()
            issuer().metadata["authorization_endpoint"] = place_of
            reply = await place.ask("GET", "/api/auth/upstream/login/issuer")
            assert reply.headers["location"].startswith("/login?error=unavailable")
    finally:
        issuer().behave()
        known.clear()


# --- what proves it -----------------------------------------------------------------------------


@without(2, claims={"joserfc.jwt:JWTClaimsRegistry.check_value": lambda *_: None})
async def an_id_token_for_another_login_proves_nobody(place: Place) -> None:
    assert await goes(place)
    for claims in ({"nonce": "another"}, {"iss": "https://evil.example"}, {"aud": "another"}):
        assert not await goes(place, token=claims)


@without(2, time={"joserfc.jwt:JWTClaimsRegistry.validate_exp": lambda *_: None})
async def an_id_token_of_yesterday_proves_nobody(place: Place) -> None:
    assert not await goes(place, token={"exp": 1_700_000_000})


def _unsigned(claims: dict[str, Any]) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def _foreign(claims: dict[str, Any]) -> str:
    key = RSAKey.generate_key(2048, {"kid": "one"})
    return jwt.encode({"alg": "RS256", "kid": "one"}, claims, key)


def _unverified(token: str, *_: Any) -> jwt.Token:
    body = token.split(".")[1]
    return jwt.Token({}, json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))


@without(2, signature={"joserfc.jwt:decode": _unverified})
async def an_id_token_that_anybody_can_make_proves_nobody(place: Place) -> None:
    for sign in (_unsigned, _foreign):
        assert not await goes(place, sign=sign)


@without(28, door={"gateways.addresses:AllowList.refusal": lambda *_: None})
async def a_provider_leads_to_nothing_inside(place: Place) -> None:
    """`localhost` is not what the operator opened for logins; 127.0.0.1 is."""
    known = place.quartet.upstream._client._kept
    try:
        known.clear()
        location, cookie = await begun(place)
        known.clear()
        inside = issuer().url.replace("127.0.0.1", "localhost")
        issuer().metadata["userinfo_endpoint"] = f"{inside}/userinfo"
        assert not entered(await back(place, issuer().agreed(location), cookie))
    finally:
        issuer().behave()
        known.clear()


# --- whose account it is ------------------------------------------------------------------------


async def account_of(place: Place, subject: str) -> str | None:
    provider = place.quartet.upstream._providers["issuer"]
    return await place.quartet.upstream._store.owner(provider.key, subject)


_person = Provider.person


def _credulous(self: Provider, claims: Mapping[str, Any]) -> Any:
    return _person(self, {**claims, "email_verified": True})


@without(46, vouched={"domain.identity.upstream_providers:Provider.person": _credulous})
async def an_address_that_nobody_vouches_for_opens_no_account(place: Place) -> None:
    victim = await place.account("victim")
    for verified in (False, None, "true"):
        person = {
            "sub": unique("thief"),
            "email": f"{victim.username}@example.com",
            "email_verified": verified,
        }
        assert await goes(place, person=person)
        assert await account_of(place, person["sub"]) != victim.id


_lock_by_email = UserStore.lock_by_email


def _proved(self: UserStore, email: str) -> Unit[Any]:
    user = yield from _lock_by_email(self, email)
    if user is not None:
        user.email_verified = True
    return user


UNPROVED = Statement(
    update(users).where(users.c.id == bindparam("user_id")).values(email_verified=False)
)


@without(46, proved={"storage.users:UserStore.lock_by_email": _proved})
async def an_address_that_was_squatted_catches_nobody(place: Place) -> None:
    squatter = await place.account("squatter")
    await place.database.write(lambda: (yield UNPROVED(user_id=squatter.id)))
    subject = unique("owner")
    email = f"{squatter.username}@example.com"
    assert await goes(place, person={"sub": subject, "email": email, "email_verified": True})
    assert await account_of(place, subject) != squatter.id


@without(5, status={"domain.identity.identity:_refuse_inactive": lambda status: None})
async def a_ban_holds_at_every_door(place: Place) -> None:
    subject = unique("banned")
    assert await goes(place, person={"sub": subject})
    user_id = await account_of(place, subject)
    assert user_id is not None
    await place.quartet.users.set_status(place.root, user_id, "banned")
    assert not await goes(place, person={"sub": subject})
