"""Password hashing (security 8, 9)."""

import asyncio
import threading

import pytest

from domain.errors import Throttled, Unusable
from domain.identity.passwords import Passwords


def cheap(**fields: int) -> Passwords:
    return Passwords(**{"memory_kib": 64, "passes": 1, **fields})


async def test_only_the_password_that_was_hashed_verifies() -> None:
    passwords = cheap()
    stored = await passwords.hash("password123")
    assert stored.startswith("$argon2id$")
    assert stored != await passwords.hash("password123")
    assert await passwords.verify(stored, "password123") is True
    for wrong in ("password124", "", "password123 ", "PASSWORD123"):
        assert await passwords.verify(stored, wrong) is False
    for broken in (None, "", "plain", "$argon2id$v=19$m=8,t=1,p=1$bad"):
        assert await passwords.verify(broken, "password123") is False


@pytest.mark.parametrize("fits", ["8 chars!", "x" * 128, "密" * 8, "\ud800" * 8])
async def test_what_fits_the_policy_may_be_set(fits: str) -> None:
    passwords = cheap()
    assert await passwords.verify(await passwords.hash(fits), fits) is True


@pytest.mark.parametrize("unfit", ["", "7 chars", "x" * 129, "密" * 7])
async def test_what_does_not_fit_may_not(unfit: str) -> None:
    with pytest.raises(Unusable) as refused:
        await cheap().hash(unfit)
    assert refused.value.details == {"minimum": 8, "maximum": 128}


async def test_a_longer_password_than_a_kilobyte_is_never_hashed() -> None:
    passwords = cheap(longest=100_000)
    with pytest.raises(Unusable):
        await passwords.hash("x" * 1025)
    stored = await passwords.hash("x" * 1024)
    assert await passwords.verify(stored, "x" * 1024) is True
    assert await passwords.verify(stored, "x" * 1025) is False


async def test_nobody_s_password_costs_what_somebody_s_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Equal work, counted rather than timed: one verification at the same costs."""
    from argon2 import PasswordHasher

    passwords = cheap()
    stored = await passwords.hash("password123")
    seen = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, hash_: str, password: bytes) -> bool:
        seen.append(hash_.split("$")[:4])
        return verify(self, hash_, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    assert await passwords.verify(stored, "wrong") is False
    assert await passwords.verify(None, "wrong") is False
    assert seen[0] == seen[1]
    assert len(seen) == 2


async def test_a_flood_is_told_to_come_back_and_the_pool_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passwords = cheap(threads=2, waiting=3)
    gate = threading.Event()
    running = []
    begun = threading.Semaphore(0)

    def wait(*_: object) -> bool:
        running.append(threading.get_ident())
        begun.release()
        return gate.wait(30)

    monkeypatch.setattr(passwords, "_verify", wait)
    held = [asyncio.create_task(passwords.verify(None, "x")) for _ in range(5)]
    await asyncio.sleep(0)
    for _ in range(3):
        with pytest.raises(Throttled) as refused:
            await passwords.verify(None, "x")
        assert (refused.value.key, refused.value.retry_after) == ("login.busy", 1)
    # Callers that lose patience free the places of what had not begun, and only those.
    await asyncio.to_thread(begun.acquire)
    await asyncio.to_thread(begun.acquire)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert len(set(running)) == 2
    again = [asyncio.create_task(passwords.verify(None, "x")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Throttled):
        await passwords.verify(None, "x")
    gate.set()
    assert await asyncio.gather(*again) == [True, True, True]


async def test_a_hash_at_other_costs_is_outdated() -> None:
    stored = await cheap().hash("password123")
    assert cheap().is_outdated(stored) is False
    assert cheap(passes=2).is_outdated(stored) is True
    assert await cheap(passes=2).verify(stored, "password123") is True
