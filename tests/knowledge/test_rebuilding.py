"""Rebuilding on every database, with a real embedding server that goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.knowledge.rebuilding import Rebuilding
from gateways.embedding.openai_compatible import RemoteEmbedder
from gateways.outbound import Outbound
from gateways.workflows import JobsPlace, Workflows
from storage.database import Database
from storage.knowledge import KnowledgeStore
from storage.vectors import Vectors
from tests.knowledge.conftest import (
    DIMENSIONS,
    EMBEDDING_KEY,
    Embeddings,
    ingest,
    make_base,
    pieces_of,
    waiting,
)

DONE_S = 60.0
MODEL = "anew-256"
TEXTS = [f"The {number}th passage." for number in range(150)]


class Place:
    """A rebuilding that waits to be told to look."""

    def __init__(self, database: Database, folder: Path, embeddings: Embeddings) -> None:
        self.outbound = Outbound(["embedding=127.0.0.1"])
        self.store = KnowledgeStore(database)
        self.workflows = Workflows(JobsPlace.beside(folder), "here")
        self.embedder = RemoteEmbedder(self.outbound, embeddings.url, MODEL, 256, EMBEDDING_KEY)
        self.rebuilding = Rebuilding(database, self.store, self.workflows, self.embedder)

    async def ended(self, base_id: str, count: int) -> str:
        """How the base's workflow of that number has ended, once it has."""
        workflow_id = f"{base_id}.{count}"
        async with asyncio.timeout(DONE_S):
            while True:
                found = (await self.workflows.find([workflow_id]))[workflow_id]
                if found.ended:
                    return found.status
                await asyncio.sleep(0.01)


@pytest.fixture
async def place(database: Database, tmp_path: Path, embeddings: Embeddings) -> AsyncIterator[Place]:
    place = Place(database, tmp_path, embeddings)
    await place.workflows.launch()
    yield place
    await place.workflows.close()
    await place.outbound.close()


async def test_a_rebuilding_that_failed_is_followed_by_another(
    database: Database,
    store: KnowledgeStore,
    tmp_path: Path,
    embeddings: Embeddings,
    place: Place,
) -> None:
    base_id = await make_base(database, store)
    document = waiting(base_id)
    await database.write(lambda: store.add([document], override=False))
    old = [bytes(4 * DIMENSIONS)] * len(TEXTS)
    assert await ingest(database, store, document, pieces_of(TEXTS, old))

    embeddings.stop()
    await place.rebuilding.reconcile()
    assert await place.ended(base_id, 0) == "SUCCESS"
    name = place.embedder.name
    assert await store.outdated(name) == [(base_id, 0)]
    assert len(await store.unread(base_id, name, 0, 1000)) == len(TEXTS)

    embeddings.start()
    await place.rebuilding.reconcile()
    assert await place.ended(base_id, 1) == "SUCCESS"
    assert await store.outdated(name) == []
    assert embeddings.texts(MODEL) == len(TEXTS)
    index = Vectors(tmp_path, store, embedder=name, dimensions=256)
    wanted = await place.embedder.embed_question(TEXTS[140])
    ((number, similarity),) = await index.nearest(base_id, wanted, 1)
    assert [chunk.content for chunk in await store.chunks([number])] == [TEXTS[140]]
    assert similarity == pytest.approx(1.0, abs=1e-4)

    await place.rebuilding.reconcile()
    assert await place.workflows.find([f"{base_id}.2"]) == {}, "there is nothing left to do"


async def test_a_base_that_is_deleted_meanwhile_ends_it(
    database: Database, store: KnowledgeStore, place: Place
) -> None:
    base_id = await make_base(database, store)
    await place.workflows.start("rebuilding", f"{base_id}.0")
    await database.write(lambda: store.delete(base_id))
    assert await place.ended(base_id, 0) == "SUCCESS"
