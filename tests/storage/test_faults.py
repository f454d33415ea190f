"""What is acknowledged is kept, and what fails says why and leaves nothing."""

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import bindparam, delete, func, insert, select, text, update

from storage.database import (
    AfterCommit,
    Database,
    Statement,
    StorageFull,
    StorageUnavailable,
    Unit,
)
from storage.opening import open_database
from storage.schema import leases, settings
from storage.units import WentOn

ROOT = Path(__file__).parents[2]
ADD = Statement(insert(settings))
KEYS = Statement(select(settings.c.key).order_by(settings.c.key))
SIZE = Statement(select(func.sum(func.length(settings.c.value))))
EMPTY = Statement(delete(settings))
HOLD = Statement(update(leases).where(leases.c.name == bindparam("which")).values(holder="x"))
SLEEP = Statement(text("SELECT pg_sleep(0.3)"))
CAP = Statement(text("PRAGMA max_page_count = 400"))
UNCAP = Statement(text("PRAGMA max_page_count = 1000000000"))


def add(key: str, size: int = 1) -> Unit[str]:
    yield ADD(key=key, value="x" * size, updated_at=1.0)
    return key


def once(statement: Statement, **parameters: Any) -> Unit[Any]:
    return (yield statement(**parameters))


async def keys(database: Database) -> list[str]:
    return [key for (key,) in await database.read(KEYS())]


# --- crashes --------------------------------------------------------------------------------------

WRITERS = """
import asyncio, os, pathlib, sys
from storage.opening import open_database
from tests.storage.test_faults import add

async def main(url, data):
    database = await open_database(url, pathlib.Path(data))
    async def writer(w):
        for i in range(100000):
            key = await database.write(lambda: add(f"{w}-{i}"))
            os.write(1, (key + "\\n").encode())
    await asyncio.gather(*(writer(w) for w in range(20)))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_after_kill_9_every_acknowledged_row_is_there(
    database: Database, database_url: str, data: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITERS, database_url, data),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    seen = [await process.stdout.readline() for _ in range(500)]
    os.kill(process.pid, signal.SIGKILL)
    seen += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    acknowledged = {line.decode().strip() for line in seen if line.endswith(b"\n")}
    assert len(acknowledged) >= 500
    kept = set(await keys(database))
    assert acknowledged <= kept
    # Of the 20 writers each may have had one write on its way.
    assert len(kept - acknowledged) <= 20


# --- no space -------------------------------------------------------------------------------------


async def test_a_full_file_refuses_what_does_not_fit_and_takes_what_does(data: Path) -> None:
    database = await open_database("", data)
    await database.write(lambda: once(CAP))
    outcomes = await asyncio.gather(
        *(
            database.write(lambda i=i: add(f"{i:03}", 5_000_000 if i == 7 else 10))
            for i in range(20)
        ),
        return_exceptions=True,
    )
    assert isinstance(outcomes[7], StorageFull)
    fitting = [f"{i:03}" for i in range(20) if i != 7]
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == fitting
    assert await keys(database) == fitting
    await database.write(lambda: once(UNCAP))
    await database.write(lambda: add("large", 5_000_000))
    assert await keys(database) == [*fitting, "large"]
    await database.close()


FULL = """
import asyncio, os, pathlib, resource, sys
from storage.database import StorageFull
from storage.opening import open_database
from tests.storage.test_faults import add, keys

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(data):
    database = await open_database("", pathlib.Path(data))
    limit(2_000_000)
    acknowledged, refused = [], []
    for group in range(100):
        writes = [database.write(lambda i=i: add(f"{group}-{i}", 20_000)) for i in range(10)]
        for outcome in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(outcome, StorageFull):
                refused.append(outcome)
            else:
                acknowledged.append(outcome)
        if refused:
            break
    assert len(refused) == 10, refused
    assert sorted(await keys(database)) == sorted(acknowledged)
    limit(resource.RLIM_INFINITY)
    acknowledged.append(await database.write(lambda: add("again")))
    assert sorted(await keys(database)) == sorted(acknowledged)
    print(*acknowledged)
    sys.stdout.flush()
    os._exit(0)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_disk_that_fills_up_fails_the_group_and_loses_nothing(data: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FULL, data),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    database = await open_database("", data)
    assert await keys(database) == sorted(output.decode().split())
    await database.close()


async def test_a_full_postgresql_refuses_writes_and_answers_reads(
    postgres: Database, database_url: str
) -> None:
    await postgres.write(lambda: add("before"))
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )
        admin.execute(
            "CREATE TRIGGER full_disk BEFORE INSERT ON settings"
            " FOR EACH ROW EXECUTE FUNCTION no_space()"
        )
        try:
            with pytest.raises(StorageFull):
                await postgres.write(lambda: add("refused"))
            assert await keys(postgres) == ["before"]
        finally:
            admin.execute("DROP FUNCTION no_space CASCADE")
    await postgres.write(lambda: add("after"))
    assert await keys(postgres) == ["after", "before"]


# --- a broken driver ------------------------------------------------------------------------------


def disconnect(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_reads_outlive_a_restart_of_postgresql(postgres: Database, database_url: str) -> None:
    await postgres.write(lambda: add("a"))
    await asyncio.gather(*(keys(postgres) for _ in range(10)))
    for _ in range(2):
        await asyncio.to_thread(disconnect, database_url)
        assert await asyncio.gather(*(keys(postgres) for _ in range(10))) == [["a"]] * 10


async def test_a_write_cut_off_keeps_nothing_and_the_next_one_works(
    postgres: Database, database_url: str
) -> None:
    called: list[str] = []

    def unit() -> Unit[None]:
        yield from add("cut off")
        yield AfterCommit(lambda: called.append("callback"))
        yield SLEEP()

    writing = asyncio.create_task(postgres.write(unit))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(disconnect, database_url)
    with pytest.raises(StorageUnavailable):
        await writing
    assert await keys(postgres) == []
    assert called == []
    await postgres.write(lambda: add("next"))
    assert await keys(postgres) == ["next"]


async def test_a_deadlock_is_run_again(postgres: Database) -> None:
    def seed() -> Unit[None]:
        yield Statement(insert(leases)).many(
            [{"name": name, "holder": "", "until": 0.0} for name in "ab"]
        )

    await postgres.write(seed)
    begun: list[str] = []

    def unit(first: str, second: str) -> Unit[str]:
        begun.append(first)
        yield HOLD(which=first)
        yield SLEEP()
        yield HOLD(which=second)
        return first

    outcomes = await asyncio.gather(
        postgres.write(lambda: unit("a", "b")), postgres.write(lambda: unit("b", "a"))
    )
    assert outcomes == ["a", "b"]
    assert len(begun) == 3


async def test_no_postgresql_is_unavailable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    from storage.postgres import PostgresDatabase

    with pytest.raises(StorageUnavailable):
        await PostgresDatabase.open(f"postgresql://postgres@127.0.0.1:{port}/x", timeout=0.5)


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "quartet.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageUnavailable):
        await open_database("", tmp_path)


async def test_other_urls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        await open_database("mysql://localhost/x", tmp_path)


# --- how a unit may behave ------------------------------------------------------------------------


async def test_a_unit_may_not_go_on_after_a_failure(database: Database) -> None:
    await database.write(lambda: add("a"))

    def returns() -> Unit[None]:
        yield from add("b")
        try:
            yield from add("a")
        except Exception:
            return

    def continues() -> Unit[None]:
        try:
            yield from add("a")
        except Exception:
            yield from add("c")

    for unit in (returns, continues):
        with pytest.raises(WentOn):
            await database.write(unit)
    assert await keys(database) == ["a"]


async def test_a_unit_may_say_what_a_failure_means(database: Database) -> None:
    def unit() -> Unit[None]:
        yield from add("b")
        try:
            yield from add("a")
        except Exception as error:
            raise LookupError("taken") from error

    await database.write(lambda: add("a"))
    with pytest.raises(LookupError, match="taken"):
        await database.write(unit)
    assert await keys(database) == ["a"]


async def test_a_caller_that_leaves_tears_nothing_apart(database: Database) -> None:
    called: list[str] = []

    def unit(key: str) -> Unit[None]:
        yield from add(key)
        yield from add(key + "'")
        yield AfterCommit(lambda: called.append(key))

    writing = [asyncio.create_task(database.write(lambda i=i: unit(f"{i:02}"))) for i in range(40)]
    for i, task in enumerate(writing):
        if i % 4 == 0:
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    await database.write(lambda: add("last"))
    await asyncio.sleep(0.05)
    kept = (await keys(database))[:-1]
    assert kept == sorted(key for name in called for key in (name, name + "'"))


async def test_a_failing_callback_is_logged_and_the_write_stands(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise LookupError("callback")

    def unit() -> Unit[str]:
        yield AfterCommit(fail)
        return (yield from add("a"))

    assert await database.write(unit) == "a"
    assert "callback" in caplog.text


async def test_writes_given_before_close_are_kept_and_later_ones_refused(
    database_url: str, data: Path
) -> None:
    database = await open_database(database_url, data)
    writing = [asyncio.create_task(database.write(lambda i=i: add(f"{i:02}"))) for i in range(30)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*writing) == [f"{i:02}" for i in range(30)]
    for attempt in (database.write(lambda: add("late")), keys(database), database.scan(KEYS())):
        with pytest.raises(StorageUnavailable):
            await attempt
    again = await open_database(database_url, data)
    assert len(await keys(again)) == 30
    await again.close()


async def test_background_work_runs_until_close_and_its_failure_is_logged(
    database_url: str, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = await open_database(database_url, data)
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("forever")

    async def failing() -> None:
        raise LookupError("in the background")

    with caplog.at_level(logging.ERROR):
        database.in_background(forever)
        database.in_background(failing)
        await asyncio.sleep(0.01)
    assert "in the background" in caplog.text
    assert ended == []
    await database.close()
    assert ended == ["forever"]


async def test_reads_on_the_loop_never_keep_the_wal_from_shrinking(data: Path) -> None:
    database = await open_database("", data)
    for i in range(100):
        await database.write(lambda i=i: add(f"{i}", 200_000))
        await database.read(SIZE())
        await database.scan(KEYS())
    assert (data / "quartet.sqlite-wal").stat().st_size < 8_000_000
    await database.close()


async def test_readers_cannot_write(database: Database) -> None:
    await database.write(lambda: add("a"))
    for reading in (database.read(EMPTY()), database.scan(EMPTY())):
        with pytest.raises(StorageUnavailable):
            await reading
    assert await keys(database) == ["a"]
