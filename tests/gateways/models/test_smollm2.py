"""embedded/smollm2: real tokens from a real process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from gateways.errors import ModelCancelled, ModelDropped, ModelRefused, ModelUnreachable
from gateways.models import smollm2
from gateways.models.model import Delta, Finish, ModelCall, Text, Usage
from gateways.models.smollm2 import SmolLM2


def call(content: str, **settings: Any) -> ModelCall:
    return ModelCall(
        messages=[{"role": "user", "content": content}], **{"max_tokens": 8, **settings}
    )


async def run(model: SmolLM2, call: ModelCall, into: list[Delta] | None = None) -> list[Delta]:
    deltas = [] if into is None else into
    async for delta in model.stream(call):
        deltas.append(delta)
    return deltas


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Text))


def gone(pid: int) -> bool:
    """Whether the process has ended (or is only waiting to be reaped)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


async def until_gone(pid: int) -> None:
    for _ in range(500):
        if gone(pid):
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"process {pid} is still there")


@pytest.fixture
async def model() -> AsyncIterator[SmolLM2]:
    model = SmolLM2(context=256)
    yield model
    await model.close()


async def test_it_loads_at_the_first_call_and_streams_tokens(model: SmolLM2) -> None:
    assert model.pid is None
    deltas = await run(model, call("What is the capital of France?", temperature=0))
    assert text(deltas)
    assert sum(isinstance(delta, Text) for delta in deltas) > 3
    usage, finish = deltas[-2:]
    assert isinstance(usage, Usage)
    assert usage.input_tokens > 5
    assert 3 < usage.output_tokens <= 8
    assert isinstance(finish, Finish)

    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "size": {"enum": [1, 2]}},
        "required": ["city", "size"],
        "additionalProperties": False,
    }
    asked = call("A city as JSON.", json_schema=schema, max_tokens=100)
    answer = json.loads(text(await run(model, asked)))
    assert set(answer) == {"city", "size"}
    assert answer["size"] in (1, 2)

    with pytest.raises(ModelRefused):
        await run(model, call("x", json_schema={"type": "nothing known"}))
    assert text(await run(model, call("Still there?")))


async def test_several_calls_wait_for_each_other(model: SmolLM2) -> None:
    answers = await asyncio.gather(
        *(run(model, call(f"Count to {i}.", max_tokens=2)) for i in range(3))
    )
    assert all(text(answer) for answer in answers)


async def test_a_conversation_beyond_the_context_is_cut_oldest_first(model: SmolLM2) -> None:
    history = [
        {"role": role, "content": f"{role} number {i} says a few words, as everyone does."}
        for i in range(20)
        for role in ("user", "assistant")
    ]
    system = {"role": "system", "content": "You are brief."}
    question = {"role": "user", "content": "What is the capital of France?"}
    deltas = await run(
        model, ModelCall(messages=[system, *history, question], max_tokens=10, temperature=0)
    )
    usage = deltas[-2]
    assert isinstance(usage, Usage)
    assert 150 < usage.input_tokens <= 246
    child = await model._running()
    fitting = smollm2.Fitting(child.request, 100)
    kept = await fitting.fit([system, *history, question])
    assert kept[0] == system
    assert kept[-1] == question
    assert kept[1:-1] == history[-(len(kept) - 2) :]

    long = "".join(f"{i} 世界 " for i in range(200)) + "the end"
    for messages in (
        [{"role": "user", "content": long}],
        [{"role": "system", "content": long}, {"role": "user", "content": long}],
        [{"role": "system", "content": long}],
    ):
        kept = await fitting.fit(messages)
        assert kept[-1]["content"].endswith("the end")
        assert len(await fitting._tokens("".join(m["content"] for m in kept))) <= 100
        assert [m["role"] for m in kept] == [m["role"] for m in messages]
    assert text(await run(model, ModelCall(messages=messages, max_tokens=4)))


async def test_tool_messages_of_other_models_are_told_as_text(model: SmolLM2) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What time is it?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]},
        {"role": "tool", "tool_call_id": "a", "content": "It is noon."},
    ]
    assert text(await run(model, ModelCall(messages=messages, max_tokens=4)))
    with pytest.raises(ModelRefused):
        await run(model, call("x", tools=[{"type": "function", "function": {"name": "f"}}]))


async def test_cancelling_frees_the_place(model: SmolLM2) -> None:
    for _ in range(3):
        cancel = asyncio.Event()
        deltas: list[Delta] = []
        reading = asyncio.create_task(
            run(model, call("Tell a long story.", max_tokens=120, cancel=cancel), into=deltas)
        )
        while not deltas and not reading.done():
            await asyncio.wait((reading,), timeout=0.01)
        cancel.set()
        with pytest.raises(ModelCancelled):
            await asyncio.wait_for(reading, 10)
    async with aclosing(model.stream(call("Another one."))) as deltas_:
        await anext(deltas_)
    assert text(await run(model, call("Hello")))


async def test_a_process_that_dies_is_told_and_replaced(model: SmolLM2) -> None:
    stream = model.stream(call("Tell a very long story.", max_tokens=120))
    await anext(stream)
    first = model.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ModelDropped):
        async for _ in stream:
            pass
    assert text(await run(model, call("Hello")))
    assert model.pid not in (None, first)
    assert gone(first)


async def test_it_unloads_when_nobody_calls() -> None:
    model = SmolLM2(context=256, idle_s=0.05)
    await run(model, call("Hello"))
    pid = model.pid
    assert pid is not None
    await until_gone(pid)
    assert text(await run(model, call("Hello again")))
    await model.close()


async def test_its_socket_is_private_and_asks_for_the_key(model: SmolLM2) -> None:
    import httpx2

    await run(model, call("Hello"))
    child = await model._running()
    assert child._folder.stat().st_mode & 0o777 == 0o700
    transport = httpx2.AsyncHTTPTransport(uds=str(child._folder / "s.sock"), verify=False)
    async with httpx2.AsyncClient(transport=transport) as stranger:
        answer = await stranger.post("http://x/v1/chat/completions", json={"messages": []})
    assert answer.status_code == 401
    environment = Path(f"/proc/{model.pid}/environ").read_bytes()
    assert {entry.partition(b"=")[0] for entry in environment.split(b"\0") if entry} <= {
        b"PATH",
        b"LC_ALL",
    }
    folder = child._folder
    await model.close()
    assert not folder.exists()


async def test_it_dies_with_its_parent() -> None:
    program = """
import asyncio, sys
from gateways.models.model import ModelCall
from gateways.models.smollm2 import SmolLM2

async def main():
    model = SmolLM2(context=256)
    call = ModelCall(messages=[{"role": "user", "content": "hi"}], max_tokens=2)
    async for _ in model.stream(call): pass
    child = await model._running()
    print(model.pid, child._folder, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid, folder = (await asyncio.wait_for(parent.stdout.readline(), 60)).decode().split()
    parent.kill()
    await parent.wait()
    await until_gone(int(pid))
    assert not Path(folder).exists()


async def test_missing_weights_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package")
    with pytest.raises(ModelUnreachable, match="not installed"):
        await run(SmolLM2(), call("Hello"))


async def test_a_process_that_cannot_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not weights")
    monkeypatch.setattr(smollm2, "weights", lambda: broken)
    with pytest.raises(ModelUnreachable, match="did not start"):
        await run(SmolLM2(), call("Hello"))
