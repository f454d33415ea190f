"""Rows in PostgreSQL, over psycopg.

Reads run in autocommit on a pooled connection, which may not write: one round trip. Statements are
prepared at their second use on a connection. Pipelines are left alone: they cost as much CPU, and
psycopg 3.3 loses track of statements that were being prepared when a pipeline aborts.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, errors
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import Dialect

from storage.background import Background
from storage.compiled import compiled
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

DIALECT: Dialect = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
ATTEMPTS = 8
"""How often a unit runs when it deadlocks or cannot be serialized."""

_REFUSED = (psycopg.Error, UnicodeEncodeError)
"""What the driver raises: the latter for a text that no column can hold."""
_BUSY = (errors.SerializationFailure, errors.DeadlockDetected)
_Connection = AsyncConnection[tuple[Any, ...]]


class PostgresDatabase:
    """storage.database.Database over PostgreSQL. Opened in the event loop that will use it."""

    dialect = "postgresql"

    def __init__(self, pool: AsyncConnectionPool[_Connection]) -> None:
        self._pool = pool
        self._background = Background()
        self._writes: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(
        cls, url: str, *, connections: int = 10, timeout: float = 10.0
    ) -> "PostgresDatabase":
        """A database over at most `connections` connections; `timeout` in seconds bounds the wait
        for one, at start and later. Raises StorageUnavailable."""
        pool: AsyncConnectionPool[_Connection] = AsyncConnectionPool(
            driver_url(url),
            kwargs={
                "autocommit": True,
                "cursor_factory": AsyncRawCursor,
                "prepare_threshold": 1,
                "connect_timeout": max(2, int(timeout)),
            },
            min_size=min(2, connections),
            max_size=connections,
            timeout=timeout,
            configure=_configure,
            open=False,
            name="quartet",
        )
        try:
            await pool.open(wait=True, timeout=timeout)
        except (psycopg.Error, PoolTimeout) as error:
            await pool.close()
            raise StorageUnavailable("PostgreSQL does not answer") from error
        return cls(pool)

    async def read(self, bound: Bound) -> list[Any]:
        try:
            return await self._read(bound)
        except StorageUnavailable:
            # The connection may have died while it lay idle; a read can be asked again.
            return await self._read(bound)

    async def _read(self, bound: Bound) -> list[Any]:
        connection = await self._take()
        try:
            rows: list[Any] = await _execute(connection, bound)
        except _REFUSED as error:
            raise self._translated(error) from error
        finally:
            await self._pool.putconn(connection)
        return rows

    async def read_one(self, bound: Bound) -> Any | None:
        rows = await self.read(bound)
        return rows[0] if rows else None

    async def scan(self, bound: Bound) -> list[Any]:
        return await self.read(bound)

    async def write(self, unit: Callable[[], Unit[T]]) -> T:
        # A task of its own: a caller that leaves does not tear a transaction apart, and what has
        # committed runs its callbacks.
        task = asyncio.create_task(self._write(closed_by(unit)))
        self._writes.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have left: nobody else asks for it

    async def _write(self, unit: Callable[[], Unit[T]]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            callbacks: list[Callable[[], None]] = []
            connection = await self._take()
            try:
                result = await _transaction(connection, unit(), callbacks)
            except _BUSY as error:
                if attempt == ATTEMPTS:
                    raise StorageUnavailable("the transaction met others too often") from error
            except psycopg.Error as error:
                raise self._translated(error) from error
            else:
                _call(callbacks)
                return result
            finally:
                await self._pool.putconn(connection)
            await asyncio.sleep(random.uniform(0, 0.005 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")

    async def _take(self) -> _Connection:
        try:
            return await self._pool.getconn()
        except (PoolTimeout, PoolClosed, TooManyRequests) as error:
            raise StorageUnavailable("no connection to PostgreSQL") from error

    def _translated(self, error: Exception) -> StorageError:
        translated = _translated(error)
        if isinstance(translated, StorageUnavailable):
            # Other idle connections have probably died with it: replace those that have.
            self._background.start(self._pool.check)
        return translated

    def in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        self._background.start(work)

    async def close(self) -> None:
        await self._background.close()
        if self._writes:
            await asyncio.wait(self._writes)
        await self._pool.close()


async def _configure(connection: _Connection) -> None:
    """Reads may not write; a unit's transaction says READ WRITE."""
    await connection.execute("SET default_transaction_read_only = on")
    await connection.set_read_only(False)


def driver_url(url: str) -> str:
    """The URL as libpq reads it: SQLAlchemy's `postgresql+psycopg://` names the driver too."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


async def _transaction(
    connection: _Connection, unit: Unit[T], callbacks: list[Callable[[], None]]
) -> T:
    """Run a unit in a transaction; whatever it raises rolls back and comes out.

    psycopg sends BEGIN before the first statement and COMMIT by itself, for half of what the two
    cost as statements.
    """
    await connection.set_autocommit(False)
    try:
        result = await _drive(connection, unit, callbacks)
        await connection.commit()
    except BaseException:
        unit.close()
        with suppress(psycopg.Error):  # a dead connection has rolled back already
            await connection.rollback()
        raise
    finally:
        if not connection.broken:
            await connection.set_autocommit(True)
    return result


async def _drive(connection: _Connection, unit: Unit[T], callbacks: list[Callable[[], None]]) -> T:
    answer: Any = None
    try:
        while True:
            bound = unit.send(answer)
            if isinstance(bound, AfterCommit):
                callbacks.append(bound.callback)
                answer = None
                continue
            try:
                answer = await _execute(connection, bound)
            except _BUSY:
                raise
            except _REFUSED as error:
                refuse(unit, _translated(error))
    except StopIteration as end:
        result: T = end.value
        return result


async def _execute(connection: _Connection, bound: Bound) -> Any:
    """The rows of a statement that returns rows, else the number of rows it changed."""
    parameters = bound.parameters
    if isinstance(parameters, list):
        return await _execute_many(connection, bound, parameters)
    statement = compiled(bound, DIALECT, parameters)
    cursor = await connection.execute(*statement.arguments(parameters))
    description = cursor.description
    if description is None:
        return cursor.rowcount
    rows = await cursor.fetchall()
    return statement.rows(rows, lambda: [column.type_code for column in description])


async def _execute_many(connection: _Connection, bound: Bound, rows: list[Any]) -> Any:
    if not rows:
        return 0
    if len(rows) == 1:  # executemany would open a pipeline for it
        return await _execute(connection, Bound(bound.statement, rows[0]))
    statement = compiled(bound, DIALECT, rows[0])
    if statement.returns_rows or statement.expands:
        answers = [await _execute(connection, Bound(bound.statement, row)) for row in rows]
        if statement.returns_rows:
            return [record for answer in answers for record in answer]
        return sum(answers)
    cursor = connection.cursor()
    await cursor.executemany(statement.sql, [statement.arguments(row)[1] for row in rows])
    return cursor.rowcount


def _call(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            log.exception("a callback after a commit failed")


def _translated(error: Exception) -> StorageError:
    if not isinstance(error, psycopg.Error):
        return StorageError(str(error))
    if isinstance(error, errors.UniqueViolation):
        return Duplicate(error.diag.constraint_name or "")
    if isinstance(error, errors.ForeignKeyViolation):
        return Orphan()
    state = error.sqlstate or ""
    if state == "53100":
        return StorageFull(str(error))
    # Connection, resources, shutdown, cancelled by the operator, read-only standby; the driver's
    # own OperationalError has no state.
    lost = not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if lost or state[:2] in ("08", "53", "57", "58") or state == "25006":
        return StorageUnavailable(str(error))
    return StorageError(str(error))
