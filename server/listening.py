"""Sockets and the server process: several ports, and an orderly end (rules, "Settings")."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType

import uvicorn

from server.lane.replies import Drain

logger = logging.getLogger("quartet.server")

_BACKLOG = 1024
_UNACKNOWLEDGED_MS = 60_000


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError when the address is taken.

    Connections inherit TCP_USER_TIMEOUT: a client that stops acknowledging loses its connection
    after a minute instead of holding what was buffered for it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    made.listen(_BACKLOG)
    made.setblocking(False)
    return made


class Server(uvicorn.Server):
    """uvicorn with the shutdown that the rules ask for.

    On SIGTERM: stop accepting, be not ready, give plain requests `drain_s`, then cut the streams
    (their clients resume elsewhere) and call `ended`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Drain,
        drain_s: float,
        stopping: Callable[[], None],
        ended: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_s = drain_s
        self._stopping = stopping
        self._ended = ended

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end. uvicorn would raise the signal again afterwards; an orderly end is 0."""
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        cutting = asyncio.create_task(self._cut_when_quiet())
        await super().shutdown(sockets)
        await cutting
        await self._ended()

    async def _cut_when_quiet(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._drain_s
        while asyncio.get_running_loop().time() < deadline:
            if len(self.server_state.tasks) <= len(self._drain):
                break
            await asyncio.sleep(0.05)
        await self._drain.cut()


def quiet_cuts() -> None:
    """A stream that was cut on purpose is no fault, nor a websocket that was refused with a body:
    uvicorn would log one each time."""

    class Cuts(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            said = record.getMessage()
            return "without completing response" not in said and "completing handshake" not in said

    logging.getLogger("uvicorn.error").addFilter(Cuts())


def uvloop_runner() -> asyncio.Runner:
    """An asyncio runner on uvloop."""
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def addresses(sockets: Sequence[socket.socket]) -> list[tuple[str, int]]:
    """The (host, port) of each socket; a port asked as 0 shows as what it became."""
    return [made.getsockname()[:2] for made in sockets]


def fail(message: str) -> None:
    """Say why the server cannot run, and leave."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"quartet: {message}\n")
    raise SystemExit(1)
