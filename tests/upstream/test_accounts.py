"""Whose account it is that somebody logs in to, on every database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from domain.accounts import Accounts, accounts
from domain.caller import Caller
from domain.identity.clock import Clock
from domain.identity.destinations import Destinations
from domain.identity.passwords import Passwords
from domain.identity.policy import IdentityPolicy
from domain.identity.upstream import Finished, UpstreamPolicy
from domain.identity.upstream_providers import Provider
from gateways.outbound import Outbound
from storage.database import Database
from storage.events import EventLog
from storage.users import User, UserStore
from storage.wakeups import OneProcess
from tests.upstream.issuer import Issuer
from tests.upstream.parts import PASSWORD, failed

ADMIN = Caller(user_id="the-admin", role="admin", username="root")


class Moved(Clock):
    """A clock that can be set forward."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def __call__(self) -> float:
        return super().__call__() + self.ahead


class World(msgspec.Struct):
    """Accounts of one process, and the issuer that people come from."""

    parts: Accounts
    users: UserStore
    log: EventLog
    issuer: Issuer
    clock: Moved

    async def comes(self, provider: str = "issuer", **claims: Any) -> Finished:
        """Somebody logs in at the issuer; what became of it."""
        self.issuer.person = {"sub": "ada", **claims}
        begun = await self.parts.upstream.begin(provider, next="/agent/chat", redirect_uri=None)
        back = self.issuer.agreed(begun.location)
        return await self.back(back, begun.browser, provider)

    async def back(self, location: str, browser: str, provider: str = "issuer") -> Finished:
        said = dict(parse_qsl(urlsplit(location).query))
        return await self.parts.upstream.finish(
            provider,
            state=said["state"],
            browser=browser,
            code=said["code"],
            issuer=said["iss"],
            address="192.0.2.1",
        )

    async def enters(self, provider: str = "issuer", **claims: Any) -> User:
        """Somebody who is let in."""
        finished = await self.comes(provider, **claims)
        assert finished.login is not None, finished.location
        assert finished.location == "/agent/chat"
        return finished.login.user

    async def refused(self, provider: str = "issuer", **claims: Any) -> str:
        finished = await self.comes(provider, **claims)
        assert finished.login is None
        return failed(finished.location)[0]

    async def add(self, username: str, **fields: Any) -> User:
        return await self.parts.users.add(ADMIN, username=username, password=PASSWORD, **fields)

    async def set(self, user: User, **columns: Any) -> None:
        """What nothing in the domain does yet: an address that nobody has proved."""
        from sqlalchemy import update

        from storage.database import Statement
        from storage.schema import users

        change = Statement(update(users).where(users.c.id == user.id).values(**columns))
        await self.users._database.write(lambda: (yield change()))


@pytest.fixture
async def make_world(database: Database, issuer: Issuer) -> AsyncIterator[Callable[..., Any]]:
    closing: list[Any] = []

    async def make(**policy: Any) -> World:
        log, outbound, clock = EventLog(database, OneProcess()), Outbound(["127.0.0.1"]), Moved()
        listed = (
            issuer.openid(),
            issuer.openid(id="closed", admits=False),
            issuer.plain(userinfo_url=f"{issuer.url}/userinfo"),
        )

        async def send(to: str, subject: str, text: str) -> None:
            raise AssertionError(f"a mail to {to}")

        parts = accounts(
            database,
            log,
            key=b"0123456789abcdef0123456789ABCDEF-for-tests",
            issuer="https://here",
            policy=msgspec.structs.replace(IdentityPolicy(), **policy),
            send=send,
            passwords=Passwords(memory_kib=64, passes=1),
            clock=clock,
            providers={each["id"]: msgspec.convert(each, Provider) for each in listed},
            upstream=UpstreamPolicy(base="https://here"),
            destinations=Destinations(["/agent/chat"]),
            outbound=outbound,
        )
        await parts.identity.start()
        closing.extend((parts.identity, log, outbound))
        return World(parts, UserStore(database), log, issuer, clock)

    yield make
    for each in closing:
        await each.close()


@pytest.fixture
async def world(make_world: Callable[..., Any]) -> World:
    made: World = await make_world()
    return made


VERIFIED = {"email": "ada@example.com", "email_verified": True}


async def test_a_subject_keeps_its_account_whatever_else_changes(world: World) -> None:
    first = await world.enters(preferred_username="ada", **VERIFIED)
    assert (first.username, first.email, first.email_verified) == ("ada", "ada@example.com", True)
    assert (first.role, first.password_hash) == ("operator", None)
    again = await world.enters(preferred_username="eve", email="eve@example.com")
    assert again.id == first.id
    assert (again.username, again.email) == ("ada", "ada@example.com")
    other = await world.enters(sub="bob", preferred_username="ada")
    assert other.id != first.id
    assert other.username.startswith("ada-")


async def test_providers_with_one_subject_are_two_people(world: World) -> None:
    """Unless they are one provider under two names."""
    first = await world.enters()
    assert (await world.enters("plain")).id != first.id
    assert (await world.enters("closed")).id == first.id


async def test_an_address_that_both_sides_have_proved_finds_the_account(world: World) -> None:
    ada = await world.add("ada", email="Ada@Example.com", role="viewer")
    found = await world.enters(**VERIFIED)
    assert (found.id, found.role) == (ada.id, "viewer")
    # from now on by the subject
    assert (await world.enters(email="other@example.com", email_verified=True)).id == ada.id
    told = [(each.type, each.payload) for each in await world.log.read(f"user:{ada.id}")]
    assert any(kind == "upstream.linked" and b'"issuer"' in payload for kind, payload in told)


async def test_an_address_that_the_provider_does_not_vouch_for_finds_nobody(world: World) -> None:
    ada = await world.add("ada", email="ada@example.com")
    for number, verified in enumerate((False, None, "true", 1)):
        found = await world.enters(sub=f"{number}", **{**VERIFIED, "email_verified": verified})
        assert found.id != ada.id
        assert (found.email, found.email_verified) == (None, False)


async def test_an_address_that_the_account_has_not_proved_finds_nobody(world: World) -> None:
    """Somebody may have taken it before its owner came."""
    squatter = await world.add("squatter", email="ada@example.com")
    await world.set(squatter, email_verified=False)
    found = await world.enters(preferred_username="ada", **VERIFIED)
    assert found.id != squatter.id
    assert (found.username, found.email) == ("ada", None)


async def test_where_registration_is_closed_accounts_are_found_and_none_is_made(
    make_world: Callable[..., Any],
) -> None:
    world = await make_world(allow_registration=False)
    ada = await world.add("ada", email="ada@example.com")
    assert await world.refused(sub="eve") == "closed"
    assert await world.refused(sub="eve", email="eve@example.com", email_verified=True) == "closed"
    assert await world.refused(sub="eve", email="ada@example.com") == "closed"
    assert (await world.enters(**VERIFIED)).id == ada.id
    assert (await world.enters()).id == ada.id
    await world.parts.system.update(ADMIN, allow_registration=True)
    assert (await world.enters(sub="eve")).id != ada.id


async def test_a_provider_may_admit_nobody_new(world: World) -> None:
    ada = await world.add("ada", email="ada@example.com")
    assert await world.refused("closed", sub="eve") == "closed"
    assert (await world.enters("closed", **VERIFIED)).id == ada.id


@pytest.mark.parametrize("status", ["banned", "inactive"])
async def test_an_account_that_is_not_active_is_not_entered(world: World, status: str) -> None:
    ada = await world.enters(**VERIFIED)
    await world.parts.users.set_status(ADMIN, ada.id, status)
    assert await world.refused() == "inactive"
    assert await world.refused(sub="another", **VERIFIED) == "inactive"
    await world.parts.users.set_status(ADMIN, ada.id, "active")
    assert (await world.enters()).id == ada.id


async def test_an_account_that_was_deleted_is_made_anew(world: World) -> None:
    ada = await world.enters(preferred_username="ada")
    await world.parts.users.delete(ADMIN, ada.id)
    again = await world.enters(preferred_username="ada")
    assert again.id != ada.id
    assert again.username == "ada"


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        ("ada", "ada"),
        ("ada@corp.example.com", "ada"),
        ("Ada Lovelace", "Ada Lovelace"),
        ("", "user-"),
        ("@", "user-"),
        ("a\u202eb", "user-"),
        ("x" * 300, "x" * 100 + "-"),
        ("ADMIN", "ADMIN-"),
        ("\uff21dmin", "\uff21dmin-"),
    ],
)
async def test_names(world: World, claimed: str, expected: str) -> None:
    await world.add("admin")
    found = await world.enters(preferred_username=claimed)
    if expected.endswith("-"):
        assert found.username.startswith(expected)
        assert len(found.username) <= 128
    else:
        assert found.username == expected


async def test_somebody_who_comes_many_times_at_once_gets_one_account(world: World) -> None:
    found = await asyncio.gather(
        *(world.enters(preferred_username="ada", **VERIFIED) for _ in range(8))
    )
    assert len({each.id for each in found}) == 1
    assert found[0].username == "ada"


async def test_a_login_takes_at_most_ten_minutes(world: World) -> None:
    for ahead, expected in ((599.0, True), (601.0, False)):
        begun = await world.parts.upstream.begin("issuer", next=None, redirect_uri=None)
        back = world.issuer.agreed(begun.location)
        world.clock.ahead += ahead
        finished = await world.back(back, begun.browser)
        assert (finished.login is not None) is expected
    assert failed(finished.location)[0] == "expired"
    begun = await world.parts.upstream.begin("issuer", next=None, redirect_uri=None)
    assert await world.parts.upstream.purge() == 1
    world.clock.ahead += 601
    assert await world.parts.upstream.purge() == 1


async def test_logging_out_ends_the_session_that_was_opened(world: World) -> None:
    finished = await world.comes()
    assert finished.login is not None
    caller = await world.parts.identity.verify_cookie(finished.login.cookie)
    assert caller.username == finished.login.user.username
    await world.parts.identity.logout(caller)
    assert world.parts.identity.is_revoked(caller.session_id)
