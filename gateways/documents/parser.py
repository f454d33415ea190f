"""Documents as chunks of text, read in a process of their own that can be killed."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from gateways.errors import GatewayError

ANSWER_MAX = 256 * 1024 * 1024
_ROOT = Path(__file__).parents[2]


class DocumentUnreadable(GatewayError):
    """The document gives no text. The message says why and is fit to be shown."""


class _Answer(msgspec.Struct):
    pieces: list[str] = []
    error: str = ""


class Parser:
    """Reads documents, `at_once` of them at a time, each for `seconds` at most."""

    def __init__(self, *, at_once: int = 2, seconds: float = 90.0) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._seconds = seconds

    async def read(self, content: AsyncIterator[bytes], suffix: str, kind: str) -> list[str]:
        """The chunks of a document, in order. `suffix` is the format (`.pdf`), `kind` is `file`,
        `eml` or `qa`. Raises DocumentUnreadable, and what `content` raises."""
        async with self._turns:
            with tempfile.NamedTemporaryFile(prefix="quartet-") as file:
                async for part in content:
                    await asyncio.to_thread(file.write, part)
                file.flush()
                return await self._read(file.name, suffix, kind)

    async def _read(self, path: str, suffix: str, kind: str) -> list[str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateways.documents.parser_process"),
            *(path, suffix, kind),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "PATH": os.defpath},
            cwd=_ROOT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._seconds):
                answer = await _all(process)
        except TimeoutError:
            raise DocumentUnreadable("reading it takes too long") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        try:
            told = msgspec.json.decode(answer, type=_Answer)
        except msgspec.DecodeError:
            raise DocumentUnreadable("it breaks what reads it") from None
        if told.error:
            raise DocumentUnreadable(told.error)
        return told.pieces


async def _all(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    answer = bytearray()
    while part := await process.stdout.read(1 << 20):
        answer += part
        if len(answer) > ANSWER_MAX:
            raise DocumentUnreadable("it holds too much text")
    await process.wait()
    return bytes(answer)
