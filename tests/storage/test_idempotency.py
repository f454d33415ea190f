"""A key is claimed once, its effect happens once, its answer is repeated."""

import asyncio
import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, func, insert, select

from storage.database import Database, Statement, Unit
from storage.idempotency import (
    KEPT_S,
    LEASE_S,
    SECRET_KEPT_S,
    Answer,
    AnswerLost,
    Claim,
    ClaimLost,
    IdempotencyStore,
    InProgress,
    Mismatch,
    RunStarted,
    Scope,
    attached,
    tell_run,
)
from storage.schema import idempotency, leases

SCOPE = Scope("ada", "agent_create", "", "key-1")
ANSWER = Answer(200, (("Content-Type", "application/json"),), '{"name":"Zoë"}'.encode())
NOW = 1_000_000.0

ADD = Statement(insert(leases))
COUNT = Statement(select(func.count()).select_from(leases))
BODIES = Statement(select(idempotency.c.body).where(idempotency.c.key == bindparam("which")))


def store_over(database: Database) -> IdempotencyStore:
    return IdempotencyStore(
        database,
        seal=lambda body: "sealed " + base64.b64encode(body).decode(),
        unseal=lambda text: base64.b64decode(text.removeprefix("sealed ")),
    )


@pytest.fixture
def store(database: Database) -> IdempotencyStore:
    return store_over(database)


async def begin(
    store: IdempotencyStore,
    holder: str = "first",
    *,
    scope: Scope = SCOPE,
    fingerprint: str = "same",
    now: float = NOW,
) -> Any:
    return await store.begin(scope, fingerprint, holder=holder, now=now)


async def act(database: Database, name: str) -> None:
    def unit() -> Unit[None]:
        yield ADD(name=name, holder="", until=0.0)

    await database.write(unit)


async def acts(database: Database) -> int:
    rows = await database.read(COUNT())
    return rows[0][0]


async def test_a_finished_request_is_repeated_with_the_types_it_had(
    store: IdempotencyStore, database: Database
) -> None:
    claim = await begin(store)
    assert type(claim) is Claim
    with attached(claim):
        await act(database, "a")
    await store.finish(claim, ANSWER, now=NOW)
    again = await begin(store, "second", now=NOW + KEPT_S - 1)
    assert again == ANSWER
    assert type(again.status) is int
    assert type(again.body) is bytes
    assert type(again.headers[0]) is tuple


async def test_keys_belong_to_a_user_an_operation_and_a_path(store: IdempotencyStore) -> None:
    scopes = [
        SCOPE,
        Scope("eve", "agent_create", "", "key-1"),
        Scope("ada", "agent_update", "", "key-1"),
        Scope("ada", "agent_create", "agent_id=1", "key-1"),
        Scope("ada", "agent_create", "x" * 600, "key-1"),
        Scope("ada", "agent_create", "x" * 599 + "y", "key-1"),
        Scope("ada", "agent_create", "", "key-2"),
    ]
    for scope in scopes:
        assert type(await begin(store, scope=scope)) is Claim
    for scope in scopes:
        assert type(await begin(store, "second", scope=scope)) is InProgress


async def test_another_request_under_the_key_is_refused_whatever_became_of_it(
    store: IdempotencyStore,
) -> None:
    claim = await begin(store)
    assert await begin(store, "second", fingerprint="other") == Mismatch()
    assert await begin(store, "second", fingerprint="other", now=NOW + LEASE_S) == Mismatch()
    await store.finish(claim, ANSWER, now=NOW)
    assert await begin(store, "second", fingerprint="other") == Mismatch()
    assert type(await begin(store, "second", fingerprint="other", now=NOW + KEPT_S)) is Claim


async def test_of_50_at_once_one_acts(store: IdempotencyStore) -> None:
    outcomes = await asyncio.gather(*(begin(store, f"holder {i}") for i in range(50)))
    assert sum(type(outcome) is Claim for outcome in outcomes) == 1
    assert sum(type(outcome) is InProgress for outcome in outcomes) == 49


async def test_a_dead_holders_claim_is_taken_over_after_its_lease(
    store: IdempotencyStore, database: Database
) -> None:
    stalled = await begin(store)
    assert await begin(store, "second", now=NOW + LEASE_S - 1) == InProgress(NOW + LEASE_S)
    heir = await begin(store, "second", now=NOW + LEASE_S)
    assert type(heir) is Claim
    with attached(stalled), pytest.raises(ClaimLost):
        await act(database, "stalled")
    with pytest.raises(ClaimLost):
        await store.finish(stalled, ANSWER, now=NOW + LEASE_S)
    with attached(heir):
        await act(database, "heir")
    assert await acts(database) == 1


async def test_a_living_holder_renews(store: IdempotencyStore) -> None:
    claim = await begin(store)
    await store.renew(NOW + 40)
    assert await begin(store, "second", now=NOW + 99) == InProgress(NOW + 40 + LEASE_S)
    await store.abandon(claim)
    await store.renew(NOW + 80)
    assert type(await begin(store, "second", now=NOW + 99)) is Claim


async def test_a_failure_without_effect_frees_the_key(store: IdempotencyStore) -> None:
    await store.abandon(await begin(store))
    assert type(await begin(store, "second")) is Claim


async def test_a_failure_after_the_effect_does_not(
    store: IdempotencyStore, database: Database
) -> None:
    claim = await begin(store)
    with attached(claim):
        await act(database, "a")
    await store.abandon(claim)
    assert await begin(store, "second") == AnswerLost()


async def test_a_unit_that_fails_marks_nothing(store: IdempotencyStore, database: Database) -> None:
    def unit() -> Unit[None]:
        yield ADD(name="a", holder="", until=0.0)
        raise LookupError

    claim = await begin(store)
    with attached(claim), pytest.raises(LookupError):
        await database.write(unit)
    assert not claim.took_effect
    await store.abandon(claim)
    assert type(await begin(store, "second")) is Claim


async def test_several_units_of_one_request_all_count(
    store: IdempotencyStore, database: Database
) -> None:
    claim = await begin(store)
    with attached(claim):
        await asyncio.gather(*(act(database, f"a{i}") for i in range(5)))
        await act(database, "b")
    assert await acts(database) == 6
    assert claim.took_effect


async def test_a_run_is_known_from_the_commit_that_began_it(
    store: IdempotencyStore, database: Database
) -> None:
    claim = await begin(store)
    with attached(claim):
        tell_run("run-1")
        assert type(await begin(store, "second")) is InProgress
        await act(database, "run-1")
    assert await begin(store, "second") == RunStarted("run-1")
    store.leave(claim)
    assert await begin(store, "second", now=NOW + LEASE_S) == RunStarted("run-1")


async def test_telling_a_run_without_a_key_does_nothing(database: Database) -> None:
    tell_run("run-1")
    await act(database, "a")
    assert await acts(database) == 1


async def test_what_a_request_leaves_behind_is_not_its_effect(
    store: IdempotencyStore, database: Database
) -> None:
    claim = await begin(store)
    with attached(claim):
        release = asyncio.Event()

        async def later() -> None:
            await release.wait()
            await act(database, "later")

        task = asyncio.create_task(later())
    await store.abandon(claim)
    release.set()
    await task
    assert type(await begin(store, "second")) is Claim


async def test_a_secret_is_sealed_and_shown_for_ten_minutes(
    store: IdempotencyStore, database: Database
) -> None:
    claim = await begin(store)
    await store.finish(claim, ANSWER, now=NOW, shows_secret=True)
    (kept,) = await database.read(BODIES(which="key-1"))
    assert kept[0].startswith("sealed ")
    assert await begin(store, "second", now=NOW + SECRET_KEPT_S - 1) == ANSWER
    assert await begin(store, "second", now=NOW + SECRET_KEPT_S) == AnswerLost()
    assert await store.sweep(NOW + SECRET_KEPT_S) == 0
    assert await database.read(BODIES(which="key-1")) == [(None,)]
    assert await begin(store, "second", now=NOW + SECRET_KEPT_S) == AnswerLost()


async def test_keys_are_forgotten_after_a_day(store: IdempotencyStore) -> None:
    await store.finish(await begin(store), ANSWER, now=NOW)
    assert await store.sweep(NOW + KEPT_S - 1) == 0
    assert await store.sweep(NOW + KEPT_S) == 1
    assert type(await begin(store, "second")) is Claim


CRASH = """
import asyncio, os, pathlib, sys
from storage.opening import open_database
from tests.storage.test_idempotency import act, begin, store_over
from storage.idempotency import attached

async def main(url, data, moment):
    database = await open_database(url, pathlib.Path(data))
    claim = await begin(store_over(database))
    with attached(claim):
        if moment == "after":
            await act(database, "a")
        else:
            def unit():
                from tests.storage.test_idempotency import ADD
                yield ADD(name="a", holder="", until=0.0)
                os.kill(os.getpid(), 9)
            await database.write(unit)
    os.kill(os.getpid(), 9)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("moment", ["within", "after"])
async def test_a_crash_leaves_the_effect_and_its_mark_or_neither(
    moment: str, database: Database, database_url: str, data: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CRASH, database_url, data, moment), stderr=subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == -9, errors.decode()
    store = store_over(database)
    assert await begin(store, "second") == InProgress(NOW + LEASE_S)
    outcome = await begin(store, "second", now=NOW + LEASE_S)
    if moment == "after":
        assert await acts(database) == 1
        assert outcome == AnswerLost()
    else:
        assert await acts(database) == 0
        assert type(outcome) is Claim
