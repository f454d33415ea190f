"""(e) Knowledge: ingestion by the real workflows, and retrieval among 100,000 chunks."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from domain.caller import Caller
from domain.ids import uuid7
from domain.knowledge.assembly import Knowledge, assemble
from domain.knowledge.documents import File
from gateways.documents.parser import Parser
from gateways.embedding.embedder import DIMENSIONS, Embedder
from gateways.workflows import JobsPlace, Workflows
from scripts.benchmarks.processes import ROOT
from scripts.benchmarks.tables import Table
from storage.database import Database
from storage.knowledge import Document, KnowledgeStore, Words
from storage.migrating import migrate
from storage.objects import open_objects
from storage.opening import open_database
from storage.schema import users
from storage.vectors import Vectors

ANN = Caller(user_id="ann", role="admin")
DOCUMENTS = 100
CHUNKS = 100_000
TOGETHER = 2000
QUESTIONS = 300
TEXTS = 256
SENTENCES = (ROOT / "tests/knowledge/evaluation/passages.txt").read_text().splitlines()


def run() -> list[Table]:
    """The table of bench (e)."""
    return [asyncio.run(_run())]


async def _run() -> Table:
    table = Table(
        "(e) Knowledge",
        ["figure", "value"],
        note=f"{DOCUMENTS} Markdown documents of about 2.5 kB, four chunks each, 20 to an upload, "
        "parsed in processes of their own, embedded and indexed, two at a time, over SQLite. "
        f"Retrieval: top 10 of one base of {CHUNKS:,} chunks with random words and vectors, "
        "without the question's own embedding, one at a time.",
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        await migrate("", data)
        database = await open_database("", data)
        try:
            await _account(database)
            await _ingestion(table, database, data)
            await _retrieval(table, database, data)
        finally:
            await database.close()
    return table


async def _account(database: Database) -> None:
    from sqlalchemy import insert

    from storage.database import Statement, Unit

    add = Statement(insert(users))

    def unit() -> Unit[None]:
        yield add(
            id="ann", username="ann", username_key="ann", role="admin", status="active",
            config={}, created_at=0.0, updated_at=0.0, version=1,
        )  # fmt: skip

    await database.write(unit)


def _document(number: int, chance: random.Random) -> bytes:
    told = [chance.choice(SENTENCES) for _ in range(28)]
    paragraphs = [" ".join(told[first : first + 7]) for first in range(0, 28, 7)]
    return f"# Document {number}\n\n".encode() + "\n\n".join(paragraphs).encode()


def _file(name: str, content: bytes) -> File:
    async def read() -> AsyncIterator[bytes]:
        yield content

    return File(name, len(content), read)


async def _ingestion(table: Table, database: Database, data: Path) -> None:
    chance = random.Random(1)
    contents = [_document(number, chance) for number in range(DOCUMENTS)]
    embedder = Embedder()
    workflows = Workflows(JobsPlace.beside(data), "bench")
    store, objects = KnowledgeStore(database), open_objects("", data)
    knowledge: Knowledge = assemble(
        database,
        store,
        Vectors(data / "vectors", store),
        objects=lambda: objects,
        workflows=workflows,
        parser=Parser(),
        embedder=embedder,
    )
    await workflows.launch()
    try:
        texts = [content.decode()[:600] for content in contents[:TEXTS]]
        await embedder.embed(texts[:16])
        begun = time.perf_counter()
        await embedder.embed(texts)
        embedding = len(texts) / (time.perf_counter() - begun)
        base_id = await knowledge.bases.create(ANN, name="bench", type_="rag")
        begun = time.perf_counter()
        for first in range(0, DOCUMENTS, 20):
            files = [_file(f"{number}.md", contents[number]) for number in range(first, first + 20)]
            await knowledge.documents.add(ANN, base_id, files, override=False)
        taken = time.perf_counter() - begun
        while await store.unfinished():  # noqa: ASYNC110 (progress is rows, as for clients)
            await asyncio.sleep(0.1)
        seconds = time.perf_counter() - begun
    finally:
        await workflows.close()
        await embedder.close()
    size = sum(map(len, contents))
    table.rows += [
        ["uploads taken", f"{DOCUMENTS / taken:.0f} documents/s"],
        ["ingestion", f"{DOCUMENTS / seconds:.1f} documents/s, {size / seconds / 1e6:.3f} MB/s"],
        ["embedding alone, texts of 600 characters", f"{embedding:.0f} texts/s"],
    ]


class _Synthetic:
    """Vectors without a model."""

    def __init__(self) -> None:
        self._chance = numpy.random.default_rng(2)

    def vectors(self, count: int) -> list[bytes]:
        made = self._chance.standard_normal((count, DIMENSIONS), dtype=numpy.float32)
        made /= numpy.linalg.norm(made, axis=1, keepdims=True)
        return [row.tobytes() for row in made]

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        return self.vectors(len(texts))


async def _retrieval(table: Table, database: Database, data: Path) -> None:
    chance, synthetic = random.Random(3), _Synthetic()
    store = KnowledgeStore(database)
    base_id = uuid7()
    await database.write(lambda: store.create("ann", base_id, "large", "rag", "", {}))
    for first in range(0, CHUNKS, TOGETHER):
        await _fill(database, store, base_id, f"{first}.md", _pieces(chance, synthetic))
    objects: Any = None
    knowledge = assemble(
        database,
        store,
        Vectors(data / "large", store),
        objects=objects,
        workflows=Workflows(JobsPlace.beside(data), "bench"),
        parser=Parser(),
        embedder=synthetic,  # type: ignore[arg-type]
    )
    begun = time.perf_counter()
    await knowledge.retrieval.search([base_id], "word1", 10)
    built = time.perf_counter() - begun
    taken = []
    for _ in range(QUESTIONS):
        query = " ".join(f"word{chance.randrange(20_000)}" for _ in range(6))
        begun = time.perf_counter()
        found = await knowledge.retrieval.search([base_id], query, 10)
        taken.append((time.perf_counter() - begun) * 1000)
        assert len(found) == 10
    p99 = statistics.quantiles(taken, n=100)[98]
    table.rows += [
        [f"retrieval among {CHUNKS:,} chunks, p50", f"{statistics.median(taken):.1f} ms"],
        [f"retrieval among {CHUNKS:,} chunks, p99", f"{p99:.1f} ms"],
        [f"vector file of {CHUNKS:,} rows made from them", f"{built:.1f} s"],
    ]


def _pieces(chance: random.Random, synthetic: _Synthetic) -> list[Words]:
    texts = [
        " ".join(f"word{chance.randrange(20_000)}" for _ in range(40)) for _ in range(TOGETHER)
    ]
    vectors = synthetic.vectors(TOGETHER)
    return [Words(text, text, vector) for text, vector in zip(texts, vectors, strict=True)]


async def _fill(
    database: Database, store: KnowledgeStore, base_id: str, name: str, pieces: list[Words]
) -> None:
    now = time.time()
    row = Document(uuid7(), base_id, "task", name, "file", 1, "processing", None, 1, 0, now, now)
    await database.write(lambda: store.add([row], override=False))
    await database.write(lambda: store.succeed(row, pieces))
