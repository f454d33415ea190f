"""MCP servers that are started as a process and spoken to over its standard streams.

Who may write a command line may run anything, interpreters being what they are: so the operator
lists the command lines, and what is not listed is not started (security checklist 39). A process
gets an environment made for it, a directory of its own that is gone afterwards, and limits, and is
killed with everything it started (gateways/mcp_process.py) when its session ends.
"""

import asyncio
import contextlib
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateways.errors import McpRefused, McpUnreachable

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

PATH = "/usr/local/bin:/usr/bin:/bin"
ANY = "*"
LINE_MAX = 4 * 1024 * 1024
SAID_MAX = 4 * LINE_MAX
"""Bytes of one line, and of all that a server says in a session."""
END_S = 3.0
_PROCESS = Path(__file__).with_name("mcp_process.py")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Command(msgspec.Struct, frozen=True):
    """A server as it is started: its command line, and what its environment has beyond ours."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"Command({self.argv[:1]!r})"


class Allowed(msgspec.Struct, frozen=True):
    """A command line that the operator lists: exactly `argv`, with any arguments behind it where
    `more` says so, and any values of the environment variables `env`."""

    argv: tuple[str, ...]
    env: frozenset[str] = frozenset()
    more: bool = False

    def allows(self, command: Command) -> bool:
        if not self.env.issuperset(command.env):
            return False
        if not self.more:
            return command.argv == self.argv
        return command.argv[: len(self.argv)] == self.argv


def read_commands(text: str) -> tuple[Allowed, ...]:
    """Command lines with commas between them, in a shell's quoting: `NAME=` in front of a command
    leaves the variable to the configuration, `*` behind it any further arguments. Raises
    ValueError."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=",")
    lexer.whitespace_split = True
    lexer.commenters = ""
    lines: list[list[str]] = [[]]
    for word in lexer:
        if set(word) == {","}:
            lines.append([])
        else:
            lines[-1].append(word)
    return tuple(_read(line) for line in lines if line)


def _read(words: Sequence[str]) -> Allowed:
    names = []
    argv = list(words)
    while argv and argv[0].endswith("=") and _NAME.fullmatch(argv[0][:-1]):
        names.append(argv.pop(0)[:-1])
    more = len(argv) > 1 and argv[-1] == ANY
    if more:
        argv.pop()
    if not argv or argv[0] == ANY:
        raise ValueError("a command line names its command")
    return Allowed(tuple(argv), frozenset(names), more)


class Stdio:
    """Starts the servers that `allowed` lists, and no others."""

    def __init__(self, allowed: Iterable[Allowed] = ()) -> None:
        self._allowed = tuple(allowed)

    def check(self, command: Command) -> None:
        """Raises McpRefused unless the operator lists the command."""
        if not any(one.allows(command) for one in self._allowed):
            raise McpRefused("not allowed by the operator")

    @asynccontextmanager
    async def session(self, command: Command) -> "AsyncIterator[TransportStreams]":
        """The streams of a server that runs until the block is left. Raises McpRefused,
        McpUnreachable."""
        self.check(command)
        with tempfile.TemporaryDirectory(
            prefix="quartet-mcp-", ignore_cleanup_errors=True
        ) as place:
            process = await _started(command, place)
            try:
                async with _spoken(process) as streams:
                    yield streams
            finally:
                await _ended(process)


async def _started(command: Command, place: str) -> asyncio.subprocess.Process:
    ours = {"PATH": PATH, "HOME": place, "TMPDIR": place, "LANG": "C.UTF-8"}
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(_PROCESS), *command.argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**ours, **command.env},
            cwd=place,
            limit=LINE_MAX,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise McpUnreachable(f"it does not start: {type(error).__name__}") from None


async def _ended(process: asyncio.subprocess.Process) -> None:
    """The process and all that it started, killed and waited for, cancelled or not."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    waiting = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait_for(asyncio.shield(waiting), END_S)
    except TimeoutError:
        process.kill()
        await waiting
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise


@asynccontextmanager
async def _spoken(process: asyncio.subprocess.Process) -> "AsyncIterator[TransportStreams]":
    """A process's standard streams as the SDK's: a message a line (MCP, "Transports", stdio)."""
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    heard, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, said = anyio.create_memory_object_stream[SessionMessage](0)
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    async def listen() -> None:
        left = SAID_MAX
        async with heard:
            with contextlib.suppress(ValueError, OSError, anyio.BrokenResourceError):
                while line := await stdout.readline():
                    left -= len(line)
                    if left < 0:
                        break
                    with contextlib.suppress(ValueError):
                        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                        await heard.send(SessionMessage(message))

    async def speak() -> None:
        async with said:
            async for one in said:
                text = one.message.model_dump_json(by_alias=True, exclude_unset=True)
                with contextlib.suppress(OSError):
                    stdin.write(text.encode() + b"\n")
                    await stdin.drain()

    tasks = [asyncio.create_task(one()) for one in (listen, speak)]
    streams: Any = (read, write)
    try:
        yield streams
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (read, write, heard, said):
            stream.close()
