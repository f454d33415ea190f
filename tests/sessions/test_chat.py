"""Chats: their events, plans, questions, tools and resumption."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.sessions.talking import Place, names, plan, said, script, served

CALL = {"call": "calculator", "args": {"expression": "6*7"}}


async def test_a_plain_chat(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    async with ann.chatting(session, "grüße 世界") as events:
        headers = events.answer.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert headers["connection"] == "keep-alive"
        told = await events.rest()
    assert names(told) == ["message", "title", "message", "done"]
    mine, answer = told[0][1], told[-2][1]
    assert (mine["role"], mine["message"], mine["stream_id"]) == ("user", "grüße 世界", None)
    assert not mine["partial"]
    pieces = [data for name, data in told if name == "message" and data["partial"]]
    assert "".join(piece["message"] for piece in pieces) == answer["message"] == "grüße 世界"
    assert {piece["stream_id"] for piece in pieces} == {answer["stream_id"]}
    assert all(isinstance(data["created_at"], int) and data["event_id"] for _, data in told)
    assert len({data["event_id"] for _, data in told}) == len(told)


async def test_a_nul_ends_nothing(here: Place) -> None:
    """From a model, in a title, as a tool's name or as what a tool gives."""
    ann = await here.account()
    session = await ann.create()
    printed = {"call": "shell_execute", "args": {"command": r"printf 'a\0b'"}}
    step = script(printed, {"call": "no\0tool"}, {"say": "c\0d"})
    told = await ann.chat(session, script(plan(step, title="e\0f", message="g\0h")))
    assert [data["status"] for name, data in told if name == "tool"] == ["calling", "called"] * 2
    assert told[-1][0] == "done"
    assert said(await ann.chat(session, "and on")) == ["and on"]
    assert (await ann.detail(session))["title"] == "e\ufffdf"


async def test_the_framing(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    answer = await ann.client.post(
        f"/sandbox/api/sessions/{session}/chat", json={"message": "hello"}
    )
    *events, nothing = answer.content.split(b"\r\n\r\n")
    assert nothing == b""
    for event in events:
        name, data = event.split(b"\r\n")
        assert name.startswith(b"event: ")
        assert json.loads(data.removeprefix(b"data: "))["event_id"]


async def test_comments_keep_a_quiet_chat_alive(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    async with ann.chatting(session, script({"stall_ms": 2500}, {"say": "late"})) as events:
        told = await events.rest()
    assert said(told) == ["late"]
    assert events.comments
    assert all(comment.startswith(": ping - ") for comment in events.comments)


async def test_stopping_a_session_that_waits(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    asked = await ann.chat(session, script(plan(script({"ask": "Which?"}), "then")))
    await ann.ask("POST", f"/sandbox/api/sessions/{session}/stop")
    detail = await ann.detail(session)
    assert detail["status"] == "completed"
    steps = [one["data"]["status"] for one in detail["events"] if one["event"] == "step"]
    assert steps == ["running", "failed"]
    told = await ann.chat(session, "something else")
    assert told[0][1]["event_id"].partition(".")[0] != asked[0][1]["event_id"].partition(".")[0]
    assert told[-1][0] == "done"


async def test_a_plan_is_made_and_carried_out(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    steps = [script(CALL, {"say": "It is 42."}), "Write it down"]
    told = await ann.chat(session, script(plan(*steps, title="The answer", message="I begin.")))
    assert names(told) == [
        *("message", "title", "message", "title", "plan", "step", "tool", "message", "step"),
        *("message", "step", "message", "done"),
    ]
    [drawn] = [data for name, data in told if name == "plan"]
    assert [step["description"] for step in drawn["steps"]] == steps
    assert {step["status"] for step in drawn["steps"]} == {"pending"}
    marks = [(data["id"], data["status"]) for name, data in told if name == "step"]
    assert marks == [("1", "running"), ("1", "completed"), ("2", "running"), ("2", "completed")]
    assert said(told) == ["I begin.", "It is 42.", "Write it down", "All is done."]
    calling, called = [data for name, data in told if name == "tool"]
    assert (calling["status"], calling["function"], calling["args"]) == (
        "calling",
        "calculator",
        CALL["args"],
    )
    assert calling["content"] is None
    assert (called["status"], called["content"]) == ("called", {"result": "42"})
    assert called["tool_call_id"] == calling["tool_call_id"]
    detail = await ann.detail(session)
    assert (detail["title"], detail["status"]) == ("The answer", "completed")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("```json\n", "\n```", "I begin."),
        ("Sure, here is the plan:\n\n", "", "Sure, here is the plan:\n\nI begin."),
        ("Sure.\n```\n", "\n```\nShall I?", "Sure.\nI begin."),
    ],
)
async def test_a_plan_among_words_is_not_shown(
    here: Place, before: str, after: str, message: str
) -> None:
    ann = await here.account()
    session = await ann.create()
    drawn = json.dumps(plan("first", "second", message="I begin.")["json"])
    told = await ann.chat(session, script({"say": f"{before}{drawn}{after}"}))
    assert said(told) == [message, "first", "second", "All is done."]
    [steps] = [data["steps"] for name, data in told if name == "plan"]
    assert [step["description"] for step in steps] == ["first", "second"]
    streams: dict[str, str] = {}
    for name, data in told:
        if name == "message" and data["partial"]:
            streams[data["stream_id"]] = streams.get(data["stream_id"], "") + data["message"]
    assert list(streams.values()) == said(told)


async def test_a_plan_that_does_not_fit_is_asked_for_as_often_as_is_set(
    dialect: str, tmp_path: Path
) -> None:
    """Each time the words before it are told, and then it is done without."""
    with served(tmp_path / "data", dialect) as server:
        here = Place(server)
        admin, ann = await here.admin(), await here.account()
        for retries in (2, 4):
            limits = {"max_iterations": 100, "max_retries": retries, "max_search_results": 10}
            await admin.ask("POST", "/sandbox/api/app-config/agent", limits)
            broken = 'Sure: {"steps": "none"}'
            told = await ann.chat(await ann.create(), script({"say": broken}))
            assert said(told) == [*["Sure: "] * retries, broken]
            assert told[-1][0] == "done"
        await here.close()


async def test_what_is_no_plan_is_asked_for_again_and_then_done_without(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    told = await ann.chat(session, script({"json": {"no": "plan"}}))
    assert said(told) == ['{"no":"plan"}']
    assert "plan" not in names(told)


async def test_tools_without_a_plan(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    told = await ann.chat(session, script(CALL, {"call": "nothing"}, {"say": "Done."}))
    tools = [(data["function"], data["status"]) for name, data in told if name == "tool"]
    assert tools == [
        ("calculator", "calling"),
        ("calculator", "called"),
        ("nothing", "calling"),
        ("nothing", "called"),
    ]
    failed = next(data for name, data in told if name == "tool" and data["function"] == "nothing")
    assert failed["name"] == "tool"
    assert said(told) == ["Done."]


async def test_an_answer_lets_the_run_go_on(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    asks = script({"ask": "Which one?"}, {"say": "Thank you."})
    told = await ann.chat(session, script(plan(asks, "then")))
    assert names(told)[-2:] == ["message", "wait"]
    assert said(told)[-1] == "Which one?"
    row = await ann.eventually(session, status="waiting")
    assert row["unread_message_count"] == 0
    assert await ann.chat(session, event_id=told[-1][1]["event_id"]) == []
    more = await ann.chat(session, "the left one")
    assert said(more, "user") == ["the left one"]
    assert said(more) == ["Thank you.", "then", "All is done."]
    marks = [(data["id"], data["status"]) for name, data in more if name == "step"]
    assert marks == [("1", "completed"), ("2", "running"), ("2", "completed")]
    assert more[-1][0] == "done"
    run = {data["event_id"].partition(".")[0] for _, data in [*told, *more]}
    assert len(run) == 1
    assert await ann.chat(session) == [*told, *more]
    again = await ann.chat(session, "and again")
    assert said(again) == ["and again"]


async def test_every_position_resumes(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    both = script(CALL, CALL, {"tokens": 5}, {"ask": "Which?"}, {"say": "Good."})
    whole = await ann.chat(session, script(plan(both, title="Count")))
    whole += await ann.chat(session, "that one")
    whole += await ann.chat(session, "a second run")
    assert await ann.chat(session) == whole
    for number, (_, data) in enumerate(whole, 1):
        assert await ann.chat(session, event_id=data["event_id"]) == whole[number:]


async def test_a_break_at_every_event_loses_and_repeats_nothing(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    slow = script(CALL, {"tokens": 12, "every_ms": 40})
    found = []
    async with ann.chatting(session, script(plan(slow, "then"))) as events:
        found.append(await events.next())
    while found[-1][0] != "done":
        async with ann.chatting(session, event_id=found[-1][1]["event_id"]) as events:
            found.append(await events.next())
    assert found == await ann.chat(session)


async def test_a_run_goes_on_without_its_client(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    async with ann.chatting(session, script({"tokens": 30, "every_ms": 20})) as events:
        await events.until("message", partial=True)
    row = await ann.eventually(session, status="completed")
    assert row["latest_message"].split() == [f"t{i}" for i in range(30)]
    assert row["unread_message_count"] == 1
    assert row["latest_message_at"]
    await ann.ask("POST", f"/sandbox/api/sessions/{session}/clear-unread-message-count")
    assert (await ann.eventually(session))["unread_message_count"] == 0


async def test_nothing_is_unread_while_the_owner_reads_along(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    await ann.chat(session, script(plan("one", "two", message="I begin.")))
    assert (await ann.eventually(session))["unread_message_count"] == 0


async def test_two_readers_see_the_same(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    async with ann.chatting(session, script({"tokens": 20, "every_ms": 20})) as first:
        seen = await first.until("message", role="user")
        second = asyncio.create_task(ann.chat(session))
        seen += await first.rest()
    assert await second == seen


async def test_stopping_in_mid_stream(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    slow = script({"tokens": 5000, "every_ms": 10})
    async with ann.chatting(session, script(plan("first", slow, "never"))) as events:
        told = await events.until("message", partial=True, message="t3 ")
        await ann.ask("POST", f"/sandbox/api/sessions/{session}/stop")
        told += await events.rest()
    assert told[-1][0] == "done"
    assert [(d["id"], d["status"]) for n, d in told if n == "step"][-1] == ("2", "failed")
    assert said(told)[-1].startswith("t0 t1 t2 t3 ")
    assert (await ann.detail(session))["status"] == "completed"
    await ann.ask("POST", f"/sandbox/api/sessions/{session}/stop")
    assert said(await ann.chat(session, "still here")) == ["still here"]


async def test_a_message_replaces_the_run_under_way(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    async with ann.chatting(session, script({"tokens": 5000, "every_ms": 10})) as events:
        told = await events.until("message", partial=True)
        newer = await ann.chat(session, "newer")
        told += await events.rest()
    assert said(newer) == ["newer"]
    assert told[-len(newer) :] == newer
    assert [name for name, _ in told].count("done") == 1


async def test_a_model_that_fails(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    fails = script({"tokens": 3}, {"fail": "no more", "status": 500})
    told = await ann.chat(session, script(plan(fails, "then")), headers={"accept-language": "en"})
    assert names(told)[-2:] == ["step", "error"]
    assert told[-2][1]["status"] == "failed"
    assert "no more" in told[-1][1]["error"]
    assert said(told)[-1] == "t0 t1 t2 "
    assert (await ann.detail(session))["status"] == "completed"


async def test_the_detail_has_whole_messages(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    assert (await ann.detail(session))["events"] == []
    told = await ann.chat(session, script(plan(script(CALL, {"tokens": 50}))))
    events = (await ann.detail(session))["events"]
    assert [(one["event"], one["data"]) for one in events] == [
        (name, data) for name, data in told if not data.get("partial")
    ]
    async with ann.chatting(session, script({"tokens": 5000, "every_ms": 10})) as stream:
        await stream.until("message", partial=True, message="t2 ")
        detail = await ann.detail(session)
        assert detail["status"] == "running"
        last = detail["events"][-1]["data"]
        assert last["partial"]
        async with ann.chatting(session, event_id=last["event_id"]) as rest:
            number = int(last["message"][1:])
            assert (await rest.next() or ("", {}))[1]["message"] == f"t{number + 1} "
        await ann.ask("POST", f"/sandbox/api/sessions/{session}/stop")


async def test_a_key_gives_the_same_stream(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    key = {"idempotency-key": "once"}
    first = await ann.chat(session, "hello", headers=key)
    assert await ann.chat(session, "hello", headers=key) == first
    assert len([one for one in await ann.chat(session) if one[0] == "done"]) == 1
    joined = await ann.chat(
        session, event_id=first[0][1]["event_id"], headers={"idempotency-key": "x"}
    )
    assert joined == first[1:]
    refused = await ann.client.post(
        f"/sandbox/api/sessions/{session}/chat", json={"message": "other"}, headers=key
    )
    assert refused.status_code == 409


async def test_what_cannot_be_said(here: Place) -> None:
    ann, bob = await here.account(), await here.account()
    session, other = await ann.create(), await ann.create()
    elsewhere = (await ann.chat(other, "hello"))[0][1]["event_id"]
    path = f"/sandbox/api/sessions/{session}/chat"
    for event_id in ("x", "x.1", elsewhere, "a.b.c.d", elsewhere.replace(".", "..")):
        answer = await ann.client.post(path, json={"event_id": event_id})
        assert (answer.status_code, answer.json()["code"]) == (400, 400), event_id
    assert (await ann.client.post(path, json={"message": " "})).status_code == 400
    assert (await ann.client.post(path, json={"attachments": ["unknown"]})).status_code == 404
    file = await bob.client.post("/sandbox/api/files", files={"file": ("a.txt", b"of bob")})
    theirs = {"message": "read", "attachments": [file.json()["data"]["id"]]}
    assert (await ann.client.post(path, json=theirs)).status_code == 403
    assert (await ann.detail(session))["events"] == []
