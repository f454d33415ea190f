"""What is left of sessions when the server is killed."""

import signal
from pathlib import Path

from tests.serving import serving
from tests.sessions.talking import SETTINGS, Account, Place, database, plan, said, script


async def test_a_kill_in_a_step(dialect: str, tmp_path: Path) -> None:
    with database(dialect) as named:
        given = {**SETTINGS, **named}
        with serving(tmp_path / "data", given=given) as server:
            here = Place(server)
            ann = await here.account()
            stepping, waiting = await ann.create(), await ann.create()
            asked = await ann.chat(
                waiting, script(plan(script({"ask": "Which?"}, {"say": "Thanks."}), "then"))
            )
            assert asked[-1][0] == "wait"
            slow = script({"tokens": 5000, "every_ms": 20})
            async with ann.chatting(stepping, script(plan("first", slow, "never"))) as events:
                told = await events.until("message", partial=True, message="t3 ")
                server.stop(signal.SIGKILL)
        with serving(tmp_path / "data", given=given) as server:
            ann.client.base_url = server.url
            rest = await ann.chat(stepping, event_id=told[-1][1]["event_id"])
            assert [name for name, _ in rest][-2:] == ["step", "error"]
            assert (rest[-2][1]["id"], rest[-2][1]["status"]) == ("2", "failed")
            assert await ann.chat(stepping) == [*told, *rest]
            detail = await ann.detail(stepping)
            assert detail["status"] == "completed"
            steps = [one["data"] for one in detail["events"] if one["event"] == "step"]
            assert [(step["id"], step["status"]) for step in steps] == [
                ("1", "running"),
                ("1", "completed"),
                ("2", "running"),
                ("2", "failed"),
            ]
            await _goes_on(ann, waiting)
            await here.close()


async def test_a_kill_in_a_command(dialect: str, tmp_path: Path) -> None:
    """Nobody waits for the call any more."""
    with database(dialect) as named:
        given = {**SETTINGS, **named}
        with serving(tmp_path / "data", given=given) as server:
            here = Place(server)
            ann = await here.account()
            session = await ann.create()
            call = {"call": "shell_execute", "args": {"command": "echo on > begun; sleep 600"}}
            async with ann.chatting(session, script(call)) as events:
                told = await events.until("tool", status="calling")
                await ann.content(session, "begun")
                server.stop(signal.SIGKILL)
        with serving(tmp_path / "data", given=given) as server:
            ann.client.base_url = server.url
            [(name, cut), (last, _)] = await ann.chat(session, event_id=told[-1][1]["event_id"])
            assert (name, cut["status"], last) == ("tool", "called", "error")
            assert cut["tool_call_id"] == told[-1][1]["tool_call_id"]
            assert "cut off" in cut["content"]["error"]
            await here.close()


async def _goes_on(ann: Account, waiting: str) -> None:
    assert (await ann.detail(waiting))["status"] == "waiting"
    more = await ann.chat(waiting, "this one")
    assert said(more) == ["Thanks.", "then", "All is done."]
    assert (await ann.detail(waiting))["status"] == "completed"
