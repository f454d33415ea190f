"""Logging in and being recognised."""

import asyncio
from typing import Any

import jwt
import pytest

from domain.caller import Caller
from domain.errors import Disabled, DomainError, Forbidden, Throttled, Unauthenticated
from domain.identity.passwords import Passwords
from tests.identity.conftest import ADMIN, KEY, PASSWORD, MakeWorld, World
from tests.storage.events.redis_server import RedisServer


async def refusal(awaitable: Any) -> DomainError:
    with pytest.raises(DomainError) as refused:
        await awaitable
    return refused.value


@pytest.mark.parametrize("name", ["ann", " ANN ", "ann@example.com", "Ann@EXAMPLE.com"])
async def test_every_credential_of_a_login_is_recognised(world: World, name: str) -> None:
    user = await world.add("ann", email="ann@example.com", role="viewer")
    login = await world.login(name, claims=lambda user: {"userid": user.id, "nickname": None})
    expected = Caller(user.id, "viewer", "ann", login.session_id, "bearer")
    assert world.identity.known(login.access_token) is None
    assert await world.identity.verify_bearer(login.access_token) == expected
    assert world.identity.known(login.access_token) == expected
    assert world.identity.known_cookie(login.cookie) is None
    by_cookie = await world.identity.verify_cookie(login.cookie)
    assert by_cookie == Caller(user.id, "viewer", "ann", login.session_id, "cookie")
    assert world.identity.known_cookie(login.cookie) == by_cookie
    says = jwt.decode(login.access_token, KEY, algorithms=["HS256"], audience="quartet")
    assert (says["userid"], says["nickname"]) == (user.id, None)
    assert login.expires_in == says["exp"] - says["iat"] == 86400


async def test_no_credential_stands_for_another_kind(world: World) -> None:
    await world.add("ann")
    login = await world.login("ann")
    await world.identity.verify_bearer(login.access_token)
    await world.identity.verify_cookie(login.cookie)
    for wrong in (login.cookie, login.refresh_token, login.session_id, "", "x" * 200, "é"):
        assert world.identity.known(wrong) is None
        assert (await refusal(world.identity.verify_bearer(wrong))).key == "auth.invalid"
    for wrong in (login.access_token, login.refresh_token, login.session_id, "", "é"):
        assert world.identity.known_cookie(wrong) is None
        assert (await refusal(world.identity.verify_cookie(wrong))).key == "auth.invalid"


async def test_unknown_and_wrong_are_one_answer_and_one_amount_of_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add("ann", email="ann@example.com")
    verified: list[bool] = []
    verify = Passwords.verify

    async def counted(self: Passwords, stored: str | None, password: str) -> bool:
        verified.append(stored is not None)
        return await verify(self, stored, password)

    monkeypatch.setattr(Passwords, "verify", counted)
    for name in ("ann", "nobody", "ann@example.com", "nobody@example.com"):
        error = await refusal(world.login(name, "wrong password"))
        assert isinstance(error, Unauthenticated)
        assert (error.key, error.details) == ("login.failed", {})
    assert verified == [True, False, True, False]


async def test_an_account_without_password_does_not_log_in(world: World) -> None:
    await world.identity.verify_proxy("pat")
    assert (await refusal(world.login("pat", ""))).key == "login.failed"


async def test_who_is_inactive_learns_it_only_with_the_right_password(world: World) -> None:
    user = await world.add("ann")
    await world.users.set_status(ADMIN, user.id, "inactive")
    assert (await refusal(world.login("ann", "wrong password"))).key == "login.failed"
    error = await refusal(world.login("ann"))
    assert isinstance(error, Forbidden)
    assert error.key == "account.inactive"


async def test_modes(make_world: MakeWorld) -> None:
    native = await make_world()
    await native.add("ann")
    await native.add("root", role="admin")
    proxied = await make_world(mode="trusted_proxy")
    assert (await refusal(proxied.login("ann"))).key == "login.admin_only"
    assert (await refusal(proxied.login("ann", "wrong"))).key == "login.failed"
    assert (await proxied.login("root")).user.role == "admin"
    oauth = await make_world(mode="oauth")
    error = await refusal(oauth.login("root"))
    assert isinstance(error, Disabled)
    assert error.key == "login.disabled"


async def test_credentials_expire(world: World) -> None:
    await world.add("ann")
    login = await world.login("ann", access_ttl_s=1800)
    await world.identity.verify_bearer(login.access_token)
    await world.identity.verify_cookie(login.cookie)
    world.clock.ahead = 1801
    assert world.identity.known(login.access_token) is None
    assert (await refusal(world.identity.verify_bearer(login.access_token))).key == "auth.expired"
    assert world.identity.known_cookie(login.cookie) is not None
    world.clock.ahead = 14 * 86400 + 1
    assert world.identity.known_cookie(login.cookie) is None
    assert (await refusal(world.identity.verify_cookie(login.cookie))).key == "auth.expired"


async def test_another_server_s_tokens_mean_nothing(make_world: MakeWorld) -> None:
    world = await make_world()
    user = await world.add("ann")
    login = await world.login("ann")
    claims = jwt.decode(login.access_token, options={"verify_signature": False})
    other = jwt.encode(claims, b"another key of thirty-two bytes..", algorithm="HS256")
    assert (await refusal(world.identity.verify_bearer(other))).key == "auth.invalid"
    # A well-signed token whose session belongs to somebody else proves nothing either.
    bob = await world.add("bob")
    mixed = world.identity._tokens.access(bob.id, login.session_id, 60)
    assert (await refusal(world.identity.verify_bearer(mixed))).key == "auth.expired"
    gone = world.identity._tokens.access(user.id, "no-such-session", 60)
    assert (await refusal(world.identity.verify_bearer(gone))).key == "auth.expired"


async def test_outdated_hashes_are_renewed_at_login(make_world: MakeWorld) -> None:
    world = await make_world()
    user = await world.add("ann")
    before = (await world.users.get(user.id)).password_hash
    later = await make_world(passwords=Passwords(memory_kib=128, passes=1))
    await later.login("ann")
    after = (await later.users.get(user.id)).password_hash
    assert "m=64," in str(before)
    assert "m=128," in str(after)
    await later.login("ann")
    assert (await later.users.get(user.id)).password_hash == after


async def test_memory_is_bounded(world: World) -> None:
    await world.add("ann")
    world.identity._known._size = 3
    cookies = [(await world.login("ann")).cookie for _ in range(5)]
    for cookie in cookies:
        await world.identity.verify_cookie(cookie)
    known = [world.identity.known_cookie(cookie) is not None for cookie in cookies]
    assert known == [False, False, True, True, True]
    assert (await world.identity.verify_cookie(cookies[0])).username == "ann"


# --- guessing -----------------------------------------------------------------------------------


async def test_guesses_lock_one_account_from_one_address(make_world: MakeWorld) -> None:
    world = await make_world(lockout_failures=3)
    await world.add("ann")
    await world.add("bob")
    for _ in range(3):
        assert (await refusal(world.login("ann", "wrong", address="192.0.2.1"))).key == (
            "login.failed"
        )
    error = await refusal(world.login("Ann ", address="192.0.2.1"))
    assert isinstance(error, Throttled)
    assert error.key == "login.locked"
    assert 1 <= error.retry_after <= 300
    # Nobody else is locked out: not the owner elsewhere, nor another account at that address.
    assert (await world.login("ann", address="192.0.2.2")).user.username == "ann"
    assert (await world.login("bob", address="192.0.2.1")).user.username == "bob"


async def test_an_account_is_one_whatever_it_is_called(make_world: MakeWorld) -> None:
    world = await make_world(lockout_failures=3)
    await world.add("ann", email="ann@example.com")
    for name in ("ann", "ann@example.com", "ANN"):
        assert (await refusal(world.login(name, "wrong"))).key == "login.failed"
    for name in ("ann", "ann@example.com"):
        assert (await refusal(world.login(name))).key == "login.locked"


async def test_a_guess_that_nobody_looked_at_does_not_count(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(lockout_failures=3, address_failures=3)
    await world.add("ann")

    async def busy(self: Passwords, stored: str | None, password: str) -> bool:
        raise Throttled("login.busy", retry_after=1)

    with monkeypatch.context() as patched:
        patched.setattr(Passwords, "verify", busy)
        for _ in range(10):
            assert (await refusal(world.login("ann"))).key == "login.busy"
    await world.login("ann")


async def test_guesses_sent_at_once_count_like_guesses_in_a_row(make_world: MakeWorld) -> None:
    world = await make_world(lockout_failures=3)
    await world.add("ann")
    answers = await asyncio.gather(*(refusal(world.login("ann", "wrong")) for _ in range(20)))
    assert [answer.key for answer in answers].count("login.failed") == 3


async def test_an_address_that_guesses_at_everybody_is_locked(make_world: MakeWorld) -> None:
    world = await make_world(address_failures=5)
    await world.add("ann")
    for n in range(5):
        await refusal(world.login(f"user{n}", "wrong", address="2001:db8::1"))
    assert (await refusal(world.login("ann", address="2001:db8::2"))).key == "login.locked"
    assert (await world.login("ann", address="2001:db8:1::1")).user.username == "ann"


async def test_success_forgives_the_account_and_not_the_address(make_world: MakeWorld) -> None:
    world = await make_world(lockout_failures=3, address_failures=6)
    await world.add("ann")
    for _ in range(2):
        await refusal(world.login("ann", "wrong"))
    for _ in range(10):
        await world.login("ann")
    for _ in range(2):
        await refusal(world.login("ann", "wrong"))
    await world.login("ann")
    await refusal(world.login("bob", "wrong"))
    await refusal(world.login("bob", "wrong"))
    assert (await refusal(world.login("ann"))).key == "login.locked"


async def test_processes_count_together_over_redis(
    make_world: MakeWorld, redis_server: RedisServer
) -> None:
    one = await make_world(lockout_failures=3, redis_url=redis_server.url)
    two = await make_world(lockout_failures=3, redis_url=redis_server.url)
    await one.add("ann")
    for world in (one, two, one):
        assert (await refusal(world.login("ann", "wrong"))).key == "login.failed"
    assert (await refusal(two.login("ann"))).key == "login.locked"
    assert (await two.login("ann", address="192.0.2.9")).user.username == "ann"


async def test_without_redis_each_process_counts_for_itself(
    make_world: MakeWorld, redis_server: RedisServer
) -> None:
    world = await make_world(lockout_failures=2, redis_url=redis_server.url)
    await world.add("ann")
    await world.login("ann")
    redis_server.kill()
    for _ in range(2):
        assert (await refusal(world.login("ann", "wrong"))).key == "login.failed"
    assert (await refusal(world.login("ann"))).key == "login.locked"
    assert (await world.login("ann", address="192.0.2.9")).user.username == "ann"


# --- what is written down -----------------------------------------------------------------------


async def test_logins_and_failures_are_told_without_secrets(world: World) -> None:
    user = await world.add("ann")
    login = await world.login("ann", address="192.0.2.7")
    for _ in range(4):
        await refusal(world.login("ann", "hunter2hunter2", address="192.0.2.8"))
    await refusal(world.login("hunter3hunter3", "x", address="192.0.2.8"))
    told = await world.events(f"user:{user.id}")
    assert told[1:] == [
        (
            "login.succeeded",
            {"actor": user.id, "address": "192.0.2.7", "via": "password"},
        ),
        ("login.failed", {"address": "192.0.2.8", "count": 4}),
    ]
    assert await world.events("sessions") == [
        ("login.failed", {"address": "192.0.2.8", "count": 1})
    ]
    everything = str(told) + str(await world.events("sessions"))
    for secret in ("hunter", PASSWORD, login.cookie, login.access_token, login.refresh_token):
        assert secret not in everything


async def test_failures_are_written_in_one_batch(world: World) -> None:
    failures = world.identity._failures
    for n in range(5000):
        failures.note(f"u{n % 3}", f"192.0.2.{n % 250}")
    assert len(failures._counts) <= 1000
    await failures.flush()
    written = [event for n in range(3) for event in await world.log.read(f"user:u{n}", limit=1000)]
    assert len(written) == 750
