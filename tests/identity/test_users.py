"""Accounts: one's own, others', the first administrator, proxied ones; stored settings."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from domain.caller import Caller
from domain.errors import (
    Conflict,
    DomainError,
    Forbidden,
    NotFound,
    Throttled,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from domain.ids import uuid7
from storage.agents import AgentFields, AgentStore
from storage.database import Database, StorageUnavailable
from storage.users import User
from tests.identity.conftest import ADMIN, PASSWORD, MakeWorld, World


async def refusal(awaitable: Any) -> DomainError:
    with pytest.raises(DomainError) as refused:
        await awaitable
    return refused.value


def as_caller(user: User) -> Caller:
    return Caller(user.id, "operator", user.username)


# --- one's own ----------------------------------------------------------------------------------


async def test_a_password_changes_only_against_the_old_one(world: World) -> None:
    user = await world.add("ann")
    change = world.users.change_password
    wrong = await refusal(change(as_caller(user), "wrong", "another password", address="a"))
    assert isinstance(wrong, Unauthenticated)
    assert wrong.key == "user.password_wrong"
    short = await refusal(change(as_caller(user), PASSWORD, "short", address="a"))
    assert short.key == "password.length"
    await world.login("ann")
    await change(as_caller(user), PASSWORD, "another password", address="192.0.2.3")
    assert (await refusal(world.login("ann"))).key == "login.failed"
    told = await world.events(f"user:{user.id}")
    assert (
        "user.password_changed",
        {"actor": user.id, "address": "192.0.2.3"},
    ) in told
    assert "another password" not in str(told)


async def test_of_changes_at_once_one_is_made(world: World) -> None:
    """The others were proved against a password that it is no more."""
    user = await world.add("ann")
    outcomes = await asyncio.gather(
        *(
            world.users.change_password(as_caller(user), PASSWORD, f"password {n}", address="a")
            for n in range(6)
        ),
        return_exceptions=True,
    )
    made = [n for n, outcome in enumerate(outcomes) if outcome is None]
    assert len(made) == 1
    await world.login("ann", f"password {made[0]}")
    refused = [str(outcome) for outcome in outcomes if outcome is not None]
    assert refused == ["user.password_wrong"] * 5


async def test_the_old_password_is_not_guessed_for_ever(make_world: MakeWorld) -> None:
    world = await make_world(lockout_failures=3)
    caller = as_caller(await world.add("ann"))
    change = world.users.change_password
    for _ in range(3):
        await refusal(change(caller, "wrong", "another password", address="192.0.2.1"))
    error = await refusal(change(caller, PASSWORD, "another password", address="192.0.2.1"))
    assert isinstance(error, Throttled)
    assert (await refusal(world.login("ann", address="192.0.2.1"))).key == "login.locked"


async def test_an_account_without_password_has_none_to_change(world: World) -> None:
    caller = await world.identity.verify_proxy("pat")
    error = await refusal(world.users.change_password(caller, "", "another password", address=""))
    assert error.key == "user.no_password"


async def test_settings_merge_one_level_deep(world: World) -> None:
    ann, bob = await world.add("ann"), await world.add("bob")
    assert await world.users.get_config(ann.id) == {}
    await world.users.merge_config(ann.id, {"theme": "dark", "bar": {"a": 1, "b": 2}})
    merged = await world.users.merge_config(ann.id, {"bar": {"a": 3}, "theme": None})
    assert merged == await world.users.get_config(ann.id) == {"theme": None, "bar": {"a": 3}}
    assert await world.users.merge_config(ann.id, {}) == merged
    assert await world.users.get_config(bob.id) == {}


async def test_settings_put_at_once_all_stay(world: World) -> None:
    user = await world.add("ann")
    await asyncio.gather(*(world.users.merge_config(user.id, {f"k{n}": n}) for n in range(16)))
    assert await world.users.get_config(user.id) == {f"k{n}": n for n in range(16)}


async def test_settings_do_not_grow_without_end(world: World) -> None:
    user = await world.add("ann")
    await world.users.merge_config(user.id, {"a": "x" * 600_000})
    error = await refusal(world.users.merge_config(user.id, {"b": "x" * 600_000}))
    assert isinstance(error, TooLarge)
    assert error.key == "user.config_too_large"
    assert list(await world.users.get_config(user.id)) == ["a"]


# --- others' ------------------------------------------------------------------------------------


async def test_an_administrator_makes_accounts(world: World) -> None:
    user = await world.users.add(
        ADMIN,
        username=" Ann ",
        password=PASSWORD,
        email="ann@example.com",
        role="viewer",
        address="192.0.2.4",
    )
    assert (user.username, user.role) == ("Ann", "viewer")
    assert (await world.login("ann")).user.id == user.id
    assert (await world.events(f"user:{user.id}"))[0] == (
        "user.added",
        {"actor": ADMIN.user_id, "address": "192.0.2.4", "role": "viewer"},
    )
    for fields, key in (
        ({"username": "ANN"}, "user.exists"),
        ({"username": "ANN", "email": "Ann@example.com"}, "user.exists"),
        ({"username": "bob", "email": "Ann@example.com"}, "user.email_exists"),
        ({"username": "b@b"}, "user.username_invalid"),
        ({"username": "bob", "email": "bob"}, "registration.email_invalid"),
    ):
        error = await refusal(world.users.add(ADMIN, password=PASSWORD, **fields))
        assert error.key == key
    short = await refusal(world.users.add(ADMIN, username="bob", password="short"))
    assert short.key == "password.length"
    assert (await world.users.page(1, 10))[1] == 1


async def test_accounts_added_at_once_under_one_name_are_one(world: World) -> None:
    answers = await asyncio.gather(*(world.add("ann") for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, User) for answer in answers) == 1
    assert sum(isinstance(answer, Conflict) for answer in answers) == 5


async def test_deleting_takes_what_is_owned(world: World, database: Database) -> None:
    ann, bob = await world.add("ann"), await world.add("bob")
    agents = AgentStore(database)
    for owner in (ann, bob):
        await database.write(
            lambda owner=owner: agents.create(owner.id, uuid7(), AgentFields(name="a"))
        )
    assert await world.users.owns(ann.id) == (False, True)
    told: list[str] = []

    async def leaving(user_id: str) -> None:
        assert (await world.users.get(user_id)).username == "ann"
        told.append(user_id)

    world.users.on_leaving(leaving)
    await world.users.delete(ADMIN, ann.id)
    assert told == [ann.id]
    assert await world.users.owns(ann.id) == (False, False)
    assert await world.users.owns(bob.id) == (False, True)
    assert isinstance(await refusal(world.users.get(ann.id)), NotFound)
    assert isinstance(await refusal(world.users.delete(ADMIN, ann.id)), NotFound)
    kinds = [kind for kind, _ in await world.events(f"user:{ann.id}")]
    assert kinds[-1] == "user.deleted"
    await world.add("ann")


async def test_administrators_are_protected_from_one_another_and_themselves(world: World) -> None:
    admin, peer = await world.add("root", role="admin"), await world.add("peer", role="admin")
    actor = Caller(admin.id, "admin", "root")
    for target in (admin.id, peer.id):
        own = "user.own_protected" if target == admin.id else "user.admin_protected"
        for attempt, key in (
            (world.users.delete(actor, target), own),
            (world.users.set_role(actor, target, "operator"), "user.admin_protected"),
            (world.users.set_status(actor, target, "banned"), own),
        ):
            error = await refusal(attempt)
            assert isinstance(error, Forbidden)
            assert error.key == key
    assert {u.role for u in (await world.users.page(1, 10))[0]} == {"admin"}


async def test_roles_and_states_are_told_once(world: World) -> None:
    user = await world.add("ann")
    for _ in range(2):
        await world.users.set_role(ADMIN, user.id, "viewer")
        await world.users.set_status(ADMIN, user.id, "banned")
    await world.users.set_status(ADMIN, user.id, "active")
    told = (await world.events(f"user:{user.id}"))[1:]
    assert [kind for kind, _ in told] == [
        "user.role_changed",
        "user.status_changed",
        "user.status_changed",
    ]
    assert told[0][1]["role"] == "viewer"
    assert (await world.login("ann")).user.role == "viewer"


async def test_names_and_pages(world: World) -> None:
    made = [await world.add(name) for name in ("cas", "ann", "bob")]
    assert [name for _, name in await world.users.names()] == ["ann", "bob", "cas"]
    first, total = await world.users.page(1, 2)
    second, _ = await world.users.page(2, 2)
    assert total == 3
    assert [user.id for user in first + second] == [user.id for user in reversed(made)]
    assert await world.users.page(3, 2) == ([], 3)


# --- the first administrator --------------------------------------------------------------------


async def test_the_first_administrator_is_made_once(world: World) -> None:
    generated = await world.users.bootstrap_admin("admin", "admin@localhost.localdomain", None)
    assert generated is not None
    assert len(generated) >= 20
    assert (await world.login("admin", generated)).user.role == "admin"
    assert (await world.login("admin@localhost.localdomain", generated)).user.role == "admin"
    assert await world.users.bootstrap_admin("other", "", None) is None
    assert (await world.users.page(1, 10))[1] == 1


async def test_a_given_password_is_not_handed_back(world: World) -> None:
    assert await world.users.bootstrap_admin("admin", "", PASSWORD) is None
    assert (await world.login("admin")).user.role == "admin"


async def test_processes_that_start_together_make_one_administrator(
    make_world: MakeWorld,
) -> None:
    worlds = [await make_world(alone=False) for _ in range(3)]
    made = await asyncio.gather(*(w.users.bootstrap_admin("admin", "", None) for w in worlds))
    passwords = [password for password in made if password]
    assert len(passwords) == 1
    assert (await worlds[0].users.page(1, 10))[1] == 1
    assert (await worlds[0].login("admin", passwords[0])).user.role == "admin"


async def test_an_ordinary_account_is_not_made_administrator(world: World) -> None:
    await world.add("admin")
    error = await refusal(world.users.bootstrap_admin("admin", "", None))
    assert isinstance(error, Conflict)


# --- proxied identities -------------------------------------------------------------------------


async def test_a_proxied_identity_is_an_operator_s_account_made_once(world: World) -> None:
    callers = await asyncio.gather(*(world.identity.verify_proxy("ann.1") for _ in range(5)))
    assert set(callers) == {Caller("ann.1", "operator", "ann.1", via="proxy")}
    assert (await world.users.page(1, 10))[1] == 1
    assert (await world.users.get("ann.1")).password_hash is None


async def test_a_proxied_identity_has_nobody_s_name_and_no_admin_s_rights(world: World) -> None:
    admin = await world.add("root", role="admin")
    stranger = await world.identity.verify_proxy("root")
    assert stranger.user_id == "root"
    assert stranger.username.startswith("root-")
    assert stranger.role == "operator"
    same = await world.identity.verify_proxy(admin.id)
    assert (same.user_id, same.role) == (admin.id, "operator")
    viewer = await world.add("vera", role="viewer")
    assert (await world.identity.verify_proxy(viewer.id)).role == "viewer"
    mail = await world.identity.verify_proxy("pat@example.com")
    assert (mail.user_id, mail.username) == ("pat@example.com", "pat")


@pytest.mark.parametrize("bad", ["", " ", "a b", "a:b", "é", "x" * 65, "../a", "a\x00", "a/b"])
async def test_what_cannot_be_an_id_is_nobody(world: World, bad: str) -> None:
    error = await refusal(world.identity.verify_proxy(bad))
    assert error.key == "auth.invalid"
    assert (await world.users.page(1, 10))[1] == 0


async def test_a_banned_proxied_account_stays_out(world: World) -> None:
    caller = await world.identity.verify_proxy("pat")
    stream = world.identity.ended(caller)
    await world.users.set_status(ADMIN, "pat", "banned")
    assert stream.is_set()
    assert (await refusal(world.identity.verify_proxy("pat"))).key == "account.inactive"
    await world.users.set_status(ADMIN, "pat", "active")
    assert await world.identity.verify_proxy("pat") == caller


# --- settings and health ------------------------------------------------------------------------


async def test_registration_is_opened_and_closed_for_every_process(make_world: MakeWorld) -> None:
    here, there = await make_world(), await make_world()
    assert (await there.system.info()).allow_registration is True
    await here.system.update(ADMIN, allow_registration=False, address="192.0.2.1")
    assert (await there.system.info()).allow_registration is False
    assert (await here.events(f"user:{ADMIN.user_id}"))[-1] == (
        "system.settings_changed",
        {"actor": ADMIN.user_id, "address": "192.0.2.1", "allow_registration": False},
    )


@pytest.mark.parametrize(
    ("mode", "allows", "local", "admin_only"),
    [("native", True, True, False), ("trusted_proxy", False, True, True),
     ("oauth", False, False, False)],
)  # fmt: skip
async def test_what_anybody_may_know(
    make_world: MakeWorld, mode: str, allows: bool, local: bool, admin_only: bool
) -> None:
    info = await (await make_world(mode=mode)).system.info()
    assert (info.mode, info.allow_registration) == (mode, allows)
    assert (info.has_local_auth, info.admin_only) == (local, admin_only)


async def test_health_fails_when_the_database_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await world.system.check() > 0

    async def silent(*_: object) -> None:
        raise StorageUnavailable("gone")

    monkeypatch.setattr(world.database, "read_one", silent)
    error = await refusal(world.system.check())
    assert isinstance(error, Unavailable)
    assert error.key == "system.database"


# --- texts --------------------------------------------------------------------------------------


def test_every_key_that_is_raised_has_its_texts() -> None:
    import re

    from server.messages import text

    root = Path(__file__).parents[2] / "domain"
    files = [*(root / "identity").glob("*.py")]
    files += [root / name for name in ("users.py", "system.py", "mail_address.py")]
    keys = {
        key
        for file in files
        for key in re.findall(r'(?:raise|taken =)[^\n]*?"([a-z]+\.[a-z_]+)"', file.read_text())
    }
    assert {"login.failed", "user.not_found", "registration.too_soon"} <= keys
    details = {"minimum": 8, "maximum": 128, "limit": 1, "statuses": "active", "retry_after": 1}
    for key in keys:
        assert text(key, "zh", details) != text(key, "en", details)
