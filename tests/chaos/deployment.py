"""A deployment under fire: server processes that tests kill, a model that counts, a client.

    with counting_model() as model, deployed(tmp_path / "data") as site:
        provider = await site.provider(model)
        run = await site.run("s1", '[{"say": "hello"}]', provider)
        assert await model.calls() == 1

Everything goes over HTTP through the raw client of tests/chaos/disconnects.py. Rates are lifted, as
one account does what in life thousands do.
"""

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.disconnects import Answer, Job, Request, complete_lines, exchange, is_stream_end
from tests.serving import ROOT, Server, environment, serving

PASSWORD = "chaos administrator 7"
UNLIMITED = "1000000/second"
SETTINGS = {
    "ADMIN_PASSWORD": PASSWORD,
    "CHAT_RATE": UNLIMITED,
    "LOGIN_RATE": UNLIMITED,
    "OUTBOUND_ALLOW": "model=127.0.0.1",
    "LOG_LEVEL": "warning",
}
SCRIPT = "embedded/script"


@dataclass
class Model:
    """scripts/script-model in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str

    async def calls(self) -> int:
        """How often a completion was asked for."""
        answer, _ = await exchange(self.url, Request("GET", "/calls"), None)
        return int(json.loads(answer.body)["calls"])


@contextlib.contextmanager
def counting_model(count: int = 1) -> Iterator[list[Model]]:
    """Script models behind HTTP, each with a counter of its own."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "script-model")],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        for _ in range(count)
    ]
    try:
        models = []
        for process in processes:
            assert process.stdout is not None
            models.append(Model(process, process.stdout.readline().decode().strip()))
        yield models
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()


@dataclass
class Site:
    """A running server and an account that is logged in there."""

    server: Server
    token: str = ""
    refused: list[bytes] = field(default_factory=list)

    @property
    def base(self) -> str:
        return self.server.url

    @property
    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """One request and its whole answer."""
        request = self.request(method, target, body, headers)
        async with asyncio.timeout(timeout_s):
            answer, _ = await exchange(self.base, request, None)
        return answer

    def request(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        fields = {"Connection": "close", **self.credentials, **(headers or {})}
        if body is None:
            return Request(method, target, fields)
        return Request(
            method,
            target,
            {**fields, "Content-Type": "application/json"},
            json.dumps(body, ensure_ascii=False).encode(),
        )

    async def ask(
        self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """What a successful answer holds under `data`."""
        answer = await self.call(method, target, body, headers)
        assert answer.status == 200, (answer.status, bytes(answer.body))
        told = json.loads(answer.body)
        assert told["code"] == 200, told
        return told["data"]

    async def log_in(self, username: str = "admin", password: str = PASSWORD) -> "Site":
        """The same server for another account, or for another login of the same."""
        told = await Site(self.server).ask(
            "POST", "/api/auth/login", {"username_or_email": username, "password": password}
        )
        return Site(self.server, told["access_token"])

    async def provider(self, model: Model) -> str:
        """Register a counting model; its provider id."""
        told = await self.ask(
            "POST",
            "/api/llm-provider/create",
            {"name": "counting", "base_url": model.url, "api_keys": ["none"], "model": "script"},
        )
        return str(told["provider_id"])

    def turn(
        self,
        session: str,
        script: str,
        provider: str = SCRIPT,
        *,
        path: str = "/api/web-stream",
        key: str = "",
        **more: Any,
    ) -> Request:
        """The request that starts a turn; `script` is a JSON array in the script model's words.
        Without a provider the agent's is used."""
        model = {"llm_model_config": {"llm_provider_id": provider}} if provider else {}
        said = [{"role": "user", "content": f"script:{script}"}]
        body = {"session_id": session, "messages": said, **model, **more}
        return self.request("POST", path, body, {"Idempotency-Key": key} if key else {})

    def resumption(self, session: str, seen: int = 0, run_id: str = "") -> Request:
        """The request that goes on with a session's run behind `seen` lines."""
        which = f"&run_id={run_id}" if run_id else ""
        return self.request("GET", f"/api/stream/resume/{session}?last_index={seen}{which}")

    def job(self, session: str, script: str, provider: str = SCRIPT) -> Job:
        return Job(
            self.turn(session, script, provider, key=session),
            lambda seen: self.resumption(session, seen),
        )

    async def resumed(self, session: str, seen: int = 0, run_id: str = "") -> list[bytes]:
        """The rest of a run's lines, up to its end."""
        async with asyncio.timeout(60):
            answer, _ = await exchange(self.base, self.resumption(session, seen, run_id), None)
        assert answer.status == 200, bytes(answer.body)
        return complete_lines(answer.body)

    async def active(self) -> list[dict[str, Any]]:
        """The sessions that active_sessions lists at first."""
        async with streaming(self, self.request("GET", "/api/stream/active_sessions")) as stream:
            await stream.until(lambda: b"\n\n" in stream.answer.body)
            first = bytes(stream.answer.body).partition(b"\n")[0]
        told: list[dict[str, Any]] = json.loads(first.removeprefix(b"data: "))
        return told

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the embedded database, read beside the server."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.server.data / 'quartet.sqlite'}?mode=ro", uri=True)
        ) as connection:
            return connection.execute(query).fetchall()


class Stream:
    """A streaming answer, read in the background until it ends or is cut."""

    def __init__(self, base: str, request: Request) -> None:
        self._base = base
        self._request = request
        self.answer = Answer()
        self.task: asyncio.Task[None] | None = None
        self.closed_at = 0.0
        self._grown = asyncio.Event()

    async def open(self) -> "Stream":
        self.task = asyncio.create_task(self._read())
        return self

    @property
    def lines(self) -> list[bytes]:
        return complete_lines(self.answer.body)

    @property
    def run_id(self) -> str:
        return self.answer.headers.get("x-run-id", "")

    @property
    def ended(self) -> bool:
        """Whether the last line is there and the answer complete by its framing."""
        lines = self.lines
        return self.answer.ended and bool(lines) and is_stream_end(lines[-1])

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                if self.task is not None and self.task.done():
                    raise AssertionError(
                        f"the stream closed first: {self.answer.status} {bytes(self.answer.body)!r}"
                    )
                self._grown.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._grown.wait(), 0.2)

    async def has_lines(self, count: int) -> None:
        await self.until(lambda: len(self.lines) >= count)

    async def closed(self, timeout_s: float = 30.0) -> None:
        """Wait for the server to end the connection, in whatever way."""
        assert self.task is not None
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self.task)

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def _read(self) -> None:
        host, _, port = self._base.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port.partition("/")[0]))
        try:
            writer.write(self._request.encoded(f"{host}:{port}"))
            while data := await reader.read(65536):
                self.answer.feed(data)
                self._grown.set()
                if self.answer.ended:
                    break
            else:
                self.answer.close()
        except ConnectionError:
            pass
        finally:
            self.closed_at = time.monotonic()
            self._grown.set()
            writer.close()


@contextlib.asynccontextmanager
async def streaming(site: Site, request: Request) -> AsyncIterator[Stream]:
    """A stream that is being read; left behind with the block."""
    stream = await Stream(site.base, request).open()
    try:
        yield stream
    finally:
        await stream.close()


@contextlib.asynccontextmanager
async def all_streaming(site: Site, requests: Sequence[Request]) -> AsyncIterator[list[Stream]]:
    """Several streams at once."""
    streams = [await Stream(site.base, request).open() for request in requests]
    try:
        yield streams
    finally:
        await asyncio.gather(*(stream.close() for stream in streams))


@contextlib.contextmanager
def deployed(
    data: Path, *flags: str, given: Mapping[str, str] | None = None, root: Path = ROOT
) -> Iterator[Server]:
    """A server of the tree at `root` that the chaos settings govern."""
    with serving(
        data, *flags, given={**SETTINGS, "PYTHONPATH": str(root), **(given or {})}
    ) as server:
        yield server


async def entered(server: Server) -> Site:
    """The administrator's login at a server."""
    return await Site(server).log_in()


async def eventually(
    condition: Callable[[], Awaitable[object]], timeout_s: float = 30.0, every_s: float = 0.05
) -> None:
    """Wait until the condition holds. Raises AssertionError."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {condition}")
        await asyncio.sleep(every_s)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def private_redis(directory: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis of our own, whose death hurts nobody else: its URL and process."""
    port = free_port()
    process = subprocess.Popen(
        [
            *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""),
            *("--appendonly", "no", "--dir", str(directory)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait(10)


def pss(pid: int) -> int:
    """Bytes of memory that a process has to itself, shared pages counted in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no Pss of {pid} on {os.uname().sysname}")


class Kept:
    """A connection whose bytes a test writes itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, base: str) -> "Kept":
        host, _, port = base.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def rest(self, timeout_s: float = 10.0) -> bytes:
        """Everything up to the end of the connection."""
        found = bytearray()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(timeout_s):
                while data := await self._reader.read(65536):
                    found += data
        self.close()
        return bytes(found)

    async def head(self, timeout_s: float = 10.0) -> bytes:
        """The next answer's head."""
        async with asyncio.timeout(timeout_s):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int, timeout_s: float = 10.0) -> bytes:
        """The next `size` bytes."""
        async with asyncio.timeout(timeout_s):
            return await self._reader.readexactly(size)

    async def end(self) -> None:
        """Say that no more is sent (FIN)."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()
