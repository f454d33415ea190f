"""Rows in one SQLite file.

Short reads run on the event loop over one kept connection: a thread hop costs more than the query.
The connection is `query_only` and autocommit, and every read fetches all its rows at once, so it
never holds a read transaction (which would keep the checkpoint from shrinking the WAL). Writes go
to one thread, which commits whatever has queued up as one transaction with `synchronous=FULL`:
many callers share one fsync and one wake-up of the loop. Scans run in a small pool of threads.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from sqlalchemy.dialects import sqlite as sqlalchemy_sqlite

from storage.background import Background
from storage.compiled import compiled
from storage.constraints import unique_name
from storage.database import (
    AfterCommit,
    Bound,
    Duplicate,
    Orphan,
    StorageError,
    StorageFull,
    StorageUnavailable,
    T,
    Unit,
)
from storage.units import closed_by, refuse

log = logging.getLogger("quartet.storage")

DIALECT = sqlalchemy_sqlite.dialect(paramstyle="qmark")
GROUP = 256
"""Most units that share one transaction."""

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_REFUSED = (sqlite3.Error, OverflowError, UnicodeEncodeError)
"""What the driver raises: the latter two for values that no column can hold."""
_UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}


def connect(path: Path, *, reader: bool, busy_ms: int = 5000) -> sqlite3.Connection:
    """A connection with this project's pragmas.

    Raises StorageUnavailable when the file cannot be opened or is not a database.
    """
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        connection.execute(f"PRAGMA busy_timeout={busy_ms}")
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA temp_store=MEMORY")
        if reader:
            connection.execute("PRAGMA query_only=ON")
    except sqlite3.Error as error:
        raise StorageUnavailable(f"cannot open {path.name}: {error}") from error
    return connection


class SqliteDatabase:
    """storage.database.Database over one SQLite file. Made in the event loop that will use it."""

    dialect = "sqlite"

    def __init__(self, path: Path, *, scanners: int = 2) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._writer = _Writer(connect(path, reader=False), self._loop)
        self._reader = connect(path, reader=True, busy_ms=1000)
        self._scanners = ThreadPoolExecutor(scanners, "quartet-scan")
        self._scan_connections: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._background = Background()

    async def read(self, bound: Bound) -> list[Any]:
        try:
            rows: list[Any] = _execute(self._reader, bound)
        except _REFUSED as error:
            raise _translated(error, reading=True) from error
        return rows

    async def read_one(self, bound: Bound) -> Any | None:
        rows = await self.read(bound)
        return rows[0] if rows else None

    async def scan(self, bound: Bound) -> list[Any]:
        try:
            return await self._loop.run_in_executor(self._scanners, self._scan, bound)
        except _REFUSED as error:
            raise _translated(error, reading=True) from error
        except RuntimeError as error:
            raise StorageUnavailable("the database is closed") from error

    def _scan(self, bound: Bound) -> list[Any]:
        try:
            connection = self._scan_connections.get_nowait()
        except Empty:
            connection = connect(self._path, reader=True)
        try:
            rows: list[Any] = _execute(connection, bound)
        finally:
            self._scan_connections.put(connection)
        return rows

    async def write(self, unit: Callable[[], Unit[T]]) -> T:
        return await self._writer.submit(closed_by(unit))

    def in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        self._background.start(work)

    async def close(self) -> None:
        await self._background.close()
        await self._loop.run_in_executor(None, self._writer.close)
        await self._loop.run_in_executor(None, self._scanners.shutdown)
        while not self._scan_connections.empty():
            self._scan_connections.get_nowait().close()
        self._reader.close()


class _Job:
    """A unit that waits for its turn, and what came of it."""

    __slots__ = ("callbacks", "error", "future", "result", "unit")

    def __init__(self, unit: Callable[[], Unit[Any]], future: asyncio.Future[Any]) -> None:
        self.unit = unit
        self.future = future
        self.reset()

    def reset(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.callbacks: list[Callable[[], None]] = []


class _TransactionLost(Exception):
    """SQLite rolled the whole group back under a failing unit (disk full, I/O error)."""


class _Writer:
    """The one thread that writes."""

    def __init__(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="quartet-writer", daemon=True)
        self._thread.start()

    async def submit(self, unit: Callable[[], Unit[T]]) -> T:
        if self._closed:
            raise StorageUnavailable("the database is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(unit, future))
        return await future

    def close(self) -> None:
        """Finish what is queued, then end the thread. Called off the loop."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            jobs = [self._queue.get()]
            while jobs[-1] is not None and len(jobs) < GROUP:
                try:
                    jobs.append(self._queue.get_nowait())
                except Empty:
                    break
            last = jobs[-1] is None
            # A caller that left before its unit began has asked for nothing.
            group = [job for job in jobs if job is not None and not job.future.cancelled()]
            if group:
                try:
                    self._commit(group)
                except BaseException as error:
                    log.exception("the writer failed")
                    with suppress(sqlite3.Error):
                        self._connection.rollback()
                    _fail(group, StorageUnavailable(str(error)))
                with suppress(RuntimeError):  # the loop has ended: nobody waits
                    self._loop.call_soon_threadsafe(_settle, group)
        self._connection.close()

    def _commit(self, group: list[_Job]) -> None:
        """Run and commit a group; every job has its result or its error afterwards."""
        connection = self._connection
        pending = group
        while pending:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                _fail(pending, _translated(error))
                return
            single = len(pending) == 1
            try:
                for job in pending:
                    self._run_one(job, single)
            except _TransactionLost:
                # The units before the culprit were undone with it: run them again without it.
                pending = [job for job in pending if job.error is None]
                for job in pending:
                    job.reset()
                continue
            try:
                connection.execute("COMMIT" if connection.in_transaction else "SELECT 1")
            except sqlite3.Error as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                _fail([job for job in pending if job.error is None], _translated(error))
            return

    def _run_one(self, job: _Job, single: bool) -> None:
        connection = self._connection
        if not single:
            connection.execute("SAVEPOINT unit")
        try:
            job.result = _drive(connection, job.unit(), job.callbacks)
        except BaseException as error:
            job.error = error
            job.callbacks = []
            if not connection.in_transaction:
                raise _TransactionLost from None
            connection.execute("ROLLBACK" if single else "ROLLBACK TO unit")
            if single:
                return
        if not single:
            connection.execute("RELEASE unit")


def _drive(
    connection: sqlite3.Connection, unit: Unit[Any], callbacks: list[Callable[[], None]]
) -> Any:
    """Run a unit to its end and return what it returns."""
    answer: Any = None
    try:
        while True:
            bound = unit.send(answer)
            if isinstance(bound, AfterCommit):
                callbacks.append(bound.callback)
                answer = None
                continue
            try:
                answer = _execute(connection, bound)
            except _REFUSED as error:
                refuse(unit, _translated(error))
    except StopIteration as end:
        return end.value


def _execute(connection: sqlite3.Connection, bound: Bound) -> Any:
    """The rows of a statement that returns rows, else the number of rows it changed."""
    parameters = bound.parameters
    if isinstance(parameters, list):
        return _execute_many(connection, bound, parameters)
    statement = compiled(bound, DIALECT, parameters)
    sql, arguments = statement.arguments(parameters)
    cursor = connection.execute(sql, arguments)
    description = cursor.description
    if description is None:
        return cursor.rowcount
    return statement.rows(cursor.fetchall(), lambda: [None] * len(description))


def _execute_many(connection: sqlite3.Connection, bound: Bound, rows: list[Any]) -> Any:
    if not rows:
        return 0
    statement = compiled(bound, DIALECT, rows[0])
    if statement.returns_rows or statement.expands:
        answers = [_execute(connection, Bound(bound.statement, row)) for row in rows]
        if statement.returns_rows:
            return [record for answer in answers for record in answer]
        return sum(answers)
    return connection.executemany(
        statement.sql, [statement.arguments(row)[1] for row in rows]
    ).rowcount


def _settle(group: list[_Job]) -> None:
    """On the loop: callbacks of what has committed, then the callers."""
    for job in group:
        for callback in job.callbacks:
            try:
                callback()
            except Exception:
                log.exception("a callback after a commit failed")
    for job in group:
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)


def _fail(jobs: list[_Job], error: StorageError) -> None:
    for job in jobs:
        job.result, job.callbacks, job.error = None, [], error


def _translated(error: Exception, *, reading: bool = False) -> StorageError:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # of Python's making
        closed = isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error)
        return StorageUnavailable(str(error)) if closed else StorageError(str(error))
    if code in _UNIQUE:
        return Duplicate(_constraint(str(error)))
    if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return Orphan()
    if code & 0xFF in _FULL and not reading:
        return StorageFull(str(error))
    if code & 0xFF in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH):
        return StorageError(str(error))
    return StorageUnavailable(str(error))


def _constraint(message: str) -> str:
    """`UNIQUE constraint failed: agents.owner_id, agents.name` → `uq_agents_owner_name`."""
    columns = [part.partition(".") for part in message.partition(": ")[2].split(", ")]
    return unique_name(columns[0][0], frozenset(column for _, _, column in columns))
