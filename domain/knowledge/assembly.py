"""The parts of knowledge, put together."""

from collections.abc import Callable

import msgspec

from domain.knowledge.bases import KnowledgeBases
from domain.knowledge.documents import Documents
from domain.knowledge.ingestion import Ingestion
from domain.knowledge.rebuilding import Rebuilding
from domain.knowledge.retrieval import Retrieval
from domain.quota import Quota
from gateways.documents.parser import Parser
from gateways.embedding.embedder import Embedder
from gateways.workflows import Workflows
from storage.database import Database
from storage.knowledge import KnowledgeStore
from storage.objects import ObjectStore
from storage.vectors import Vectors


class Knowledge(msgspec.Struct, frozen=True):
    """What `assemble` makes."""

    bases: KnowledgeBases
    documents: Documents
    retrieval: Retrieval
    ingestion: Ingestion
    rebuilding: Rebuilding

    async def launch(self, *, alone: bool) -> None:
        """Begin the work, once workflows are launched; `alone` says that no other process works
        on the same rows."""
        await self.ingestion.launch(alone=alone)
        self.bases.launch()
        self.rebuilding.launch()


def assemble(
    database: Database,
    store: KnowledgeStore,
    vectors: Vectors,
    *,
    objects: Callable[[], ObjectStore],
    workflows: Workflows,
    parser: Parser,
    embedder: Embedder,
    quota: Quota,
) -> Knowledge:
    """Knowledge bases over one database. `objects` opens the store of their files, once."""
    bases = KnowledgeBases(database, store, objects, vectors, embedder=embedder.name)
    ingestion = Ingestion(database, store, objects, workflows, parser, embedder)
    return Knowledge(
        bases=bases,
        documents=Documents(database, store, objects, bases, ingestion, parser, quota),
        retrieval=Retrieval(store, bases, vectors, embedder),
        ingestion=ingestion,
        rebuilding=Rebuilding(database, store, workflows, embedder),
    )
