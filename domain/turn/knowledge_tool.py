"""The tool by which a turn looks things up in its knowledge bases."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from domain.knowledge.retrieval import Passages, Retrieval
from domain.tools import Tool

NAME = "knowledge_search"
BY_WORDS_ALONE = "(The embedding model does not answer: these were looked for by words alone.)"


class KnowledgeSearchArguments(msgspec.Struct, forbid_unknown_fields=True):
    query: Annotated[
        str, msgspec.Meta(min_length=1, max_length=2000, description="What to look for.")
    ]
    count: Annotated[int, msgspec.Meta(ge=1, le=20, description="How many passages.")] = 5


def knowledge_tool(retrieval: Retrieval, base_ids: Sequence[str]) -> Tool:
    """The tool over these bases. It reads only, so it may run again after a crash."""

    async def search(wanted: KnowledgeSearchArguments) -> str:
        return cited(await retrieval.search(base_ids, wanted.query, wanted.count))

    return Tool(
        NAME,
        "Finds passages in the knowledge bases of this conversation. Say which passages an answer"
        " rests on, by the numbers in brackets and the documents' names.",
        KnowledgeSearchArguments,
        search,
        True,
        "search",
    )


def cited(passages: Passages) -> str:
    """Passages as a model and a user read them: each under its number and its source."""
    told = [
        f"[{number}] {one.chunk.document}, passage {one.chunk.position + 1}"
        f" (segment {one.segment_id}, score {one.score:.3f})\n{one.chunk.content}"
        for number, one in enumerate(passages.found, 1)
    ] or ["Nothing was found."]
    return "\n\n".join([BY_WORDS_ALONE, *told] if passages.by_words_alone else told)
