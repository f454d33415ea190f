"""Any OpenAI-compatible endpoint, against real servers: our script model over HTTP, and answers
written by hand that no good server would send."""

import asyncio
import base64
import json
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateways.errors import (
    ModelCancelled,
    ModelDropped,
    ModelError,
    ModelMalformed,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
)
from gateways.models.model import (
    Capabilities,
    Delta,
    Finish,
    ModelCall,
    Reasoning,
    Text,
    ToolCall,
    Usage,
)
from gateways.models.openai_compatible import Endpoint, OpenAIModel
from gateways.outbound import Outbound
from tests.gateways.peer import Peer, Request, plain

ROOT = Path(__file__).parents[3]
KEY = "sk-canary-7d1f"


@pytest.fixture(scope="module")
def script_url() -> Iterator[str]:
    """The base URL of scripts/script-model, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "script-model"), "--port", "0", "--key", KEY],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    outbound = Outbound(["model=127.0.0.1"])
    yield outbound
    await outbound.close()


def model(outbound: Outbound, base_url: str, key: str = KEY, **limits: Any) -> OpenAIModel:
    endpoint = Endpoint(base_url=base_url, api_key=key, model="any", **limits)
    return OpenAIModel(endpoint, outbound.client("model"))


def call(content: Any, **settings: Any) -> ModelCall:
    return ModelCall(messages=[{"role": "user", "content": content}], **settings)


def script(*steps: Any) -> str:
    return "script: " + json.dumps(steps)


async def run(model: OpenAIModel, call: ModelCall, into: list[Delta] | None = None) -> list[Delta]:
    deltas = [] if into is None else into
    async for delta in model.stream(call):
        deltas.append(delta)
    return deltas


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Text))


async def calls(script_url: str) -> dict[str, Any]:
    async with httpx2.AsyncClient() as client:
        return (await client.get(script_url.removesuffix("/v1") + "/calls")).json()


# --- the script model over HTTP -----------------------------------------------------------------


async def test_an_answer_streams_with_its_usage(outbound: Outbound, script_url: str) -> None:
    before = (await calls(script_url))["calls"]
    deltas = await run(model(outbound, script_url), call("hello brave new world"))
    assert text(deltas) == "hello brave new world"
    assert sum(isinstance(delta, Text) for delta in deltas) == 4
    assert deltas[-2:] == [Usage(4, 4), Finish("stop")]
    assert (await calls(script_url))["calls"] == before + 1


async def test_tool_calls_and_their_results(outbound: Outbound, script_url: str) -> None:
    peer = model(outbound, script_url)
    message = script({"say": "so "}, {"call": "clock", "args": {"zone": "Zürich"}}, {"say": "end"})
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]
    first = await run(peer, call(message, tools=tools))
    tool_call = next(delta for delta in first if isinstance(delta, ToolCall))
    assert tool_call == ToolCall("call_1_1", "clock", '{"zone":"Zürich"}')
    assert first[-1] == Finish("tool_calls")
    function = {"name": tool_call.name, "arguments": tool_call.arguments}
    asked = [{"id": tool_call.id, "type": "function", "function": function}]
    messages = [
        {"role": "user", "content": message},
        {"role": "assistant", "content": "so ", "tool_calls": asked},
        {"role": "tool", "tool_call_id": tool_call.id, "content": "noon"},
    ]
    assert text(await run(peer, ModelCall(messages=messages, tools=tools))) == "end"
    assert (await calls(script_url))["last"]["tools"] == tools


async def test_an_ask_is_a_call_of_the_tool_ask(outbound: Outbound, script_url: str) -> None:
    deltas = await run(model(outbound, script_url), call(script({"ask": "really?"})))
    assert deltas[0] == ToolCall("call_1_0", "ask", '{"question":"really?"}')


async def test_limits_of_the_provider_stand_in_for_those_of_the_call(
    outbound: Outbound, script_url: str
) -> None:
    peer = model(outbound, script_url, max_tokens=2, temperature=0.5, top_p=0.25)
    deltas = await run(peer, call("one two three"))
    assert (text(deltas), deltas[-1]) == ("one two ", Finish("length"))
    await run(peer, call("x", max_tokens=3, temperature=0, presence_penalty=1))
    last = (await calls(script_url))["last"]
    assert (last["max_tokens"], last["temperature"], last["top_p"]) == (3, 0, 0.25)
    assert last["presence_penalty"] == 1


async def test_structured_output(outbound: Outbound, script_url: str) -> None:
    schema = {
        "type": "object",
        "required": ["name", "size", "kind"],
        "properties": {
            "name": {"type": "string"},
            "size": {"type": "integer", "minimum": 3},
            "kind": {"$ref": "#/$defs/kind"},
        },
        "$defs": {"kind": {"enum": ["a", "b"]}},
    }
    deltas = await run(model(outbound, script_url), call("make one", json_schema=schema))
    assert json.loads(text(deltas)) == {"name": "x", "size": 3, "kind": "a"}


def png(red: int, green: int, blue: int) -> str:
    """A 2×1 PNG of one colour, as a data: URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    row = b"\0" + bytes([red, green, blue]) * 2
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


async def test_image_parts_reach_the_model(outbound: Outbound, script_url: str) -> None:
    parts = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": png(250, 5, 5)}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    deltas = await run(model(outbound, script_url), call(parts))
    assert text(deltas) == "image 2x1 red image unreadable what is it?"


async def test_what_a_model_cannot_do_is_refused_before_the_call(
    outbound: Outbound, script_url: str
) -> None:
    none = Capabilities(tools=False, images=False, json_schema=False)
    peer = model(outbound, script_url, capabilities=none)
    before = (await calls(script_url))["calls"]
    image = [{"type": "image_url", "image_url": {"url": png(0, 0, 0)}}]
    for asked in (call("x", tools=[{}]), call("x", json_schema={}), call(image)):
        with pytest.raises(ModelRefused) as refused:
            await run(peer, asked)
        assert refused.value.status == 400
    assert (await calls(script_url))["calls"] == before


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([{"fail": "quota", "status": 429}], 429),
        ([{"fail": "down", "status": 503}], 503),
        ([{"say": "before"}, {"fail": "quota", "status": 429}], 429),
        ([{"dance": 1}], 400),
    ],
)
async def test_a_refusal_keeps_its_status_and_is_not_tried_again(
    outbound: Outbound, script_url: str, steps: list[Any], status: int
) -> None:
    before = (await calls(script_url))["calls"]
    with pytest.raises(ModelRefused) as refused:
        await run(model(outbound, script_url), call(script(*steps)))
    assert refused.value.status == status
    assert (await calls(script_url))["calls"] == before + 1


async def test_a_wrong_key_is_refused_and_not_shown(outbound: Outbound, script_url: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        await run(model(outbound, script_url, key="sk-wrong"), call("hello"))
    assert refused.value.status == 401
    assert "sk-wrong" not in str(refused.value)
    assert KEY not in repr(Endpoint(base_url="u", api_key=KEY, model="m"))


@pytest.mark.parametrize("steps", [[{"drop": True}], [{"say": "a b"}, {"drop": True}]])
async def test_a_dropped_connection_is_told_apart(
    outbound: Outbound, script_url: str, steps: list[Any]
) -> None:
    before = (await calls(script_url))["calls"]
    deltas: list[Delta] = []
    with pytest.raises(ModelDropped):
        await run(model(outbound, script_url), call(script(*steps)), into=deltas)
    assert text(deltas) == ("a b" if len(steps) == 2 else "")
    assert (await calls(script_url))["calls"] == before + 1


async def test_silence_ends_at_the_time_allowed(outbound: Outbound, script_url: str) -> None:
    with pytest.raises(ModelTimeout):
        await run(model(outbound, script_url), call(script({"stall_ms": 60_000}), timeout_s=0.3))


async def test_cancelling_and_closing_end_the_call(outbound: Outbound, script_url: str) -> None:
    peer, cancel = model(outbound, script_url), asyncio.Event()
    slow = script({"say": "one "}, {"stall_ms": 600_000})
    reading = asyncio.create_task(run(peer, call(slow, cancel=cancel)))
    await asyncio.sleep(0.2)
    cancel.set()
    with pytest.raises(ModelCancelled):
        await asyncio.wait_for(reading, 5)

    async with aclosing(peer.stream(call(slow, cancel=asyncio.Event()))) as deltas:
        assert isinstance(await anext(deltas), Text)
    reading = asyncio.create_task(run(peer, call(slow)))
    await asyncio.sleep(0.2)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reading, 5)


async def test_a_whole_answer_is_read_as_well_as_a_stream(script_url: str) -> None:
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as client:
        body = {"messages": [{"role": "user", "content": "a b"}]}
        answer = (await client.post(script_url + "/chat/completions", json=body)).json()
        assert answer["choices"][0]["message"]["content"] == "a b"
        assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
        body["messages"][0]["content"] = script({"drop": True})
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post(script_url + "/chat/completions", json=body)
        assert (await client.get(script_url + "/models")).json()["data"][0]["id"] == "script"
        assert (await client.post(script_url + "/chat/completions", json={})).status_code == 400


async def test_a_forced_tool_is_called(script_url: str) -> None:
    parameters = {"type": "object", "required": ["q"], "properties": {"q": {"type": "string"}}}
    function = {"name": "search", "parameters": parameters}
    body = {
        "messages": [{"role": "user", "content": "find it"}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
    }
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as client:
        answer = (await client.post(script_url + "/chat/completions", json=body)).json()
    called = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert called == {"name": "search", "arguments": '{"q":"x"}'}


# --- answers written by hand --------------------------------------------------------------------


def stream(*chunks: Any, done: bool = True) -> bytes:
    lines = [c if isinstance(c, bytes) else b"data: " + json.dumps(c).encode() for c in chunks]
    return plain(
        body=b"".join(line + b"\n\n" for line in lines) + (b"data: [DONE]\n\n" if done else b""),
        media_type="text/event-stream",
    )


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


async def answered(outbound: Outbound, peer: Peer, answer: bytes) -> list[Delta]:
    peer.routes["/v1/chat/completions"] = answer
    return await run(model(outbound, peer.url + "/v1"), call("hello"))


async def test_tool_calls_are_assembled_from_their_parts(outbound: Outbound, peer: Peer) -> None:
    def part(index: int | None, **fields: Any) -> dict[str, Any]:
        return chunk(tool_calls=[{"index": index, **fields}])

    deltas = await answered(
        outbound,
        peer,
        stream(
            chunk(reasoning_content="hm"),
            part(0, id="a", function={"name": "f", "arguments": '{"x":'}),
            part(1, id="b", function={"name": "g", "arguments": ""}),
            part(0, function={"arguments": "1}"}),
            chunk("tool_calls"),
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 8}},
        ),
    )
    assert isinstance(deltas[0], Reasoning)
    assert deltas[1:] == [
        ToolCall("a", "f", '{"x":1}'),
        ToolCall("b", "g", "{}"),
        Usage(7, 8),
        Finish("tool_calls"),
    ]
    deltas = await answered(
        outbound,
        peer,
        stream(
            part(None, id="a", function={"name": "f", "arguments": "{"}),
            part(None, function={"arguments": "}"}),
            part(None, id="b", function={"name": "g", "arguments": {"y": 2}}),
            chunk("stop"),
        ),
    )
    assert deltas[:2] == [ToolCall("a", "f", "{}"), ToolCall("b", "g", '{"y":2}')]
    assert deltas[-1] == Finish("tool_calls")


async def test_line_separators_inside_json_break_nothing(outbound: Outbound, peer: Peer) -> None:
    raw = json.dumps(chunk("stop", content="a\u2028b\x85c\u000bd"), ensure_ascii=False)
    deltas = await answered(outbound, peer, stream(b"data:" + raw.encode() + b"\r"))
    assert text(deltas) == "a\u2028b\x85c\u000bd"


async def test_comments_and_cut_pieces_are_read(outbound: Outbound, peer: Peer) -> None:
    body = stream(b": ping", chunk(content="é"), chunk("stop")).partition(b"\r\n\r\n")[2]

    async def byte_by_byte(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()

    peer.routes["/v1/chat/completions"] = byte_by_byte
    deltas = await run(model(outbound, peer.url + "/v1"), call("hello"))
    assert text(deltas) == "é"
    assert deltas[-2] == Usage(2, 1, estimated=True)


async def test_a_server_that_does_not_stream_is_read_whole(outbound: Outbound, peer: Peer) -> None:
    body = {
        "choices": [{"message": {"content": "whole"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
    answer = plain(body=json.dumps(body), media_type="application/json")
    deltas = await answered(outbound, peer, answer)
    assert text(deltas) == "whole"
    assert deltas[-2:] == [Usage(1, 1), Finish("length")]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (stream(chunk(content="cut"), done=False), ModelDropped),
        (stream(), ModelDropped),
        (plain(200, "", "text/event-stream"), ModelDropped),
        (b"", ModelDropped),
        (b"\x00\x01 nonsense\r\n\r\n", ModelDropped),
        (stream(b"data: not json"), ModelMalformed),
        (stream({"choices": "many"}), ModelMalformed),
        (plain(200, "<html>", "application/json"), ModelMalformed),
        (stream({"error": {"message": "full", "code": 503}}), ModelRefused),
        (stream({"error": "full"}), ModelRefused),
        (plain(302, location="http://127.0.0.1/"), ModelRefused),
        (plain(500, '{"error": {"message": "broken"}}', "application/json"), ModelRefused),
        (plain(500, "\xff\xfe", "text/html"), ModelRefused),
        (plain(404, '{"detail": "x"}', "application/json"), ModelRefused),
        (plain(200, b"x", "text/event-stream", content_encoding="br"), ModelMalformed),
    ],
)
async def test_bad_servers_end_in_typed_errors(
    outbound: Outbound, peer: Peer, answer: bytes, error: type[ModelError]
) -> None:
    with pytest.raises(error):
        await answered(outbound, peer, answer)
    assert len(peer.requests) == 1


async def test_a_server_that_quotes_the_key_shows_nothing(outbound: Outbound, peer: Peer) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with pytest.raises(ModelRefused) as refused:
        await answered(outbound, peer, plain(401, body, "application/json"))
    assert "Incorrect API key" in refused.value.message
    assert KEY not in str(refused.value)
    with pytest.raises(ModelRefused) as refused:
        await answered(outbound, peer, stream({"error": {"message": f"key {KEY} is spent"}}))
    assert KEY not in str(refused.value)


async def test_addresses_that_cannot_or_may_not_be_reached(outbound: Outbound, peer: Peer) -> None:
    with pytest.raises(ModelUnreachable):
        await run(model(outbound, "http://127.0.0.1:1/v1"), call("hello"))
    closed = Outbound()
    with pytest.raises(ModelUnreachable, match="not allowed"):
        await run(model(closed, peer.url + "/v1"), call("hello"))
    await closed.close()
    assert peer.connections == 0


async def test_the_stamp_is_when_the_text_arrived(outbound: Outbound, peer: Peer) -> None:
    before = time.time()
    deltas = await answered(outbound, peer, stream(chunk("stop", content="x")))
    assert isinstance(deltas[0], Text)
    assert before <= deltas[0].stamp <= time.time()


# --- a second real server -----------------------------------------------------------------------

LLAMA = """
import sys, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.hostnames, parameters.api_keys = ["127.0.0.1"], [sys.argv[2]]
parameters.n_ctx, parameters.warmup, parameters.cache_ram_mib = 512, False, 0
parameters.verbosity = 1
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


async def test_llama_cpp_is_such_an_endpoint(outbound: Outbound) -> None:
    from gateways.models.smollm2 import weights

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LLAMA, str(weights()), KEY,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip() + "/v1"
        deltas = await run(model(outbound, url), call("Hello", max_tokens=4))
        assert text(deltas)
        assert deltas[-1] == Finish("length")
        assert isinstance(deltas[-2], Usage)
        assert deltas[-2].output_tokens == 4
        with pytest.raises(ModelRefused) as refused:
            await run(model(outbound, url, key="wrong"), call("Hello"))
        assert refused.value.status == 401
    finally:
        process.kill()
        await process.wait()
