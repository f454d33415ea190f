"""Ingestion: a document's file read, split, embedded and indexed, as a durable workflow.

A document's row commits first, and names the attempt; the workflow's id is made of both. An
attempt replaces all chunks of its document in one unit, and only while the row is still at that
attempt, so a workflow that is carried out twice, or that a later one has overtaken, leaves neither
half a document nor two. Accounts take turns (turns.py), also while a long document is embedded.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import PurePath

from domain.knowledge.bases import key
from domain.knowledge.turns import Turn, Turns
from domain.knowledge.words import indexed
from gateways.documents.parser import DocumentUnreadable, Parser
from gateways.embedding.embedder import Embedder
from gateways.errors import GatewayError
from gateways.workflows import Workflows
from storage.database import Database, NoSuchRow, StorageError
from storage.knowledge import Document, KnowledgeStore, Words
from storage.objects import NoSuchObject, ObjectStore

log = logging.getLogger("quartet.knowledge")

WORKFLOW = "ingestion"
AT_ONCE = 2
"""Documents that one process works on at a time."""
BATCH = 64
"""Chunks embedded before it is looked whether the document is still there, and whose turn it is."""
GRACE_S = 10.0
"""How long a row may be without a workflow before another process starts it."""
RECONCILE_S = 60.0
TOGETHER = 500
REASON_MAX = 500


def suffix_of(name: str) -> str:
    """A document's format by its name: `.pdf`."""
    return PurePath(name).suffix.lower()


class Ingestion:
    """The workflows that documents go through."""

    def __init__(
        self,
        database: Database,
        store: KnowledgeStore,
        objects: Callable[[], ObjectStore],
        workflows: Workflows,
        parser: Parser,
        embedder: Embedder,
    ) -> None:
        self._database = database
        self._store = store
        self._objects = objects
        self._workflows = workflows
        self._parser = parser
        self._embedder = embedder
        self._turns = Turns(AT_ONCE)
        workflows.register(WORKFLOW, self._carry_out)

    async def launch(self, *, alone: bool) -> None:
        """Begin to look after documents that a crash has left; `alone` says that no other process
        can be about to start them. The workflows are launched already."""
        await self.reconcile(grace_s=0 if alone else GRACE_S)
        self._database.in_background(self._reconcile_now_and_then)

    async def start(self, documents: Sequence[Document]) -> None:
        """Begin the attempts that these rows name. What does not begin, reconciling does."""
        for document in documents:
            try:
                await self._workflows.start(WORKFLOW, _workflow_id(document))
            except Exception:
                log.exception("the ingestion of %s did not start", document.id)

    async def reconcile(self, *, grace_s: float = GRACE_S) -> None:
        """Start every unfinished document that has no workflow, and end as failed those whose
        workflow has ended without them."""
        rows = await self._store.unfinished()
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            found = await self._workflows.find([_workflow_id(row) for row in some])
            for row in some:
                workflow = found.get(_workflow_id(row))
                if workflow is None:
                    if time.time() - row.updated_at >= grace_s:
                        await self.start([row])
                elif workflow.ended or workflow.version != self._workflows.version:
                    await self._fail(row, "the server lost it; redo it")

    async def _reconcile_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_S)
            try:
                await self.reconcile()
            except StorageError as error:
                log.warning("reconciling documents failed: %s", error)
            except Exception:
                log.exception("reconciling documents failed")

    async def _carry_out(self, workflow_id: str) -> None:
        """The workflow's body: as often as it is called, one set of chunks."""
        document_id, _, attempt = workflow_id.rpartition(".")
        owner = await self._store.owner_of(document_id)
        if owner is None:
            return
        async with self._turns.of(owner) as turn:
            document = await self._database.write(
                lambda: self._store.begin(document_id, int(attempt))
            )
            if document is None:
                return
            try:
                texts = await self._parser.read(
                    self._content(document), suffix_of(document.name), document.kind
                )
                vectors = await self._embed(document, texts, turn)
            except (DocumentUnreadable, NoSuchObject) as error:
                told = str(error) if isinstance(error, DocumentUnreadable) else "its file is gone"
                await self._fail(document, told)
                return
            except GatewayError as error:
                log.warning("document %s could not be embedded: %s", document.id, error)
                await self._fail(document, "the embedding model does not answer")
                return
            if vectors is None:
                return
            pieces = [
                Words(content, indexed(content), vector)
                for content, vector in zip(texts, vectors, strict=True)
            ]
            try:
                await self._database.write(
                    lambda: self._store.succeed(document, pieces, embedder=self._embedder.name)
                )
            except NoSuchRow:
                log.info("document %s was deleted with its base", document.id)

    async def _embed(
        self, document: Document, texts: Sequence[str], turn: Turn
    ) -> list[bytes] | None:
        """The vectors of a document's chunks; None where it is gone or another attempt has it.
        Between batches others' documents may go before."""
        found: list[bytes] = []
        for first in range(0, len(texts), BATCH):
            if first:
                await turn.pause()
            current = await self._store.document(document.id)
            if current is None or current.attempt != document.attempt:
                return None
            found += await self._embedder.embed(texts[first : first + BATCH])
        return found

    async def _content(self, document: Document) -> AsyncIterator[bytes]:
        opened = await self._objects().open(key(document.base_id, document.id))
        async for part in opened.chunks:
            yield part

    async def _fail(self, document: Document, reason: str) -> None:
        await self._database.write(
            lambda: self._store.fail(document.id, document.attempt, reason[:REASON_MAX])
        )


def _workflow_id(document: Document) -> str:
    return f"{document.id}.{document.attempt}"
