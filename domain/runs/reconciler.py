"""Rows and workflows brought together: no run stays live for ever.

A run's row commits before its workflow is recorded, and the workflow's end is recorded after the
row's. Whatever dies in between is found here: a row without a workflow gets one, a row whose
workflow has ended, or cannot go on in this version, is ended as failed.
"""

import logging
import time

from domain.runs.ending import Endings
from domain.runs.life import WORKFLOW
from gateways.workflows import Workflows
from storage.database import Database
from storage.runs import RunStore, Unfinished

log = logging.getLogger("quartet.runs")

GRACE_S = 10.0
"""How long a row may be without a workflow before somebody else starts it."""
FORGET_S = 3600.0
"""How long workflows of ended runs are kept."""
TOGETHER = 500


class Reconciler:
    """Settles what a crash has left between the rows of runs and their workflows."""

    def __init__(
        self, database: Database, runs: RunStore, endings: Endings, workflows: Workflows
    ) -> None:
        self._database = database
        self._runs = runs
        self._endings = endings
        self._workflows = workflows

    async def reconcile(self, *, grace_s: float = GRACE_S) -> None:
        """Look at every live run once; `grace_s` is 0 where no other process can be about to
        start one."""
        rows = await self._runs.unfinished()
        for first in range(0, len(rows), TOGETHER):
            await self._settle(rows[first : first + TOGETHER], grace_s)
        await self._workflows.forget(time.time() - FORGET_S)

    async def _settle(self, rows: list[Unfinished], grace_s: float) -> None:
        found = await self._workflows.find([row.workflow_id for row in rows])
        for row in rows:
            workflow = found.get(row.workflow_id)
            if workflow is None:
                if time.time() - row.created_at >= grace_s:
                    log.info("run %s had no workflow and is started", row.id)
                    await self._workflows.start(WORKFLOW, row.workflow_id)
            elif workflow.ended:
                await self._fail(row.id, "lost")
            elif workflow.version != self._workflows.version:
                await self._fail(row.id, "outdated")
                await self._workflows.cancel([row.workflow_id])

    async def _fail(self, run_id: str, reason: str) -> None:
        if await self._database.write(lambda: self._endings.fail(run_id, reason)):
            log.warning("run %s was ended: %s", run_id, reason)
