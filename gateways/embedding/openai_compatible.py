"""Embeddings of any server with OpenAI's wire format, through the outbound door.

    POST {url}/embeddings    {"model", "input": [text, …], "encoding_format": "float"}
                             → {"data": [{"index", "embedding": [number, …]}, …]}

Nothing is retried: a document that could not be embedded says so, and a question does without.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from gateways.embedding.embedder import EmbeddingFailed, EmbeddingMalformed, EmbeddingRefused
from gateways.errors import OutboundError, OutboundRefused, OutboundTooLarge
from gateways.outbound import Fetched, Outbound

PURPOSE = "embedding"
TOGETHER = 64
"""Texts in one request."""
CHARACTERS_MAX = 8000
"""Of one text; what a model does not take beyond its context would refuse the whole request."""
ANSWER_S = 60.0
QUESTION_S = 5.0
"""Seconds for an answer: of documents, and while somebody waits."""
NUMBER_MAX = 32
"""Bytes of one number in JSON, at most."""


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Vector]


class RemoteEmbedder:
    """A model behind an OpenAI-compatible endpoint; `url` ends where `/embeddings` begins."""

    def __init__(
        self,
        outbound: Outbound,
        url: str,
        model: str,
        dimensions: int,
        key: str = "",
        *,
        answer_s: float = ANSWER_S,
        question_s: float = QUESTION_S,
    ) -> None:
        self.name = f"{model}:{dimensions}"
        self.dimensions = dimensions
        self._outbound = outbound
        self._url = f"{url.rstrip('/')}/embeddings"
        self._model = model
        self._key = key
        self._answer_s = answer_s
        self._question_s = question_s

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """One vector for each text. Raises EmbeddingFailed, EmbeddingRefused,
        EmbeddingMalformed."""
        found: list[bytes] = []
        for first in range(0, len(texts), TOGETHER):
            found += await self._ask(texts[first : first + TOGETHER], self._answer_s)
        return found

    async def embed_question(self, text: str) -> bytes:
        """As `embed`, of one text, within seconds."""
        (found,) = await self._ask([text], self._question_s)
        return found

    async def close(self) -> None:
        """The connections are the outbound door's."""

    async def _ask(self, texts: Sequence[str], within: float) -> list[bytes]:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        body = {
            "model": self._model,
            "input": [text[:CHARACTERS_MAX] or " " for text in texts],
            "encoding_format": "float",
        }
        try:
            answer = await self._outbound.fetch(
                PURPOSE,
                self._url,
                method="POST",
                headers=headers,
                content=msgspec.json.encode(body),
                max_bytes=4096 + len(texts) * (256 + NUMBER_MAX * self.dimensions),
                timeout=within,
            )
        except OutboundRefused as error:
            raise EmbeddingRefused(f"the address may not be reached: {error.reason}") from None
        except OutboundTooLarge as error:
            raise EmbeddingMalformed(str(error)) from None
        except OutboundError as error:
            raise EmbeddingFailed(f"the embedding server cannot be asked: {error}") from None
        _check(answer)
        return await asyncio.to_thread(_vectors, answer.body, len(texts), self.dimensions)


def _check(answer: Fetched) -> None:
    """Raises EmbeddingFailed for what may pass, EmbeddingRefused for what will not."""
    if answer.status == 200:
        return
    told = f"the embedding server answered with status {answer.status}"
    passing = answer.status in (408, 429) or answer.status >= 500
    raise EmbeddingFailed(told) if passing else EmbeddingRefused(told)


def _vectors(body: bytes, count: int, dimensions: int) -> list[bytes]:
    """The vectors in the order of their texts, brought to length 1. Raises EmbeddingMalformed."""
    import numpy

    try:
        given = msgspec.json.decode(body, type=_Answer).data
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise EmbeddingMalformed("the embedding server did not answer with vectors") from None
    given.sort(key=lambda one: one.index)
    if [one.index for one in given] != list(range(count)):
        raise EmbeddingMalformed(f"the embedding server did not answer with {count} vectors")
    for one in given:
        if len(one.embedding) != dimensions:
            raise EmbeddingMalformed(
                f"the model's vectors have {len(one.embedding)} dimensions, not {dimensions}"
            )
    rows = numpy.array([one.embedding for one in given], dtype=numpy.float64)
    with numpy.errstate(over="ignore"):
        lengths = numpy.linalg.norm(rows, axis=1, keepdims=True)
    if not (numpy.isfinite(lengths) & (lengths > 0)).all():
        raise EmbeddingMalformed("the embedding server answered with a vector of no direction")
    return [row.tobytes() for row in (rows / lengths).astype("<f4")]
