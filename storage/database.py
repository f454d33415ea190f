"""The one interface through which everything reads and writes rows.

A **statement** is a SQLAlchemy Core construct, compiled once per dialect. A **unit of work** is a
generator: it yields bound statements and receives their results, so the same unit runs in a
writer thread over SQLite and on an async PostgreSQL connection without knowing either. Units are
composed with `yield from`, which is how a row and the events that tell of it commit together.

    def rename(owner: str, agent_id: str, name: str) -> Unit[Agent]:
        found = yield RENAME(owner=owner, agent_id=agent_id, name=name, now=time.time())
        if not found:
            raise NoSuchRow("agent")
        yield from log.append(f"agent:{agent_id}", [Event("agent.renamed", {"name": name})])
        return found[0]

    agent = await db.write(lambda: rename(owner, agent_id, name))
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy.sql.expression import Executable

T = TypeVar("T")


class Bound(msgspec.Struct, frozen=True, gc=False):
    """A statement with its parameters: one mapping, or a list of them to execute many times."""

    statement: "Statement"
    parameters: Mapping[str, Any] | list[Mapping[str, Any]]


class Statement:
    """A SQLAlchemy Core construct, compiled once per dialect by the executors.

    `construct` is one executable, or one per dialect where the dialects differ
    (`{"sqlite": …, "postgresql": …}`). Rows come back as `into(*columns)`, or as tuples when
    `into` is None; a one-column row is still a tuple.
    """

    __slots__ = ("_constructs", "compiled", "into")

    def __init__(
        self,
        construct: Executable | Mapping[str, Executable],
        into: Callable[..., Any] | None = None,
    ) -> None:
        self._constructs = construct
        self.into = into
        self.compiled: dict[str, Any] = {}

    def construct(self, dialect: str) -> Executable:
        """The construct for a dialect name ("sqlite", "postgresql")."""
        if isinstance(self._constructs, Mapping):
            return self._constructs[dialect]
        return self._constructs

    def __call__(self, **parameters: Any) -> Bound:
        return Bound(self, parameters)

    def many(self, rows: list[Mapping[str, Any]]) -> Bound:
        """The statement executed once per mapping, in one call to the driver."""
        return Bound(self, rows)


class AfterCommit(msgspec.Struct, frozen=True):
    """Yielded by a unit: `callback` runs on the event loop once the unit has committed."""

    callback: Callable[[], None]


Unit = Generator[Bound | AfterCommit, Any, T]
"""A unit of work. `yield bound` gives the list of rows if the statement returns rows (SELECT,
RETURNING), else the number of rows it changed. `yield AfterCommit(f)` gives None.

A statement that fails raises its StorageError at the `yield`, so that a unit can say what it means
by raising an error of its own. It must not go on afterwards (a PostgreSQL transaction is dead by
then): what may collide uses `ON CONFLICT`."""


class StorageError(Exception):
    """The store could not do it. Subclasses say why."""


class Duplicate(StorageError):
    """A unique constraint refused the row; `constraint` names it as storage/schema.py does, on
    both databases ("uq_agents_owner_name")."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


class Orphan(StorageError):
    """A foreign key refused the row: what it belongs to does not exist (any more)."""


class NoSuchRow(StorageError):
    """The row a store was asked for does not exist for that owner; the argument names the noun."""


class StorageFull(StorageError):
    """The disk or the database is out of space. Nothing of the unit was kept."""


class StorageUnavailable(StorageError):
    """The database does not answer."""


class Database(Protocol):
    """Rows over SQLite or PostgreSQL. Every method may raise StorageUnavailable."""

    dialect: str

    async def read(self, bound: Bound) -> list[Any]:
        """Rows of one short indexed SELECT. SQLite: on the loop; PostgreSQL: in autocommit."""

    async def read_one(self, bound: Bound) -> Any | None:
        """The first row of `read`, or None."""

    async def scan(self, bound: Bound) -> list[Any]:
        """Rows of a SELECT that may scan (search, exports): never on the event loop."""

    async def write(self, unit: Callable[[], Unit[T]]) -> T:
        """Run one unit of work in a transaction of its own and return what it returns.

        All or nothing; acknowledged means durable (SQLite `synchronous=FULL`). Whatever the unit
        raises rolls it back and comes out of here. On PostgreSQL a serialization failure or a
        deadlock runs a fresh unit again, so `unit` makes a new generator at every call.
        Raises Duplicate, StorageFull.
        """

    def in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        """Keep a coroutine running until close; its failure is logged, never lost."""

    async def close(self) -> None: ...
