"""What every embedder does, and how it fails."""

from collections.abc import Sequence
from typing import Protocol

from gateways.errors import GatewayError


class EmbeddingFailed(GatewayError):
    """The embedder does not answer, or not in time."""


class EmbeddingRefused(EmbeddingFailed):
    """The embedder may not be asked, or refuses what it is asked."""


class EmbeddingMalformed(EmbeddingFailed):
    """What the embedder answered are not the vectors that were asked for."""


class Embedder(Protocol):
    """Texts to vectors of `dimensions` little-endian float32, each of length 1.

    `name` tells vectors apart: they compare only with those of an embedder of the same name.
    """

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """One vector for each text. Raises EmbeddingFailed."""
        ...

    async def embed_question(self, text: str) -> bytes:
        """The vector of a text that somebody waits for. Raises EmbeddingFailed."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
