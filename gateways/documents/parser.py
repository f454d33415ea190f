"""Documents as chunks of text, each read in a process of its own that can be killed.

A process that has imported what readers need, and has seen no document, forks one for each: that
takes a tenth of what a new interpreter does. It never holds what they read.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from gateways.errors import GatewayError

ANSWER_MAX = 256 * 1024 * 1024
DONE = b"done"
"""Says that a document has been read, and whatever still reads it may be ended."""
_ROOT = Path(__file__).parents[2]


class DocumentUnreadable(GatewayError):
    """The document gives no text. The message says why and is fit to be shown."""


class _Answer(msgspec.Struct):
    pieces: list[str] = []
    error: str = ""


class Parser:
    """Reads documents, `at_once` of them at a time, each for `seconds` at most. Its processes start
    when they are missed and end after `idle_s` seconds without a document."""

    def __init__(self, *, at_once: int = 2, seconds: float = 90.0, idle_s: float = 60.0) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._seconds = seconds
        self._idle_s = idle_s
        self._resting: list[_Forker] = []
        self._rest: asyncio.TimerHandle | None = None

    async def read(self, content: AsyncIterator[bytes], suffix: str, kind: str) -> list[str]:
        """The chunks of a document, in order. `suffix` is the format (`.pdf`), `kind` is `file`,
        `eml` or `qa`. Raises DocumentUnreadable, and what `content` raises."""
        async with self._turns:
            with tempfile.NamedTemporaryFile(prefix="quartet-") as file:
                async for part in content:
                    await asyncio.to_thread(file.write, part)
                file.flush()
                return await self._read(file.name, suffix, kind)

    async def close(self) -> None:
        """End the processes."""
        if self._rest is not None:
            self._rest.cancel()
        while self._resting:
            await self._resting.pop().stop()

    async def _read(self, path: str, suffix: str, kind: str) -> list[str]:
        forker: _Forker | None = None
        answer = b""
        try:
            async with asyncio.timeout(self._seconds):
                forker = self._rested() or await _Forker.start()
                answer = await forker.read(path, suffix, kind)
        except TimeoutError:
            raise DocumentUnreadable("reading it takes too long") from None
        finally:
            if forker is not None:
                await self._give_back(forker, fit=bool(answer))
        try:
            told = msgspec.json.decode(answer, type=_Answer)
        except msgspec.DecodeError:
            raise DocumentUnreadable("it breaks what reads it") from None
        if told.error:
            raise DocumentUnreadable(told.error)
        return told.pieces

    def _rested(self) -> "_Forker | None":
        while self._resting:
            if (forker := self._resting.pop()).is_alive:
                return forker
        return None

    async def _give_back(self, forker: "_Forker", *, fit: bool) -> None:
        if not fit:
            await forker.stop()
            return
        self._resting.append(forker)
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(self._idle_s, self._end)

    def _end(self) -> None:
        while self._resting:
            self._resting.pop().hang_up()


class _Forker:
    """The process that forks readers, and the socket that it is asked by."""

    def __init__(self, process: asyncio.subprocess.Process, asked: socket.socket) -> None:
        self._process = process
        self._asked = asked

    @classmethod
    async def start(cls) -> "_Forker":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "gateways.documents.parser_process"),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    env={"PYTHONPATH": str(_ROOT), "PATH": os.defpath},
                    cwd=_ROOT,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def read(self, path: str, suffix: str, kind: str) -> bytes:
        """What the reader of one document writes; nothing where it breaks."""
        told, telling = socket.socketpair()
        with told:
            with telling, contextlib.suppress(OSError):  # it is gone: then nothing is written
                asked = msgspec.json.encode((path, suffix, kind))
                socket.send_fds(self._asked, [asked], [telling.fileno()])
            answer = await _all(told)
        with contextlib.suppress(OSError):
            self._asked.send(DONE)
        return answer

    def hang_up(self) -> None:
        """Let it end by itself."""
        self._asked.close()

    async def stop(self) -> None:
        """End it, and what it is reading."""
        self._asked.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


async def _all(told: socket.socket) -> bytes:
    told.setblocking(False)
    loop = asyncio.get_running_loop()
    answer = bytearray()
    while part := await loop.sock_recv(told, 1 << 20):
        answer += part
        if len(answer) > ANSWER_MAX:
            raise DocumentUnreadable("it holds too much text")
    return bytes(answer)
