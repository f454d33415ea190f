"""What retrieval finds, on passages and questions that were fixed before it was tuned."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from domain.knowledge.retrieval import DEPTH, merged
from domain.knowledge.words import asked
from storage.database import Database
from storage.knowledge import KnowledgeStore
from tests.knowledge.conftest import embedded, index_of, ingest, make_base, pieces_of, waiting

FOLDER = Path(__file__).parent / "evaluation"
PASSAGES = (FOLDER / "passages.txt").read_text().splitlines()
AT = 5


class Question(NamedTuple):
    kind: str
    query: str
    passage: str


with (FOLDER / "queries.tsv").open(newline="") as file:
    QUESTIONS = [Question(*row) for row in list(csv.reader(file, delimiter="\t"))[1:]]


@pytest.fixture(scope="module")
def vectors() -> tuple[list[bytes], list[bytes]]:
    """Of the passages, and of the questions."""
    passages, questions = embedded(PASSAGES, [question.query for question in QUESTIONS])
    return passages, questions


def test_the_set_is_what_it_should_be() -> None:
    assert len(set(PASSAGES)) == len(PASSAGES) >= 300
    assert len(QUESTIONS) >= 80
    kinds = [question.kind for question in QUESTIONS]
    assert {kinds.count(kind) for kind in ("lexical", "paraphrase", "mixed")} == {len(kinds) // 3}
    for question in QUESTIONS:
        assert sum(passage.startswith(question.passage) for passage in PASSAGES) == 1, question


async def test_hybrid_is_as_good_as_its_better_half(
    database: Database,
    store: KnowledgeStore,
    vectors: tuple[list[bytes], list[bytes]],
    tmp_path: Path,
) -> None:
    """recall@5: at least 0.98 of the better half over all, at least both in the mixed third."""
    base_id = await make_base(database, store)
    document = waiting(base_id)
    await database.write(lambda: store.add([document], override=False))
    assert await ingest(database, store, document, pieces_of(PASSAGES, vectors[0]))
    index = index_of(tmp_path / "vectors", store)
    hits: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for question, wanted in zip(QUESTIONS, vectors[1], strict=True):
        by_words = await store.by_words(base_id, asked(question.query), DEPTH)
        by_meaning = [n for n, _ in await index.nearest(base_id, wanted, DEPTH)]
        scores = merged(by_words, by_meaning)
        both = sorted(scores, key=lambda number: (-scores[number], number))
        found = []
        for ranked in (by_words, by_meaning, both):
            texts = [chunk.content for chunk in await store.chunks(ranked[:AT])]
            found.append(any(text.startswith(question.passage) for text in texts))
        hits["all"].append(tuple(found))
        hits[question.kind].append(tuple(found))
    recall = {
        kind: [sum(one[half] for one in each) / len(each) for half in range(3)]
        for kind, each in hits.items()
    }
    words, meaning, hybrid = recall["all"]
    assert hybrid >= 0.98 * max(words, meaning), recall
    assert recall["mixed"][2] >= max(recall["mixed"][:2]), recall
    assert recall["lexical"][0] >= 0.9, recall
