"""embedded/script: the grammar of rules.md, step by step."""

import asyncio
import json
import time
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from gateways.errors import ModelCancelled, ModelDropped, ModelRefused
from gateways.models.model import Ask, Delta, Finish, ModelCall, Text, ToolCall, Usage
from gateways.models.script import ScriptModel


def script(*steps: Any) -> str:
    return "script: " + json.dumps(steps)


def call(content: Any, *after: dict[str, Any], **settings: Any) -> ModelCall:
    return ModelCall(messages=[{"role": "user", "content": content}, *after], **settings)


async def run(call: ModelCall, into: list[Delta] | None = None) -> list[Delta]:
    deltas = [] if into is None else into
    async for delta in ScriptModel().stream(call):
        deltas.append(delta)
    return deltas


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Text))


def result(call: ToolCall | Ask, content: str = "done") -> list[dict[str, Any]]:
    return [
        {"role": "assistant", "content": None, "tool_calls": [{"id": call.id}]},
        {"role": "tool", "tool_call_id": call.id, "content": content},
    ]


@pytest.mark.parametrize(
    "message",
    [
        "hello  brave\nnew world",
        " leading and trailing ",
        "script: not json",
        'script: {"say": "an object"}',
        "script:",
        '"script: []"',
        "schön 世界 🎉",
        "script: " + "[" * 5000,
    ],
)
async def test_anything_else_is_echoed_word_by_word(message: str) -> None:
    deltas = await run(call(message))
    assert text(deltas) == message
    words = len(message.split())
    assert deltas[-2:] == [Usage(words, words), Finish("stop")]
    assert len(deltas) == words + 2


async def test_a_long_stretch_of_white_space_costs_nothing() -> None:
    assert await run(call(" " * 1_000_000)) == [Usage(0, 0), Finish("stop")]


async def test_parts_are_read_as_text_and_earlier_messages_are_only_counted() -> None:
    messages = [
        {"role": "system", "content": "one two"},
        {"role": "user", "content": script({"fail": "not the last"})},
        {"role": "assistant", "content": "three"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "four five"},
                {"type": "image_url", "image_url": {"url": "data:,x"}},
            ],
        },
    ]
    deltas = await run(ModelCall(messages=messages))
    assert text(deltas) == "four five"
    expected = sum(
        len(part.split()) for part in ["one two", messages[1]["content"], "three", "4 5"]
    )
    assert deltas[-2] == Usage(expected, 2)


async def test_steps_run_in_order_and_words_are_counted() -> None:
    message = script({"say": "a b "}, {"tokens": 3}, {"json": {"k": "v w"}}, {"stall_ms": 1})
    deltas = await run(call(message))
    assert text(deltas) == 'a b t0 t1 t2 {"k":"v w"}'
    assert deltas[-2] == Usage(len(message.split()), 7)


async def test_the_same_messages_give_the_same_answer() -> None:
    first, second = [await run(call(script({"tokens": 2}, {"call": "f", "args": {"x": 1}})))] * 2
    assert [d for d in first if not isinstance(d, Text)] == [
        d for d in second if not isinstance(d, Text)
    ]
    assert text(first) == text(second)


async def test_after_a_call_the_next_step_runs_with_its_result() -> None:
    message = script(
        {"say": "one"},
        {"call": "search", "args": {"q": "é"}},
        {"call": "clock"},
        {"ask": "sure?"},
        {"say": "end"},
    )
    history: list[dict[str, Any]] = []
    first = await run(call(message))
    search = first[1]
    assert search == ToolCall("call_1_1", "search", '{"q":"é"}')
    assert first[-1] == Finish("tool_calls")

    history += result(search)
    second = await run(call(message, *history))
    clock = second[0]
    assert clock == ToolCall("call_1_2", "clock", "{}")

    history += result(clock)
    third = await run(call(message, *history))
    ask = third[0]
    assert ask == Ask("call_1_3", "sure?")
    assert third[-1] == Finish("ask")

    history += result(ask, "yes")
    fourth = await run(call(message, *history))
    assert text(fourth) == "end"
    assert fourth[-1] == Finish("stop")

    history += result(ask, "one result too many")
    assert text(await run(call(message, *history))) == ""


async def test_a_new_user_message_starts_anew() -> None:
    old = script({"call": "f"}, {"say": "old"})
    deltas = await run(
        call(old, *result(ToolCall("call_1_0", "f", "{}")), {"role": "user", "content": old})
    )
    assert deltas[0] == ToolCall("call_2_0", "f", "{}")


async def test_max_tokens_cuts_the_answer() -> None:
    deltas = await run(call("one two three", max_tokens=2))
    assert text(deltas) == "one two "
    assert deltas[-2:] == [Usage(3, 2), Finish("length")]
    deltas = await run(call(script({"json": {"k": "v w"}}, {"call": "f"}), max_tokens=1))
    assert text(deltas) == '{"k":"v '
    assert deltas[-1] == Finish("length")


async def test_fail_and_drop_end_what_was_begun() -> None:
    seen: list[Delta] = []
    steps = {"say": "before"}, {"fail": "quota", "status": 429}, {"say": "never"}
    with pytest.raises(ModelRefused, match="quota") as failed:
        await run(call(script(*steps)), into=seen)
    assert failed.value.status == 429
    assert text(seen) == "before"
    with pytest.raises(ModelRefused) as failed:
        await run(call(script({"fail": "no status"})))
    assert failed.value.status == 500
    with pytest.raises(ModelDropped):
        await run(call(script({"drop": True})))


@pytest.mark.parametrize(
    "step",
    [
        {"sing": "a song"},
        {"say": 1},
        {"say": "a", "ask": "b"},
        {"tokens": -1},
        {"tokens": 10**9},
        {"tokens": 2, "every_ms": "fast"},
        {"call": ""},
        {"call": "f", "arguments": {}},
        {"json": "text"},
        {"fail": "x", "status": 200},
        "say",
        None,
        [],
    ],
)
async def test_a_step_outside_the_grammar_refuses_the_script_before_its_first_step(
    step: Any,
) -> None:
    deltas: list[Delta] = []
    with pytest.raises(ModelRefused, match="step 1 of the script") as refused:
        await run(call(script({"say": "hello"}, step)), into=deltas)
    assert refused.value.status == 400
    assert deltas == []


async def test_tokens_are_paced_and_stamped_when_due() -> None:
    started = time.time()
    deltas = await run(call(script({"tokens": 5, "every_ms": 20})))
    stamps = [delta.stamp for delta in deltas if isinstance(delta, Text)]
    gaps = [later - earlier for earlier, later in pairwise(stamps)]
    assert gaps == pytest.approx([0.02] * 4, abs=1e-4)
    assert started <= stamps[0]
    assert stamps[-1] <= time.time() + 0.001


@pytest.mark.parametrize(
    "steps", [[{"stall_ms": 600_000}], [{"tokens": 100, "every_ms": 60_000}]], ids=["stall", "pace"]
)
async def test_the_cancel_event_ends_a_wait(steps: list[Any]) -> None:
    cancel = asyncio.Event()
    reading = asyncio.create_task(run(call(script(*steps), cancel=cancel)))
    await asyncio.sleep(0.02)
    assert not reading.done()
    cancel.set()
    with pytest.raises(ModelCancelled):
        await asyncio.wait_for(reading, 5)


async def test_a_call_cancelled_beforehand_says_nothing() -> None:
    cancel = asyncio.Event()
    cancel.set()
    with pytest.raises(ModelCancelled):
        await run(call("hello", cancel=cancel))


async def test_a_long_answer_lets_the_loop_breathe_and_can_be_cancelled() -> None:
    cancel = asyncio.Event()
    asyncio.get_running_loop().call_soon(cancel.set)
    with pytest.raises(ModelCancelled):
        await run(call("word " * 100_000, cancel=cancel))


async def test_closing_the_iterator_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    async with aclosing(
        ScriptModel().stream(call(script({"tokens": 9, "every_ms": 10}), cancel=asyncio.Event()))
    ) as deltas:
        seen = [await anext(deltas), await anext(deltas)]
    await asyncio.sleep(0)
    assert text(seen) == "t0 t1 "
    assert asyncio.all_tasks() == before


async def test_many_streams_at_once_each_get_their_own_tokens() -> None:
    message = script({"tokens": 20, "every_ms": 1})
    answers = await asyncio.gather(*(run(call(message)) for _ in range(200)))
    assert {text(answer) for answer in answers} == {"".join(f"t{i} " for i in range(20))}
