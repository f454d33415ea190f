"""(e) Knowledge: ingestion by the real workflows, and retrieval among 100,000 chunks."""

import asyncio
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy

from domain.caller import Caller
from domain.ids import uuid7
from domain.knowledge.assembly import Knowledge, assemble
from domain.knowledge.documents import File
from domain.quota import Quota
from gateways.documents.parser import Parser
from gateways.embedding.embedder import Embedder
from gateways.embedding.minilm import DIMENSIONS, MiniLM
from gateways.workflows import JobsPlace, Workflows
from scripts.benchmarks.database import SERVER, administer
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
TEXTS = 100
LIMIT_S = 300.0
"""One database takes under a minute on a machine at rest; what takes longer than this is stuck."""
Figures = dict[str, str]
SENTENCES = (ROOT / "tests/knowledge/evaluation/passages.txt").read_text().splitlines()


def run() -> list[Table]:
    """The table of bench (e)."""
    name = f"quartet_bench_{uuid.uuid4().hex[:12]}"
    sqlite = asyncio.run(_run(""))
    administer(f"CREATE DATABASE {name}")
    try:
        postgresql = asyncio.run(_run(f"{SERVER}/{name}"))
    finally:
        administer(f"DROP DATABASE {name} WITH (FORCE)")
    return [
        Table(
            "(e) Knowledge",
            ["figure", "SQLite", "PostgreSQL"],
            [[figure, value, postgresql[figure]] for figure, value in sqlite.items()],
            note=f"{DOCUMENTS} Markdown documents of about 2.5 kB, four chunks each, 20 to an "
            "upload, parsed in processes of their own, embedded and indexed, two at a time. "
            f"Retrieval: top 10 of one base of {CHUNKS:,} chunks with random words and vectors, "
            "without the question's own embedding, one at a time.",
        )
    ]


async def _run(url: str) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        await migrate(url, data)
        database = await open_database(url, data)
        try:
            async with asyncio.timeout(LIMIT_S):
                await _account(database)
                return {
                    **await _embedding(),
                    **await _ingestion(database, data / "model", MiniLM(), "by the embedded model"),
                    **await _ingestion(database, data / "made", Synthetic(), "with made vectors"),
                    **await _retrieval(database, data / "large"),
                }
        finally:
            await database.close()


async def _embedding() -> Figures:
    embedder = MiniLM()
    texts = [_document(number, random.Random(1)).decode()[:600] for number in range(TEXTS)]
    try:
        await embedder.embed(texts[:16])
        begun = time.perf_counter()
        await embedder.embed(texts)
        taken = time.perf_counter() - begun
    finally:
        await embedder.close()
    return {"embedding alone, texts of 600 characters": f"{TEXTS / taken:.0f} texts/s"}


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


async def _ingestion(database: Database, data: Path, embedder: Embedder, how: str) -> Figures:
    data.mkdir()
    chance = random.Random(1)
    contents = [_document(number, chance) for number in range(DOCUMENTS)]
    workflows, parser = Workflows(JobsPlace.beside(data), "bench"), Parser()
    store = KnowledgeStore(database)
    knowledge = _knowledge(database, data, embedder, workflows, parser)
    await workflows.launch()
    try:
        await embedder.embed_question("A process that starts with the first text.")
        base_id = await knowledge.bases.create(ANN, name="bench", type_="rag")
        begun = time.perf_counter()
        for first in range(0, DOCUMENTS, 20):
            files = [_file(f"{number}.md", contents[number]) for number in range(first, first + 20)]
            await knowledge.documents.add(ANN, base_id, files, override=False)
        taken = time.perf_counter() - begun
        while await store.unfinished():  # noqa: ASYNC110 (progress is rows, as for clients)
            await asyncio.sleep(0.1)
        seconds = time.perf_counter() - begun
        listed, _, _ = await knowledge.documents.page(
            ANN, base_id, name="", states=["succeeded"], task_id="", page=1, size=DOCUMENTS
        )
    finally:
        await workflows.close()
        await parser.close()
        await embedder.close()
    if len(listed) != DOCUMENTS:
        raise RuntimeError(f"{len(listed)} of {DOCUMENTS} documents were ingested")
    size = sum(map(len, contents))
    return {
        f"uploads taken, {how}": f"{DOCUMENTS / taken:.0f} documents/s",
        f"ingestion, {how}": (
            f"{DOCUMENTS / seconds:.1f} documents/s, {size / seconds / 1e6:.3f} MB/s"
        ),
    }


def _knowledge(
    database: Database, data: Path, embedder: Embedder, workflows: Workflows, parser: Parser
) -> Knowledge:
    store, objects = KnowledgeStore(database), open_objects("", data)
    vectors = Vectors(
        data / "vectors", store, embedder=embedder.name, dimensions=embedder.dimensions
    )
    return assemble(
        database,
        store,
        vectors,
        objects=lambda: objects,
        workflows=workflows,
        parser=parser,
        embedder=embedder,
        quota=Quota(0),
    )


class Synthetic:
    """Vectors without a model."""

    name = "synthetic"
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self._chance = numpy.random.default_rng(2)

    def vectors(self, count: int) -> list[bytes]:
        made = self._chance.standard_normal((count, DIMENSIONS), dtype=numpy.float32)
        made /= numpy.linalg.norm(made, axis=1, keepdims=True)
        return [row.tobytes() for row in made]

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        return self.vectors(len(texts))

    async def embed_question(self, text: str) -> bytes:
        return self.vectors(1)[0]

    async def close(self) -> None:
        """There is nothing to let go of."""


async def _retrieval(database: Database, data: Path) -> Figures:
    data.mkdir()
    chance, synthetic = random.Random(3), Synthetic()
    store = KnowledgeStore(database)
    base_id = uuid7()
    await database.write(
        lambda: store.create("ann", base_id, "large", "rag", "", {}, embedder=synthetic.name)
    )
    for first in range(0, CHUNKS, TOGETHER):
        await _fill(database, store, base_id, f"{first}.md", _pieces(chance, synthetic))
    workflows = Workflows(JobsPlace.beside(data), "bench")
    retrieval = _knowledge(database, data, synthetic, workflows, Parser()).retrieval
    begun = time.perf_counter()
    await retrieval.search([base_id], "word1", 10)
    built = time.perf_counter() - begun
    taken = []
    for _ in range(QUESTIONS):
        query = " ".join(f"word{chance.randrange(20_000)}" for _ in range(6))
        begun = time.perf_counter()
        passages = await retrieval.search([base_id], query, 10)
        taken.append((time.perf_counter() - begun) * 1000)
        if len(passages.found) != 10 or passages.by_words_alone:
            raise RuntimeError(f"{len(passages.found)} passages were found")
    p99 = statistics.quantiles(taken, n=100)[98]
    return {
        f"retrieval among {CHUNKS:,} chunks, p50": f"{statistics.median(taken):.1f} ms",
        f"retrieval among {CHUNKS:,} chunks, p99": f"{p99:.1f} ms",
        f"vector file of {CHUNKS:,} rows made from them": f"{built:.1f} s",
    }


def _pieces(chance: random.Random, synthetic: Synthetic) -> list[Words]:
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
    await database.write(lambda: store.succeed(row, pieces, embedder=Synthetic.name))
