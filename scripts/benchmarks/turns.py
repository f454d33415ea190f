"""(f) What a turn with one tool call costs beyond the model's own time."""

import asyncio
import json
import statistics
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from scripts.benchmarks.database import SERVER, administer
from scripts.benchmarks.load import ask, request
from scripts.benchmarks.processes import Process, quartet
from scripts.benchmarks.streams import accounts, quantile, streamed
from scripts.benchmarks.tables import Table

TURNS = 300
WARM = 20
EXPRESSION, VALUE = "6 * 7", "42"
SETTINGS = {"CHAT_RATE": "1000000/minute"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def _answer(delta: dict[str, Any], reason: str) -> bytes:
    """A whole HTTP answer that streams one delta, as chat completions do."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {**head, "choices": [], "usage": USAGE},
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


CALL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "calculator", "arguments": json.dumps({"expression": EXPRESSION})},
}
ASKS = _answer({"role": "assistant", "tool_calls": [CALL]}, "tool_calls")
SAYS = _answer({"role": "assistant", "content": VALUE}, "stop")


class Model(asyncio.Protocol):
    """An OpenAI-compatible endpoint on kept connections: a call of the calculator first, then the
    answer. It counts, and takes the time from a request's last byte to its answer."""

    calls = 0
    spent = 0.0

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        begun = time.perf_counter()
        self._buffer += data
        head, _, body = self._buffer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not length or len(body) < int(length):
            return
        self._buffer = b""
        last = json.loads(body)["messages"][-1]
        told = last["role"] == "tool"
        if told and last["content"] != VALUE:
            raise RuntimeError(f"the tool gave {last['content']!r}")
        self._transport.write(SAYS if told else ASKS)
        Model.calls += 1
        Model.spent += time.perf_counter() - begun


class Turn(NamedTuple):
    """Seconds from the request to the stream's end, and those that the model took of them."""

    whole: float
    model: float


async def _turn(port: int, token: str, provider: str) -> Turn:
    """One turn in a new session. Raises RuntimeError unless it went as it should."""
    body = {
        "messages": [{"role": "user", "content": f"What is {EXPRESSION}?"}],
        "session_id": f"bench-{uuid.uuid4()}",
        "llm_model_config": {"llm_provider_id": provider},
    }
    calls, spent = Model.calls, Model.spent
    client = await streamed(port, request("POST", "/api/web-stream", token=token, body=body))
    types = [line["type"] for _, line in client.lines() if line["type"] != "token_usage"]
    wanted = ["tool_call", "tool_call_result", "assistant_text", "stream_end"]
    if types != wanted or Model.calls - calls != 2:
        raise RuntimeError(f"{Model.calls - calls} calls of the model; {types}")
    return Turn(client.ended_at - client.sent_at, Model.spent - spent)


class Measured(NamedTuple):
    """The turns of one database, and the server's seconds of CPU for all of them."""

    turns: list[Turn]
    cpu: float


async def _measure(server: Process, base_url: str) -> Measured:
    token = (await accounts(server.port))[0]
    body = {"base_url": base_url, "api_keys": ["bench"], "model": "m"}
    made = await ask(
        server.port, request("POST", "/api/llm-provider/create", token=token, body=body)
    )
    for _ in range(WARM):
        await _turn(server.port, token, made["provider_id"])
    spent = server.cpu
    turns = [await _turn(server.port, token, made["provider_id"]) for _ in range(TURNS)]
    return Measured(turns, server.cpu - spent)


async def _with_model(folder: Path, url: str) -> Measured:
    model = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", 0)
    place = f"127.0.0.1:{model.sockets[0].getsockname()[1]}"
    settings = {**SETTINGS, "OUTBOUND_ALLOW": f"model={place}", "DATABASE_URL": url}
    try:
        with await asyncio.to_thread(quartet, folder, settings=settings) as server:
            return await _measure(server, f"http://{place}/v1")
    finally:
        model.close()


def run() -> list[Table]:
    """The table of bench (f)."""
    table = Table(
        "(f) A turn with one tool call, beyond the model's own time",
        ["database", "overhead p50, ms", "p99", "highest", "model, ms", "server's CPU, ms a turn"],
        note=f"`/api/web-stream` in a new session, {TURNS} turns one after another: the model asks "
        "for the built-in calculator, gets its result and answers. From the request to the "
        "stream's end, without what the model took from a request's last byte to its answer; the "
        "run is durable, its rows and events are committed as by default.",
    )
    name = f"quartet_bench_{uuid.uuid4().hex[:12]}"
    for title, url in (("SQLite", ""), ("PostgreSQL", f"{SERVER}/{name}")):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            if url:
                administer(f"CREATE DATABASE {name}")
                stack.callback(administer, f"DROP DATABASE {name} WITH (FORCE)")
            turns, cpu = asyncio.run(_with_model(Path(folder), url))
        over = [turn.whole - turn.model for turn in turns]
        p50 = quantile(over, 0.5)
        table.rows.append(
            [
                title,
                f"{p50:.1f}",
                f"{quantile(over, 0.99):.1f}",
                f"{max(over) * 1e3:.1f}",
                f"{statistics.median(turn.model for turn in turns) * 1e3:.2f}",
                f"{cpu / len(turns) * 1e3:.1f}",
            ]
        )
        table.claim(f"overhead of a turn with a tool, {title}, p50, ms", p50, at_most=25)
    return [table]
