"""A base with documents, over a real database, without the server around it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import requests

from domain.ids import uuid7
from domain.knowledge.words import indexed
from gateways.embedding.minilm import MiniLM
from storage.database import Database
from storage.knowledge import Document, KnowledgeStore, Words
from storage.vectors import Vectors
from tests.serving import environment
from tests.storage.accounts import make_accounts

DIMENSIONS = 384
MADE_BY = "embedder:384"
"""Whose vectors those of these tests are."""
EMBEDDING_KEY = "embedding-key-1"


@pytest.fixture
async def store(database: Database) -> KnowledgeStore:
    await make_accounts(database, "ann", "bob")
    return KnowledgeStore(database)


async def make_base(database: Database, store: KnowledgeStore, owner: str = "ann") -> str:
    base_id = uuid7()
    await database.write(
        lambda: store.create(owner, base_id, "Docs", "rag", "", {}, embedder=MADE_BY)
    )
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
    return await database.write(lambda: store.succeed(claimed, pieces, embedder=MADE_BY))


def index_of(folder: Path, store: KnowledgeStore) -> Vectors:
    """The vectors of MADE_BY, in files of this folder."""
    return Vectors(folder, store, embedder=MADE_BY, dimensions=DIMENSIONS)


def pieces_of(texts: Sequence[str], vectors: Sequence[bytes]) -> list[Words]:
    return [Words(text, indexed(text), vector) for text, vector in zip(texts, vectors, strict=True)]


def embedded(*asked: Sequence[str]) -> list[list[bytes]]:
    """Vectors of several lists of texts, by the real model."""

    async def embed() -> list[list[bytes]]:
        embedder = MiniLM()
        try:
            return [await embedder.embed(texts) for texts in asked]
        finally:
            await embedder.close()

    return asyncio.run(embed())


class Embeddings:
    """The embedding server; `port` stays the same when it comes back."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.knowledge.embedding_server",
            str(self.port),
            EMBEDDING_KEY,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def texts(self, model: str) -> int:
        found: dict[str, int] = requests.get(f"{self.url[:-3]}/calls", timeout=30).json()
        return found.get(model, 0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def settings(self, model: str, **more: str) -> dict[str, str]:
        given = {
            "OUTBOUND_ALLOW": f"embedding=127.0.0.1:{self.port}",
            "EMBEDDING_URL": self.url,
            "EMBEDDING_MODEL": model,
            "EMBEDDING_DIMENSIONS": model.rpartition("-")[2],
            "EMBEDDING_KEY": EMBEDDING_KEY,
        }
        return {**given, **more}


@pytest.fixture
def embeddings() -> Iterator[Embeddings]:
    server = Embeddings()
    yield server
    server.stop()
