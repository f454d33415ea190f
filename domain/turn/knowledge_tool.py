"""The tool by which a turn looks things up in its knowledge bases."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from domain.errors import Unavailable
from domain.knowledge.retrieval import Found, Retrieval
from domain.tools import Tool, ToolFailed

NAME = "knowledge_search"


class KnowledgeSearchArguments(msgspec.Struct, forbid_unknown_fields=True):
    query: Annotated[
        str, msgspec.Meta(min_length=1, max_length=2000, description="What to look for.")
    ]
    count: Annotated[int, msgspec.Meta(ge=1, le=20, description="How many passages.")] = 5


def knowledge_tool(retrieval: Retrieval, base_ids: Sequence[str]) -> Tool:
    """The tool over these bases. It reads only, so it may run again after a crash."""

    async def search(wanted: KnowledgeSearchArguments) -> str:
        try:
            found = await retrieval.search(base_ids, wanted.query, wanted.count)
        except Unavailable:
            raise ToolFailed("the knowledge bases cannot be searched now") from None
        return cited(found)

    return Tool(
        NAME,
        "Finds passages in the knowledge bases of this conversation. Say which passages an answer"
        " rests on, by the numbers in brackets and the documents' names.",
        KnowledgeSearchArguments,
        search,
        True,
    )


def cited(found: Sequence[Found]) -> str:
    """Passages as a model and a user read them: each under its number and its source."""
    if not found:
        return "Nothing was found."
    return "\n\n".join(
        f"[{number}] {one.chunk.document}, passage {one.chunk.position + 1}"
        f" (segment {one.segment_id}, score {one.score:.3f})\n{one.chunk.content}"
        for number, one in enumerate(found, 1)
    )
