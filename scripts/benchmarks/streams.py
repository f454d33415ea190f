"""(c) Many streams at once, and how soon one begins."""

import asyncio
import contextlib
import gc
import json
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from scripts.benchmarks.load import ask, request
from scripts.benchmarks.processes import ADMIN_PASSWORD as PASSWORD
from scripts.benchmarks.processes import quartet
from scripts.benchmarks.tables import Table

ACCOUNTS = 4
STREAMS = 200
TOKENS = 600
EVERY_MS = 50
RAMP_S = 10.0
"""The streams begin one by one over this time, as clients do; every line of them counts."""
SEQUENTIAL = 300
AT_ONCE = 16
PER_WORKER = 20


class Client(asyncio.Protocol):
    """One POST to `/api/web-stream`: notes when bytes arrive and looks at them afterwards."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._chunks: list[tuple[float, bytes]] = []
        self.sent_at = 0.0
        self.first_at = self.ended_at = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.sent_at = time.perf_counter()
        transport.write(self._content)

    def data_received(self, data: bytes) -> None:
        self._chunks.append((time.time(), data))
        if not self.first_at and data.find(b"\n{") >= 0:
            self.first_at = time.perf_counter()
        if data.endswith(b"\r\n0\r\n\r\n") or data == b"0\r\n\r\n":
            self.ended_at = time.perf_counter()
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def lines(self) -> list[tuple[float, dict[str, Any]]]:
        """Every line with when its end arrived. Raises RuntimeError for an answer not 200."""
        body = bytearray()
        arrived = []
        head = b""
        at_end = 0
        for at, data in self._chunks:
            if not head.endswith(b"\r\n\r\n"):
                whole = head + data
                end = whole.find(b"\r\n\r\n") + 4
                if end < 4:
                    head = whole
                    continue
                head, data = whole[:end], whole[end:]
                if not head.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"a stream was refused: {whole[:500]!r}")
            at_end += len(data)
            body += data
            arrived.append((at_end, at))
        return list(_lines(bytes(body), arrived))


def _lines(body: bytes, arrived: list[tuple[int, float]]) -> Any:
    """The JSON lines of a chunked body; a line's time is that of its last byte."""
    position, upto = 0, 0
    text = b""
    while True:
        end = body.index(b"\r\n", position)
        size = int(body[position:end], 16)
        if not size:
            return
        position = end + 2 + size
        while arrived[upto][0] < position:
            upto += 1
        text += body[end + 2 : position]
        *whole, text = text.split(b"\n")
        for line in whole:
            if line and not line.startswith(b":"):
                yield arrived[upto][1], json.loads(line)
        position += 2


def turn(token: str, tokens: int, every_ms: int) -> bytes:
    """A turn of `embedded/script` in a new session."""
    script = "script:" + json.dumps([{"tokens": tokens, "every_ms": every_ms}])
    body = {
        "messages": [{"role": "user", "content": script}],
        "session_id": f"bench-{uuid.uuid4()}",
        "llm_model_config": {"llm_provider_id": "embedded/script"},
    }
    return request("POST", "/api/web-stream", token=token, body=body)


async def accounts(port: int) -> list[str]:
    """Tokens of fresh accounts, as many as the default limits need for 200 streams."""

    async def log_in(name: str) -> str:
        credentials = {"username_or_email": name, "password": PASSWORD}
        found = await ask(port, request("POST", "/api/auth/login", body=credentials))
        token: str = found["access_token"]
        return token

    administrator = await log_in("admin")
    tokens = []
    for number in range(ACCOUNTS):
        added = {"username": f"bench{number}", "password": PASSWORD, "role": "user"}
        await ask(port, request("POST", "/api/user/add", token=administrator, body=added))
        tokens.append(await log_in(f"bench{number}"))
    return tokens


async def streamed(port: int, content: bytes) -> Client:
    """One stream from its request to its end."""
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: Client(content), "127.0.0.1", port
    )
    await client.ended
    return client


def accounted(client: Client, tokens: int) -> list[float]:
    """Seconds from each token's time stamp to its arrival. Raises RuntimeError unless the stream
    holds every token once and in order, its usage and its end."""
    lines = client.lines()
    said = [(at, line) for at, line in lines if line["type"] == "assistant_text"]
    expected = [f"t{number} " for number in range(tokens)]
    rest = [line["type"] for _, line in lines[len(said) :]]
    if [line["content"] for _, line in said] != expected or rest != ["token_usage", "stream_end"]:
        raise RuntimeError(f"{len(said)} of {tokens} tokens, then {rest}")
    if lines[-1][1]["total_stream_count"] != len(lines):
        raise RuntimeError("the end counts other lines")
    return [at - line["timestamp"] for at, line in said]


class Crowd:
    """What 200 streams at once gave."""

    def __init__(self, delays: list[float], cpu: float, took: float) -> None:
        self.delays = delays
        self.cpu = cpu
        self.took = took


async def crowd(server: Any, tokens: list[str]) -> Crowd:
    async def one(number: int) -> Client:
        await asyncio.sleep(RAMP_S * number / STREAMS)
        return await streamed(server.port, turn(tokens[number % len(tokens)], TOKENS, EVERY_MS))

    gc.collect()
    gc.disable()
    begun, spent = time.perf_counter(), server.cpu
    clients = await asyncio.gather(*(one(number) for number in range(STREAMS)))
    spent, took = server.cpu - spent, time.perf_counter() - begun
    gc.enable()
    delays = [delay for client in clients for delay in accounted(client, TOKENS)]
    return Crowd(delays, spent, took)


async def firsts(port: int, token: str, *, at_once: int, each: int) -> list[float]:
    """Seconds from request to first event of short turns, `at_once` of them at a time."""
    found: list[float] = []

    async def worker() -> None:
        for _ in range(each):
            client = await streamed(port, turn(token, 1, 0))
            accounted(client, 1)
            found.append(client.first_at - client.sent_at)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return found


def quantile(values: list[float], part: float) -> float:
    """Milliseconds."""
    return statistics.quantiles(values, n=1000)[round(part * 1000) - 1] * 1e3


def run() -> list[Table]:
    """The table of bench (c)."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        default = stack.enter_context(quartet(Path(folder) / "crowd"))
        many = asyncio.run(_crowded(default))
        default.stop()
        open_rate = {"CHAT_RATE": "1000000/minute"}
        quick = stack.enter_context(quartet(Path(folder) / "first", settings=open_rate))
        alone, busy = asyncio.run(_first_events(quick))
    table = Table(
        f"(c) {STREAMS} web-streams of {1000 // EVERY_MS} events a second for "
        f"{TOKENS * EVERY_MS / 1000:.0f} s",
        ["figure", "p50", "p99", "highest"],
        note=f"{len(many.delays):,} tokens and {2 * STREAMS} other lines, all accounted for: each "
        f"token once and in order, usage, end. Default settings, {ACCOUNTS} accounts, the streams "
        f"begun over {RAMP_S:g} s; the model stamps a token with the time it was due. First "
        f"events: {SEQUENTIAL} turns one after another, then {AT_ONCE} at a time, CHAT_RATE "
        "raised, each in a new session.",
    )
    for name, values in (
        ("stamp to client, ms", many.delays),
        ("request to first event, one at a time, ms", alone),
        (f"request to first event, {AT_ONCE} at a time, ms", busy),
    ):
        table.rows.append(
            [
                name,
                f"{quantile(values, 0.5):.1f}",
                f"{quantile(values, 0.99):.1f}",
                f"{max(values) * 1e3:.1f}",
            ]
        )
    lines = len(many.delays) + 2 * STREAMS
    table.rows += [
        ["server's CPU, µs a line", f"{many.cpu / lines * 1e6:.0f}", "–", "–"],
        ["server's CPU, of a core", f"{many.cpu / many.took:.0%}", "–", "–"],
    ]
    table.claim("stamp to client, p99, ms", quantile(many.delays, 0.99), at_most=100)
    table.claim("request to first event, p50, ms", quantile(alone, 0.5), at_most=10)
    return [table]


async def _crowded(server: Any) -> Crowd:
    return await crowd(server, await accounts(server.port))


async def _first_events(server: Any) -> tuple[list[float], list[float]]:
    token = (await accounts(server.port))[0]
    await firsts(server.port, token, at_once=4, each=5)
    alone = await firsts(server.port, token, at_once=1, each=SEQUENTIAL)
    return alone, await firsts(server.port, token, at_once=AT_ONCE, each=PER_WORKER)
