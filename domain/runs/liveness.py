"""Which processes live, and who takes over from the dead.

Every process of a distributed deployment beats. One of them holds the leader's lease: it hands the
workflows of processes whose heart has stopped to the living, and reconciles rows and workflows.
Embedded there is one process, which the lock on the data directory makes sure of.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable

import msgspec

from domain.runs.life import Runs
from domain.runs.reconciler import Reconciler
from gateways.workflows import Workflows
from storage.database import Database, StorageError
from storage.processes import ProcessStore

log = logging.getLogger("quartet.runs")

LEADER = "leader"
EMBEDDED = "embedded"
"""The process id of an embedded server: the same at every start, so that it takes up its own."""


class Pace(msgspec.Struct, frozen=True):
    """Seconds between beats, between looks for runs that others have ended, and between
    reconciliations. A process that has not beaten for `dead_s` is dead; if it comes back, its runs
    are another's."""

    beat_s: float = 2.0
    dead_s: float = 10.0
    halt_s: float = 1.0
    reconcile_s: float = 60.0


class Liveness:
    """The heart of this process, and the leader's work where it leads."""

    def __init__(
        self,
        database: Database,
        processes: ProcessStore,
        runs: Runs,
        reconciler: Reconciler,
        workflows: Workflows,
        process_id: str,
        pace: Pace,
    ) -> None:
        self._database = database
        self._processes = processes
        self._runs = runs
        self._reconciler = reconciler
        self._workflows = workflows
        self._id = process_id
        self._pace = pace
        self._alone = process_id == EMBEDDED
        self._closing = False

    async def launch(self) -> None:
        """Begin to carry out runs, first of all those that an earlier life left unfinished."""
        if not self._alone:
            await self._processes.beat(self._id, socket.gethostname())
        await self._workflows.launch()
        if self._alone:
            await self._reconciler.reconcile(grace_s=0)
            self._database.in_background(self._reconcile_now_and_then)
            return
        await self._lead(reconcile=True)
        self._database.in_background(self._beat)
        self._database.in_background(self._halt)

    async def close(self) -> None:
        """End the runs that stop with their clients, leave the others to recovery, and go."""
        self._closing = True
        await self._runs.drain()
        await self._workflows.close()
        if not self._alone:
            await self._processes.release(LEADER, self._id)

    async def _reconcile_now_and_then(self) -> None:
        while not self._closing:
            await asyncio.sleep(self._pace.reconcile_s)
            await _tried("reconciling", self._reconciler.reconcile())

    async def _beat(self) -> None:
        reconciled_at = time.monotonic()
        while not self._closing:
            await asyncio.sleep(self._pace.beat_s)
            due = time.monotonic() - reconciled_at >= self._pace.reconcile_s
            await _tried("the heartbeat", self._processes.beat(self._id, socket.gethostname()))
            await _tried("leading", self._lead(reconcile=due))
            if due:
                reconciled_at = time.monotonic()

    async def _halt(self) -> None:
        """Notice that another process has ended a run that is carried out here."""
        while not self._closing:
            await asyncio.sleep(self._pace.halt_s)
            await _tried("looking at runs", self._runs.halt_ended())

    async def _lead(self, *, reconcile: bool) -> None:
        if not await self._processes.take(LEADER, self._id, self._pace.dead_s):
            return
        now = time.time()
        dead = [
            process.id
            for process in await self._processes.list_all()
            if process.id != self._id and now - process.beat_at > self._pace.dead_s
        ]
        if dead:
            adopted = await self._workflows.adopt(dead)
            log.warning("took over %d workflows of %s", adopted, ", ".join(dead))
            await self._reconciler.reconcile()
            await self._processes.remove(dead)
        elif reconcile:
            await self._reconciler.reconcile()


async def _tried(what: str, work: Awaitable[None]) -> None:
    """Await work that is tried again anyway; a store that does not answer ends nothing."""
    try:
        await work
    except StorageError as error:
        log.warning("%s failed: %s", what, error)
    except Exception:
        log.exception("%s failed", what)
