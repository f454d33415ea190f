"""A base with documents, over a real database, without the server around it."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from domain.ids import uuid7
from domain.knowledge.words import indexed
from gateways.embedding.embedder import Embedder
from storage.database import Database
from storage.knowledge import Document, KnowledgeStore, Words
from tests.storage.accounts import make_accounts


@pytest.fixture
async def store(database: Database) -> KnowledgeStore:
    await make_accounts(database, "ann", "bob")
    return KnowledgeStore(database)


async def make_base(database: Database, store: KnowledgeStore, owner: str = "ann") -> str:
    base_id = uuid7()
    await database.write(lambda: store.create(owner, base_id, "Docs", "rag", "", {}))
    return base_id


def waiting(base_id: str, name: str = "a.md", task_id: str = "task") -> Document:
    """A document's row as an upload makes it."""
    now = time.time()
    return Document(uuid7(), base_id, task_id, name, "file", 10, "waiting", None, 1, 0, now, now)


async def ingest(
    database: Database, store: KnowledgeStore, document: Document, pieces: Sequence[Words]
) -> bool:
    """Carry out the attempt that a row names."""
    claimed = await database.write(lambda: store.begin(document.id, document.attempt))
    assert claimed is not None
    return await database.write(lambda: store.succeed(claimed, pieces))


def pieces_of(texts: Sequence[str], vectors: Sequence[bytes]) -> list[Words]:
    return [Words(text, indexed(text), vector) for text, vector in zip(texts, vectors, strict=True)]


def embedded(*asked: Sequence[str]) -> list[list[bytes]]:
    """Vectors of several lists of texts, by the real model."""

    async def embed() -> list[list[bytes]]:
        embedder = Embedder()
        try:
            return [await embedder.embed(texts) for texts in asked]
        finally:
            await embedder.close()

    return asyncio.run(embed())
