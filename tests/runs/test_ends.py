"""Runs that are ended from outside, and sessions that are asked twice at once."""

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from domain.errors import Conflict, Throttled
from domain.runs.ending import CUT_OFF
from domain.runs.life import RunPolicy
from domain.turn import listening
from gateways.models.model import Delta, Finish, ModelCall, ToolCall
from tests.gateways.peer import Peer, Request
from tests.runs.conftest import Here
from tests.runs.test_turns import Recorder, script
from tests.runs.world import ADA, BOB, World, text, types

SLOW = script({"tokens": 2000, "every_ms": 5})


async def test_an_interrupt_ends_the_run_and_keeps_what_was_said(here: World) -> None:
    run = await here.start(SLOW)
    await here.shown(run, 3)
    await here.runs.interrupt(BOB, "s")
    assert (await here.run(run.id)).live
    assert [one.session_id for one in await here.runs.active(ADA)] == ["s"]
    await here.runs.interrupt(ADA, "s", "enough")
    lines = await here.lines(run)
    assert types(lines) == ["assistant_text", "system", "stream_end"]
    assert text(lines, "system") == "enough"
    assert lines[-1]["total_stream_count"] == len(lines)
    ended = await here.run(run.id)
    assert (ended.state, ended.reason, ended.lines) == ("cancelled", "interrupted", len(lines))
    assert (await here.messages())[-1].text == text(lines)
    [shown] = await here.runs.active(ADA)
    assert shown.state == "cancelled"
    await here.idle()
    await here.runs.interrupt(ADA, "s")
    await here.runs.interrupt(ADA, "unknown")
    assert len(await here.lines(run)) == len(lines)


async def test_a_stalled_model_is_interrupted_at_once(here: World) -> None:
    run = await here.start(script({"say": "a "}, {"stall_ms": 600_000}))
    await here.shown(run, 1)
    async with asyncio.timeout(5):
        await here.runs.interrupt(ADA, "s")
        assert types(await here.lines(run)) == ["assistant_text", "system", "stream_end"]
        await here.idle()


async def test_a_busy_session_refuses_or_is_taken_over(here: World) -> None:
    run = await here.start(SLOW)
    with pytest.raises(Conflict) as refusal:
        await here.start("two")
    assert refusal.value.key == "session.busy"
    assert [one.text for one in await here.messages() if one.role == "user"] == [SLOW]
    newer = await here.start("two", interrupts=True)
    assert text(await here.lines(newer)) == "two"
    assert (await here.run(run.id)).reason == "replaced"
    assert types(await here.lines(run))[-2:] == ["system", "stream_end"]
    other = await here.start("other", caller=BOB)
    assert text(await here.lines(other)) == "other"


async def test_a_run_that_is_taken_over_stands_before_the_one_that_takes_over(
    make: Here,
) -> None:
    """Its unfinished answer was kept behind the new question, and the model was shown it so."""
    model = Recorder()
    async with make(script=model) as here:
        run = await here.start(SLOW)
        await here.shown(run, 3)
        newer = await here.start("two", interrupts=True)
        await here.lines(newer)
        cut = text(await here.lines(run))
        assert [message.text for message in await here.messages()] == [SLOW, cut, "two", "two"]
        shown = [message["content"] for message in model.calls[-1].messages[1:]]
        assert shown == [SLOW, cut, "two"]


async def test_a_busy_session_keeps_nothing_of_what_it_refuses(here: World) -> None:
    run = await here.start(SLOW)
    await here.shown(run, 3)
    with pytest.raises(Conflict):
        await here.start("two")
    await here.runs.interrupt(ADA, "s")
    cut = text(await here.lines(run))
    assert [message.text for message in await here.messages()] == [SLOW, cut]


async def test_of_posts_at_once_one_runs(here: World) -> None:
    began = await asyncio.gather(*(here.start(SLOW) for _ in range(8)), return_exceptions=True)
    runs = [one for one in began if not isinstance(one, BaseException)]
    assert len(runs) == 1
    assert all(isinstance(one, Conflict) for one in began if isinstance(one, BaseException))
    taken = await asyncio.gather(*(here.start(SLOW, interrupts=True) for _ in range(8)))
    live = [run for run in taken if (await here.run(run.id)).live]
    assert len(live) == 1
    await here.runs.interrupt(ADA, "s")
    assert [run.id for run in taken if (await here.run(run.id)).live] == []


async def test_a_client_that_leaves_stops_the_run(here: World) -> None:
    run = await here.start(SLOW, stops_with_client=True)
    await here.shown(run, 3)
    here.runs.client_left(run.id)
    assert types(await here.lines(run))[-2:] == ["system", "stream_end"]
    assert (await here.run(run.id)).reason == "client_left"


class BothAtOnce(Recorder):
    """Asks for a page and a sum in one breath, and then says what it is told."""

    url = ""

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        if self.calls:
            async for delta in super().stream(call):
                yield delta
            return
        self.calls.append(call)
        yield ToolCall("page", "web_fetch", json.dumps({"url": self.url}))
        yield ToolCall("sum", "calculator", '{"expression": "6 * 7"}')
        yield Finish("tool_calls")


async def test_a_call_that_is_cut_off_has_failed(make: Here) -> None:
    """For whoever follows, and for the model that reads of it in the next turn."""
    peer, model = await Peer().start(), BothAtOnce()
    asked, left = asyncio.Event(), asyncio.Event()

    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await left.wait()

    peer.routes["/slow"], model.url = never, f"{peer.url}/slow"
    async with make(script=model) as here:
        run = await here.start("look it up")
        async with asyncio.timeout(20):
            await asked.wait()
            await here.shown(run, 2)
        await here.runs.interrupt(ADA, "s")
        lines = await here.lines(run)
        assert types(lines) == ["tool_call", "tool_call_result", "system", "stream_end"]
        given = {
            line["tool_call_id"]: (line["content"], line["metadata"]["failed"])
            for line in lines
            if line["type"] == "tool_call_result"
        }
        assert given == {"sum": ("42", False), "page": (CUT_OFF, True)}
        await here.turn("and on")
        read = {
            m["tool_call_id"]: m["content"]
            for m in model.calls[-1].messages[1:]
            if "tool_call_id" in m
        }
        assert read == {"sum": "42", "page": CUT_OFF}
    left.set()
    await peer.stop()


class Forgetful(Recorder):
    """Calls each of its calls the same."""

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        if len(self.calls) == 3:
            async for delta in super().stream(call):
                yield delta
            return
        self.calls.append(call)
        yield ToolCall("call_0", "calculator", f'{{"expression": "{len(self.calls)} * 2"}}')
        yield Finish("tool_calls")


async def test_an_id_that_comes_again_is_another_call(make: Here) -> None:
    async with make(script=Forgetful()) as here:
        lines = await here.turn("double")
        results = [line["content"] for line in lines if line["type"] == "tool_call_result"]
        assert results == ["2", "4", "6"]
        assert types(lines)[-1] == "stream_end"


async def test_a_deleted_conversation_stops_its_run(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        run = await here.start(SLOW)
        await here.shown(run, 3)
        await here.conversations.delete(ADA, "s")
        assert await here.store.get(run.id) is None
        await here.idle()
        assert await here.runs.find(ADA, "s") is None
        assert len(model.calls) == 1


async def test_an_account_has_a_bounded_number_of_runs(make: Here) -> None:
    model = Recorder()
    async with make(script=model, policy=RunPolicy(per_user=2)) as here:
        runs = [await here.start(SLOW, f"s{i}") for i in range(8)]
        with pytest.raises(Throttled):
            await here.start("x", "s8")
        assert text(await here.turn("x", session_id="s8", caller=BOB)) == "x"
        assert len(model.calls) == 3
        for i, run in reversed(list(enumerate(runs))):
            await here.runs.interrupt(ADA, f"s{i}")
            assert not (await here.run(run.id)).live
        assert len(model.calls) == 3
        assert text(await here.turn("x", session_id="s8")) == "x"


async def test_reading_goes_on_from_any_line(here: World) -> None:
    run = await here.start(script({"tokens": 40, "every_ms": 2}))
    halves = await asyncio.gather(*(here.lines(run, k) for k in (0, 1, 7, 39)))
    whole = await here.lines(run)
    for k, lines in zip((0, 1, 7, 39), halves, strict=True):
        assert lines == whole[k:]
    assert await here.runs.lines_of(run.id) == len(whole)
    found = await here.runs.find(ADA, "s", run.id)
    assert found is not None
    assert found.run.id == run.id
    assert await here.runs.find(BOB, "s", run.id) is None
    assert await here.runs.get(BOB, run.id) is None


async def test_an_answer_without_end_is_ended(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Security: a model's own timeout bounds its silence, not what it says."""
    monkeypatch.setattr(listening, "ANSWER_MAX", 20)
    run = await here.start(script({"tokens": 1000}))
    lines = await here.lines(run)
    assert types(lines)[-2:] == ["error", "stream_end"]
    ended = await here.run(run.id)
    assert (ended.state, ended.reason) == ("failed", "model_malformed")
    assert len(text(lines)) <= 20
    assert (await here.messages())[-2].text == text(lines)


async def test_an_answer_that_drips_is_ended(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "ANSWER_S", 0.3)
    run = await here.start(script({"tokens": 1000, "every_ms": 20}))
    lines = await here.lines(run)
    assert types(lines)[-2:] == ["error", "stream_end"]
    ended = await here.run(run.id)
    assert (ended.state, ended.reason) == ("failed", "model_timeout")
    assert text(lines).startswith("t0 t1 ")
