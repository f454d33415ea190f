"""Finding passages: by words and by meaning side by side, merged by reciprocal rank.

Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods" (SIGIR 2009): a passage's score is the sum of weight / (K + rank) over both
lists. Their K of 60 lets a passage in the middle of both lists overtake the first of one, which
loses what is found by meaning alone; tests/knowledge/evaluation is what K and the weight were
chosen by, in the middle of where both do well.

While the embedder does not answer, passages are found by their words alone.
"""

import logging
from collections.abc import Sequence

import msgspec

from domain.caller import Caller
from domain.knowledge.bases import KnowledgeBases
from domain.knowledge.words import asked
from gateways.embedding.embedder import Embedder
from gateways.errors import GatewayError
from storage.agents import Agent
from storage.knowledge import Base, Chunk, KnowledgeStore
from storage.vectors import Vectors

log = logging.getLogger("quartet.knowledge")

K = 5
WORDS_WEIGHT = 0.6
DEPTH = 50
"""How far down each list is read, at least."""


class Found(msgspec.Struct, frozen=True):
    """A passage. `score` is 1 where it is the first of both lists and falls towards 0; scores of
    different questions do not compare."""

    chunk: Chunk
    score: float

    @property
    def segment_id(self) -> str:
        return f"{self.chunk.document_id}:{self.chunk.position}"


class Passages(msgspec.Struct, frozen=True):
    """What was found, the best first; `by_words_alone` where nobody could say what was meant."""

    found: list[Found]
    by_words_alone: bool


class Retrieval:
    """Passages of knowledge bases."""

    def __init__(
        self,
        store: KnowledgeStore,
        bases: KnowledgeBases,
        vectors: Vectors,
        embedder: Embedder,
    ) -> None:
        self._store = store
        self._bases = bases
        self._vectors = vectors
        self._embedder = embedder

    async def retrieve(
        self, caller: Caller, base_id: str, query: str, limit: int
    ) -> tuple[Passages, Base]:
        """The best passages of a base of the caller's, and the base. Raises
        NotFound("knowledge.not_found")."""
        base = await self._bases.get(caller, base_id)
        return await self.search([base_id], query, limit), base

    async def search(self, base_ids: Sequence[str], query: str, limit: int) -> Passages:
        """The best passages of several bases."""
        wanted: bytes | None = None
        try:
            wanted = await self._embedder.embed_question(query)
        except GatewayError as error:
            log.warning("passages are found by their words alone: %s", error)
        words, depth = asked(query), max(DEPTH, limit)
        scores: dict[int, float] = {}
        for base_id in base_ids:
            by_words = await self._store.by_words(base_id, words, depth)
            by_meaning: list[int] = []
            if wanted is not None:
                nearest = await self._vectors.nearest(base_id, wanted, depth)
                by_meaning = [number for number, _ in nearest]
            scores.update(merged(by_words, by_meaning))
        best = sorted(scores, key=lambda number: (-scores[number], number))[:limit]
        rows = {chunk.number: chunk for chunk in await self._store.chunks(best)}
        found = [Found(rows[one], scores[one]) for one in best if one in rows]
        return Passages(found, wanted is None)

    async def usable(
        self, caller: Caller, agent: Agent | None, asked_for: Sequence[str] | None
    ) -> tuple[list[str], list[str]]:
        """The bases that a turn may look through, and the names that it skips.

        An agent's bases are its owner's, so whoever may use the agent may use them. A request may
        name some of those, and the caller's own.
        """
        configured = list(agent.knowledge_bases or ()) if agent else []
        wanted = list(dict.fromkeys(asked_for or configured))
        rows = {row.id: row for row in await self._store.find_many(wanted)}
        usable: list[str] = []
        skipped: list[str] = []
        for one in wanted:
            row = rows.get(one)
            granted = (
                agent is not None and one in configured and row and (row.owner_id == agent.owner_id)
            )
            own = row is not None and (row.owner_id == caller.user_id or caller.is_admin)
            (usable if granted or own else skipped).append(one)
        return usable, skipped


def merged(by_words: Sequence[int], by_meaning: Sequence[int]) -> dict[int, float]:
    """Scores of all that the lists hold; 1 is the first of both."""
    scores: dict[int, float] = {}
    most = (WORDS_WEIGHT + 1) / (K + 1)
    for ranked, weight in ((by_words, WORDS_WEIGHT), (by_meaning, 1.0)):
        for rank, number in enumerate(ranked, 1):
            scores[number] = scores.get(number, 0.0) + weight / (K + rank) / most
    return scores
