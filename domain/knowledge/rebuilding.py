"""Vectors made anew, from the chunks as they stand, when another embedder makes them.

A base says which embedder made its vectors. Those of another are not looked through: until all are
made anew, passages are found by their words, and by what is made already once a rebuilding ends.
One durable workflow goes through a base, its id made of the base's and of how often it was gone
through; one that ended early, because the embedder does not answer, is followed by another.
"""

import asyncio
import logging

from gateways.embedding.embedder import Embedder
from gateways.errors import GatewayError
from gateways.workflows import Workflows
from storage.database import Database, NoSuchRow, StorageError
from storage.knowledge import KnowledgeStore

log = logging.getLogger("quartet.knowledge")

WORKFLOW = "rebuilding"
RECONCILE_S = 60.0
TOGETHER = 64
"""Chunks embedded and written at once."""


class Rebuilding:
    """The workflows that bases go through."""

    def __init__(
        self,
        database: Database,
        store: KnowledgeStore,
        workflows: Workflows,
        embedder: Embedder,
    ) -> None:
        self._database = database
        self._store = store
        self._workflows = workflows
        self._embedder = embedder
        self._turn = asyncio.Lock()
        workflows.register(WORKFLOW, self._carry_out)

    def launch(self) -> None:
        """Begin to look after bases, in the background. The workflows are launched already."""
        self._database.in_background(self._reconcile_now_and_then)

    async def reconcile(self) -> None:
        """Start a workflow for every base with another embedder's vectors that has none."""
        outdated = await self._store.outdated(self._embedder.name)
        found = await self._workflows.find([f"{base_id}.{count}" for base_id, count in outdated])
        for base_id, count in outdated:
            workflow = found.get(f"{base_id}.{count}")
            if workflow is not None:
                if not workflow.ended and workflow.version == self._workflows.version:
                    continue
                if not await self._again(base_id, count):
                    continue
                count += 1
            await self._workflows.start(WORKFLOW, f"{base_id}.{count}")

    async def _again(self, base_id: str, seen: int) -> bool:
        return await self._database.write(lambda: self._store.rebuild_again(base_id, seen))

    async def _reconcile_now_and_then(self) -> None:
        while True:
            try:
                await self.reconcile()
            except StorageError as error:
                log.warning("looking for outdated vectors failed: %s", error)
            except Exception:
                log.exception("looking for outdated vectors failed")
            await asyncio.sleep(RECONCILE_S)

    async def _carry_out(self, workflow_id: str) -> None:
        """The workflow's body: as often as it is called, it goes on with what is left."""
        base_id = workflow_id.rpartition(".")[0]
        async with self._turn:
            try:
                made = await self._rebuild(base_id)
                await self._database.write(
                    lambda: self._store.rebuilt(base_id, self._embedder.name)
                )
            except GatewayError as error:
                log.warning("the vectors of base %s are not made anew yet: %s", base_id, error)
            except NoSuchRow:
                log.info("base %s was deleted", base_id)
            else:
                log.info("%d vectors of base %s were made anew", made, base_id)

    async def _rebuild(self, base_id: str) -> int:
        name, after, made = self._embedder.name, 0, 0
        while rows := await self._store.unread(base_id, name, after, TOGETHER):
            vectors = await self._embedder.embed([row.content for row in rows])
            numbers = [row.number for row in rows]
            fresh = dict(zip(numbers, vectors, strict=True))
            await self._database.write(
                lambda fresh=fresh: self._store.replace_vectors(fresh, name)  # type: ignore[misc]
            )
            after, made = numbers[-1], made + len(rows)
        return made
