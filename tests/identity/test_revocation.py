"""Ends of login sessions: refresh, logout, password, role, status, deletion (security 4, 5)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from domain.caller import Caller
from domain.errors import DomainError, Forbidden, Unauthenticated
from domain.identity.identity import Login
from domain.identity.known import Known, Revocation
from tests.identity.conftest import ADMIN, PASSWORD, MakeWorld, World


async def known(world: World, login: Login) -> Caller:
    """Verify both credentials, so that memory holds them."""
    await world.identity.verify_cookie(login.cookie)
    return await world.identity.verify_bearer(login.access_token)


async def is_over(world: World, login: Login) -> bool:
    """Whether neither credential is recognised, from memory or from the database."""
    if world.identity.known(login.access_token) or world.identity.known_cookie(login.cookie):
        return False
    for verify in (
        lambda: world.identity.verify_bearer(login.access_token),
        lambda: world.identity.verify_cookie(login.cookie),
        lambda: world.identity.refresh(login.refresh_token, address=""),
    ):
        try:
            await verify()
        except DomainError:
            continue
        return False
    return True


async def goes_on(world: World, login: Login) -> bool:
    await world.identity.verify_cookie(login.cookie)
    return (await world.identity.verify_bearer(login.access_token)).session_id == login.session_id


# --- refresh ------------------------------------------------------------------------------------


async def test_a_refresh_gives_a_new_pair_for_the_same_session(world: World) -> None:
    user = await world.add("ann")
    login = await world.login("ann")
    again = await world.identity.refresh(
        login.refresh_token, address="", claims=lambda u: {"n": u.username}, access_ttl_s=1800
    )
    assert (again.user.id, again.session_id, again.cookie) == (user.id, login.session_id, "")
    assert again.expires_in == 1800
    assert again.refresh_token != login.refresh_token
    assert (await world.identity.verify_bearer(again.access_token)).user_id == user.id
    assert await goes_on(world, login)
    third = await world.identity.refresh(again.refresh_token, address="")
    assert (await world.identity.verify_bearer(third.access_token)).user_id == user.id


async def test_a_refresh_token_used_twice_ends_the_whole_family(world: World) -> None:
    user = await world.add("ann")
    login, other = await world.login("ann"), await world.login("ann")
    stolen = login.refresh_token
    renewed = await world.identity.refresh(stolen, address="")
    await known(world, login)
    with pytest.raises(Unauthenticated):
        await world.identity.refresh(stolen, address="198.51.100.1")
    assert await is_over(world, login)
    with pytest.raises(Unauthenticated):
        await world.identity.verify_bearer(renewed.access_token)
    with pytest.raises(Unauthenticated):
        await world.identity.refresh(renewed.refresh_token, address="")
    assert await goes_on(world, other)
    told = await world.events(f"user:{user.id}")
    assert told[-1] == (
        "login.refresh_reused",
        {"actor": user.id, "address": "198.51.100.1"},
    )


async def test_of_refreshes_at_once_one_wins_and_the_family_ends(world: World) -> None:
    await world.add("ann")
    login = await world.login("ann")
    answers = await asyncio.gather(
        *(world.identity.refresh(login.refresh_token, address="") for _ in range(6)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Login) for answer in answers) == 1
    assert await is_over(world, login)


async def test_a_refresh_token_expires_and_refreshing_prolongs(world: World) -> None:
    await world.add("ann")
    login = await world.login("ann")
    for _ in range(4):
        world.clock.ahead += 6 * 86400
        login = await world.identity.refresh(login.refresh_token, address="")
    world.clock.ahead += 7 * 86400 + 1
    with pytest.raises(Unauthenticated) as refused:
        await world.identity.refresh(login.refresh_token, address="")
    assert refused.value.key == "auth.expired"


async def test_who_is_banned_does_not_refresh(world: World) -> None:
    user = await world.add("ann")
    login = await world.login("ann")
    await world.users.set_status(ADMIN, user.id, "banned")
    with pytest.raises(Forbidden):
        await world.identity.refresh(login.refresh_token, address="")


# --- every end ----------------------------------------------------------------------------------

Act = Callable[[World, Caller], Awaitable[Any]]
ENDS: dict[str, Act] = {
    "logout": lambda world, caller: world.identity.logout(caller),
    "ban": lambda world, caller: world.users.set_status(ADMIN, caller.user_id, "banned"),
    "deactivate": lambda world, caller: world.users.set_status(ADMIN, caller.user_id, "inactive"),
    "delete": lambda world, caller: world.users.delete(ADMIN, caller.user_id),
    "reset password": lambda world, caller: world.users.reset_password(caller.user_id, "x" * 12),
}


@pytest.mark.parametrize("name", ENDS)
async def test_an_end_takes_every_credential_and_stream(world: World, name: str) -> None:
    await world.add("ann")
    await world.add("bob")
    login, bystander = await world.login("ann"), await world.login("bob")
    caller = await known(world, login)
    stream, other = (
        world.identity.ended(caller),
        world.identity.ended(await known(world, bystander)),
    )
    revoked: list[Revocation] = []
    world.identity.on_revoked(revoked.append)
    await ENDS[name](world, caller)
    assert stream.is_set()
    assert world.identity.ended(caller).is_set()
    assert world.identity.is_revoked(login.session_id)
    assert revoked[0].user_id == caller.user_id
    assert await is_over(world, login)
    assert not other.is_set()
    assert not world.identity.is_revoked(bystander.session_id)
    assert await goes_on(world, bystander)


@pytest.mark.parametrize("name", ENDS)
async def test_an_end_reaches_the_other_processes(make_world: MakeWorld, name: str) -> None:
    here, there = await make_world(alone=False), await make_world(alone=False)
    await here.add("ann")
    login = await here.login("ann")
    caller = await known(there, login)
    stream = there.identity.ended(caller)
    await ENDS[name](here, caller)
    async with asyncio.timeout(1.0):
        await stream.wait()
    assert await is_over(there, login)


async def test_a_new_role_holds_at_once_and_cuts_streams(world: World) -> None:
    user = await world.add("ann")
    login = await world.login("ann")
    caller = await known(world, login)
    stream = world.identity.ended(caller)
    await world.users.set_role(ADMIN, user.id, "viewer")
    assert stream.is_set()
    assert world.identity.known(login.access_token) is None
    assert (await world.identity.verify_bearer(login.access_token)).role == "viewer"
    assert not world.identity.ended(caller).is_set()
    assert not world.identity.is_revoked(login.session_id)


async def test_a_changed_password_ends_the_others_and_not_the_one_that_asks(world: World) -> None:
    await world.add("ann")
    mine, other = await world.login("ann"), await world.login("ann")
    caller = await known(world, mine)
    stream = world.identity.ended(await known(world, other))
    await world.users.change_password(caller, PASSWORD, "another password", address="")
    assert stream.is_set()
    assert await is_over(world, other)
    assert await goes_on(world, mine)
    with pytest.raises(Unauthenticated):
        await world.login("ann")
    assert (await world.login("ann", "another password")).user.username == "ann"


async def test_no_login_slips_in_behind_a_password_change(world: World) -> None:
    """The old password was right when it was looked at, and is not when the session opens."""
    user = await world.add("ann")
    proved = await world.identity.prove("ann", PASSWORD, address="")
    await world.users.reset_password(user.id, "another password")
    with pytest.raises(Unauthenticated):
        await world.identity.open_session(proved, via="password", address="")


async def test_logging_out_twice_or_without_a_session_is_harmless(world: World) -> None:
    user = await world.add("ann")
    caller = await known(world, await world.login("ann"))
    await world.identity.logout(caller)
    before = await world.events(f"user:{user.id}")
    await world.identity.logout(caller)
    await world.identity.logout(Caller(user.id, "operator", via="proxy"))
    assert await world.events(f"user:{user.id}") == before
    assert before[-1][0] == "login.ended"


async def test_nothing_is_recalled_while_revocations_cannot_be_read(world: World) -> None:
    await world.add("ann")
    login = await world.login("ann")
    await known(world, login)
    assert world.identity.known(login.access_token) is not None
    await world.log.close()
    assert world.identity.known(login.access_token) is None
    assert world.identity.known_cookie(login.cookie) is None
    assert await goes_on(world, login)


async def test_sessions_that_ended_long_ago_are_forgotten(world: World) -> None:
    await world.add("ann")
    caller = await known(world, await world.login("ann"))
    live = await world.login("ann")
    await world.identity.logout(caller)
    assert await world.identity.purge() == 0
    world.clock.ahead = 8 * 86400
    assert await world.identity.purge() == 1
    await world.identity.verify_cookie(live.cookie)


# --- memory -------------------------------------------------------------------------------------

ANN = Caller("ann", "operator", "ann", "s1", "bearer")


def test_what_was_read_before_a_revocation_is_not_remembered_after_it() -> None:
    memory = Known(lambda: 0.0)
    generation = memory.generation
    memory.apply(Revocation("ann", whole=True))
    memory.remember(memory.bearers, "token", ANN, 60.0, generation)
    assert memory.recall(memory.bearers, "token") is None
    memory.remember(memory.bearers, "token", ANN, 60.0, memory.generation)
    assert memory.recall(memory.bearers, "token") == ANN


def test_ends_are_kept_only_while_somebody_waits() -> None:
    memory = Known(lambda: 0.0)
    for n in range(1000):
        memory.ended(Caller(f"u{n}", "operator", session_id=f"s{n}"))
    assert len(memory._ends) == 0
    end = memory.ended(ANN)
    assert memory.ended(ANN) is end
    assert len(memory._ends) == 1
    memory.apply(Revocation("ann", ["s2"]))
    memory.apply(Revocation("bob", ["s1"], whole=True))
    assert not end.is_set()
    memory.apply(Revocation("ann", ["s1"]))
    assert end.is_set()


def test_a_stream_opened_just_after_the_end_ends() -> None:
    memory = Known(lambda: 0.0, size=2)
    memory.apply(Revocation("ann", ["s1"]))
    assert memory.ended(ANN).is_set()
    memory.apply(Revocation("ann", ["s2", "s3", "s4"]))
    assert len(memory._ended) == 2
