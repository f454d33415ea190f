"""Durable workflows on DBOS Transact, in a database of their own beside ours.

A workflow's body is called again from its start after a crash. What it is about, and how far it
is, lives in our rows: it is started with an id alone, and reads there what is left to do. DBOS's
own steps would record the same a second time, at 4 ms each.

    jobs = Workflows(JobsPlace.beside(data), executor="embedded")
    jobs.register("run", body)              # before launch; async def body(id: str) -> None
    await jobs.launch()                     # also takes up what this executor left unfinished
    await jobs.start("run", run_id)         # starting an id twice starts it once

DBOS keeps one instance per process, so there is one Workflows per process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from sqlalchemy import Engine

APPLICATION = "quartet"
VERSION = "1"
"""Raised only when a body cannot go on from older rows. DBOS's default, a hash of the source, would
leave every older run pending after an upgrade."""

SCHEMA = "jobs"
"""Where DBOS keeps its tables on PostgreSQL."""

PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON")
UNHURRIED = "SET synchronous_commit = off"
"""NORMAL and off: a power cut may take the latest records along, and none of them is needed. A
workflow without its record is started again by its id, and what its steps did stands in rows of
ours."""

THREADS = 16
"""DBOS reads and writes its database in threads, and makes its pool the loop's default executor."""

SETTLE_S = 1.0
"""How long closing waits for workflows that end at this moment."""

LISTEN_S = 0.2
"""Nothing here waits for notifications; closing waits for the thread that looks for them."""

RECOVERIES = 20
"""A workflow that was taken up so often and never ended is given up (dead letter)."""

ENDED = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})

Body = Callable[[str], Awaitable[None]]


class JobsPlace(msgspec.Struct, frozen=True):
    """Where the workflows are recorded: an SQLAlchemy URL of a SQLite file or of PostgreSQL."""

    url: str

    @classmethod
    def beside(cls, data: Path) -> "JobsPlace":
        """The embedded default: `jobs.sqlite` in the data directory."""
        return cls(f"sqlite:///{(data / 'jobs.sqlite').absolute()}")

    @property
    def embedded(self) -> bool:
        return self.url.startswith("sqlite")

    def engine(self) -> "Engine":
        """An engine of ours: DBOS's own SQLite engine has no WAL."""
        from sqlalchemy import create_engine, event

        if self.embedded:
            engine, prepare = create_engine(self.url), _prepare_sqlite
        else:
            engine = create_engine(self.url, pool_size=8, max_overflow=0, pool_pre_ping=True)
            prepare = _prepare_postgresql
        event.listen(engine, "connect", prepare)
        return engine


class Workflow(msgspec.Struct, frozen=True):
    """What is recorded of one workflow. `status` is DBOS's word; `ended` whether it is final."""

    id: str
    status: str
    executor: str
    version: str

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Workflows:
    """The durable workflows of this process.

    `executor` names the process: unique among live processes (two with one name repeat each
    other's steps) and, where a restart shall take up its own work, the same as before.
    """

    def __init__(self, place: JobsPlace, executor: str, version: str = VERSION) -> None:
        self._place = place
        self._executor = executor
        self.version = version
        self._bodies: dict[str, Body] = {}
        self._registered: dict[str, Callable[..., Any]] = {}
        self._engine: Engine | None = None
        self._dbos: Any = None
        self._instance: Any = None

    def register(self, name: str, body: Body) -> None:
        """Make `body` known under `name`. A recorded workflow finds its body by that name."""
        self._bodies[name] = body

    async def launch(self) -> None:
        """Open the record and take up what this executor left unfinished."""
        import dbos

        logging.getLogger("dbos").propagate = True
        self._dbos = dbos
        self._engine = self._place.engine()
        self._instance = dbos.DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": self._place.url,
                "system_database_engine": self._engine,
                "dbos_system_schema": SCHEMA,
                "application_version": self.version,
                "executor_id": self._executor,
                "use_listen_notify": False,
                "max_executor_threads": THREADS,
                "notification_listener_polling_interval_sec": LISTEN_S,
                "log_level": "ERROR",
            }
        )
        for name, body in self._bodies.items():
            self._registered[name] = dbos.DBOS.workflow(
                name=name, max_recovery_attempts=RECOVERIES
            )(_named(name, body))
        dbos.DBOS.launch()

    async def start(self, name: str, workflow_id: str) -> None:
        """Begin a workflow in this process and return at once. An id that is known already,
        running or ended, is left as it is."""
        with self._dbos.SetWorkflowID(workflow_id):
            await self._dbos.DBOS.start_workflow_async(self._registered[name], workflow_id)

    async def find(self, ids: Sequence[str]) -> dict[str, Workflow]:
        """The records of those of the ids that have one."""
        if not ids:
            return {}
        return {w.id: w for w in await self._list(workflow_ids=list(ids))}

    async def adopt(self, executors: Sequence[str]) -> int:
        """Hand the unfinished workflows of dead executors to whoever is alive; their number."""
        recover = self._dbos.DBOS._recover_pending_workflows
        return len(await asyncio.to_thread(recover, list(executors)))

    async def cancel(self, ids: Sequence[str]) -> None:
        """Mark workflows as not to be taken up again."""
        if ids:
            await self._dbos.DBOS.cancel_workflows_async(list(ids))

    async def outdated(self) -> list[Workflow]:
        """Unfinished workflows of another version: nobody will take them up."""
        unfinished = await self._list(status=["PENDING", "ENQUEUED"])
        return [w for w in unfinished if w.version != self.version]

    async def forget(self, before: float, limit: int = 500) -> int:
        """Delete records of workflows that ended before a time (epoch seconds); their number."""
        stamp = datetime.fromtimestamp(before, UTC).isoformat()
        ended = await self._list(status=sorted(ENDED), completed_before=stamp, limit=limit)
        if ended:
            await self._dbos.DBOS.delete_workflows_async([w.id for w in ended])
        return len(ended)

    async def close(self) -> None:
        """Stop taking work; what runs is left to recovery."""
        if self._dbos is None:
            return
        await self._settle()
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(THREADS)
        await loop.run_in_executor(pool, self._destroy)
        loop.set_default_executor(pool)
        self._dbos = None

    async def _settle(self) -> None:
        """Let workflows that are about to end have their end recorded, and cancel the others:
        DBOS would leave their tasks behind, and records nothing of a cancelled one."""
        tasks = list(self._instance._workflow_tasks)
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=SETTLE_S)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    def _destroy(self) -> None:
        self._dbos.DBOS.destroy(destroy_registry=True)
        if self._engine is not None:
            self._engine.dispose()

    async def _list(self, **filters: Any) -> list[Workflow]:
        found = await self._dbos.DBOS.list_workflows_async(
            load_input=False, load_output=False, **filters
        )
        return [
            Workflow(w.workflow_id, w.status, w.executor_id or "", w.app_version or "")
            for w in found
        ]


def _named(name: str, body: Body) -> Callable[[str], Awaitable[None]]:
    """A function of its own for DBOS to register: it may be decorated once per process life."""

    async def workflow(workflow_id: str) -> None:
        await body(workflow_id)

    workflow.__name__ = workflow.__qualname__ = name
    return workflow


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    connection.execute(UNHURRIED)
    connection.commit()
