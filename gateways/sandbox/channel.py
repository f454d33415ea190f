"""The server's end of the socket to the first process inside a sandbox (inside.py).

Any program of the sandbox can pretend to be that process, so an answer is taken for what it
claims at most: small, of the known shape, about something that was asked, with one descriptor.
"""

import asyncio
import itertools
import json
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from gateways.sandbox.errors import SandboxEnded, SandboxError

MESSAGE_MAX = 128 * 1024
ANSWER_MAX = 4096
ANSWER_S = 20.0


class _Told(msgspec.Struct, frozen=True):
    id: int
    started: bool = False
    connected: bool = False
    ended: int | None = None
    wanted: bool = False
    error: str | None = None


class Channel:
    """Asks and is answered, by number. `wanted` is called when a program looks for the display;
    after that, not before `watch`."""

    def __init__(self) -> None:
        self.wanted: Callable[[], None] = lambda: None
        self._socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._ends: dict[int, Callable[[int], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        self._closed = False

    async def ready(self) -> int:
        """Wait for the first word from inside, before any program runs; the socket that listens
        where programs look for a proxy, -1 without one."""
        self.theirs.close()
        return await self._answer(0)

    async def start(
        self,
        argv: Sequence[str],
        cwd: str,
        env: dict[str, str],
        descriptors: Sequence[int],
        *,
        terminal: bool,
        display: bool = False,
        ended: Callable[[int], None],
    ) -> tuple[int, int]:
        """Start a program; its number, and the terminal's other end (-1 without one). `ended` is
        called once with its exit code, negative for a signal. `display`: it is the X server, and
        takes over the socket that programs look for. Raises SandboxError."""
        for descriptor in descriptors:
            # The session's user may open it again, as /dev/stdout.
            os.fchmod(descriptor, 0o666)
        number = next(self._numbers)
        self._ends[number] = ended
        message: dict[str, Any] = {"argv": list(argv), "cwd": cwd, "env": env}
        message |= {"terminal": terminal, "display": display}
        master = await self._ask("start", number, message, descriptors)
        if terminal and not _is_terminal(master):
            raise SandboxError("the shell has no terminal")
        return number, master

    async def connect(self, path: str) -> socket.socket:
        """A connection to a socket of the sandbox. Raises SandboxError."""
        descriptor = await self._ask("connect", next(self._numbers), {"path": path})
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError:
            raise SandboxError("the sandbox answered with no connection") from None
        if (connection.family, connection.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
            connection.close()
            raise SandboxError("the sandbox answered with no connection")
        connection.setblocking(False)
        return connection

    def kill(self, number: int) -> None:
        """End a program and everything that it started."""
        with suppress(SandboxEnded):
            self._send({"do": "kill", "id": number}, ())

    def watch(self, *, refuse: bool) -> None:
        """Have it said again when a program looks for the display; with `refuse`, those that do so
        now are turned away."""
        with suppress(SandboxError):
            self._send({"do": "watch", "refuse": refuse}, ())

    def close(self, reason: str) -> None:
        """Nobody answers any more: whoever waits is told so."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self.theirs.close()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(SandboxEnded(reason))
        ends, self._ends = self._ends, {}
        for ended in ends.values():
            ended(-9)

    async def _ask(
        self, do: str, number: int, message: dict[str, Any], descriptors: Sequence[int] = ()
    ) -> int:
        self._send({"do": do, "id": number, **message}, descriptors)
        return await self._answer(number)

    async def _answer(self, number: int) -> int:
        self._asked[number] = self._loop.create_future()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._asked[number]
        except TimeoutError:
            raise SandboxError("the sandbox does not answer") from None
        finally:
            del self._asked[number]

    def _send(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        data = json.dumps(message).encode()
        if len(data) > MESSAGE_MAX:
            raise SandboxError("the command line is too long")
        try:
            socket.send_fds(self._socket, [data], descriptors)
        except BlockingIOError:
            raise SandboxError("the sandbox does not listen") from None
        except OSError:
            raise SandboxEnded("died") from None

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, ANSWER_MAX, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._loop.remove_reader(self._socket)
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        try:
            self._take(msgspec.json.decode(data, type=_Told), descriptors)
        except msgspec.DecodeError:
            pass
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _take(self, told: _Told, descriptors: list[int]) -> None:
        if told.wanted:
            self.wanted()
            return
        if told.ended is not None:
            if (ended := self._ends.pop(told.id, None)) is not None:
                ended(told.ended)
            return
        waiting = self._asked.get(told.id)
        if waiting is None or waiting.done():
            return
        if told.error is not None:
            self._ends.pop(told.id, None)
            waiting.set_exception(SandboxError(told.error[:200]))
        else:
            waiting.set_result(descriptors.pop() if descriptors else -1)


def _is_terminal(descriptor: int) -> bool:
    """Whether it is the other end of a terminal, which nothing else behaves like."""
    if descriptor >= 0:
        if os.fstat(descriptor).st_rdev == os.makedev(5, 2):
            return True
        os.close(descriptor)
    return False
