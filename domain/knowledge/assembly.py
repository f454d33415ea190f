"""The parts of knowledge, put together."""

from collections.abc import Callable

import msgspec

from domain.knowledge.bases import KnowledgeBases
from domain.knowledge.documents import Documents
from domain.knowledge.ingestion import Ingestion
from domain.knowledge.retrieval import Retrieval
from gateways.documents.parser import Parser
from gateways.embedding.embedder import Embedder
from gateways.workflows import Workflows
from storage.database import Database
from storage.knowledge import KnowledgeStore
from storage.objects import ObjectStore
from storage.vectors import Vectors


class Knowledge(msgspec.Struct, frozen=True):
    """What `assemble` makes. `ingestion.launch()` begins the work once workflows are launched."""

    bases: KnowledgeBases
    documents: Documents
    retrieval: Retrieval
    ingestion: Ingestion


def assemble(
    database: Database,
    store: KnowledgeStore,
    vectors: Vectors,
    *,
    objects: Callable[[], ObjectStore],
    workflows: Workflows,
    parser: Parser,
    embedder: Embedder,
) -> Knowledge:
    """Knowledge bases over one database. `objects` opens the store of their files, once."""
    bases = KnowledgeBases(database, store, objects, vectors)
    ingestion = Ingestion(database, store, objects, workflows, parser, embedder)
    return Knowledge(
        bases=bases,
        documents=Documents(database, store, objects, bases, ingestion, parser),
        retrieval=Retrieval(store, bases, vectors, embedder),
        ingestion=ingestion,
    )
