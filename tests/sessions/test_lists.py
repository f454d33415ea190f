"""The list of sessions, how it is followed, and whose sessions are whose."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.sessions.talking import SOON_S, Account, Events, Place, plan, said, script


async def test_the_list(here: Place) -> None:
    ann, bob = await here.account(), await here.account()
    assert await ann.sessions() == []
    first, second = await ann.create(), await ann.create()
    assert [one["session_id"] for one in await ann.sessions()] == [second, first]
    assert (await ann.sessions())[0] == {
        "session_id": second,
        "title": "",
        "latest_message": "",
        "latest_message_at": None,
        "status": "pending",
        "unread_message_count": 0,
    }
    await ann.chat(first, "hello there")
    row = (await ann.sessions())[0]
    assert (row["session_id"], row["title"], row["status"]) == (first, "hello there", "completed")
    assert row["latest_message"] == "hello there"
    assert await bob.sessions() == []
    admin = await here.admin()
    assert first not in [one["session_id"] for one in await admin.sessions()]


async def test_sage_and_sandbox_show_one_conversation(here: Place) -> None:
    ann = await here.account()
    body = {
        "messages": [{"role": "user", "content": "from sage"}],
        "session_id": "sess_1",
        "llm_model_config": {"llm_provider_id": "embedded/script"},
    }
    assert (await ann.client.post("/sage/api/stream", json=body)).status_code == 200
    [row] = await ann.sessions()
    assert (row["title"], row["unread_message_count"]) == ("from sage", 1)
    told = await ann.chat(row["session_id"])
    assert (said(told, "user"), said(told)) == (["from sage"], ["from sage"])
    assert told[-1][0] == "done"
    await ann.chat(row["session_id"], script(plan("a step", message="I begin.")))
    kept = await ann.client.get("/sage/api/conversations/sess_1/messages")
    texts = [one["content"] for one in kept.json()["data"]["messages"]]
    planned = script(plan("a step", message="I begin."))
    assert texts == ["from sage", "from sage", planned, "I begin.", "a step", "All is done."]
    tasks = await ann.client.post("/sage/api/sessions/sess_1/tasks_status")
    [task] = tasks.json()["data"]["tasks_status"]["tasks"]
    assert (task["description"], task["status"]) == ("a step", "completed")


async def lists(events: Events, wanted: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Wait for a list that is wanted."""
    async with asyncio.timeout(SOON_S):
        while (event := await events.next()) is not None:
            name, data = event
            assert name == "sessions"
            if wanted(data["sessions"]):
                return
    raise AssertionError("the stream has ended")


async def test_following_the_list(here: Place) -> None:
    ann = await here.account()
    async with ann.following() as events, ann.following() as others:
        assert events.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        await lists(events, lambda rows: rows == [])
        session = await ann.create()
        await lists(events, lambda rows: [one["session_id"] for one in rows] == [session])
        await ann.chat(session, "hello")
        await lists(
            events,
            lambda rows: (rows[0]["status"], rows[0]["latest_message"]) == ("completed", "hello"),
        )
        title = {"title": "Another title"}
        renamed = await ann.client.post(f"/sage/api/conversations/{session}/title", json=title)
        assert renamed.status_code == 200
        await lists(events, lambda rows: rows[0]["title"] == "Another title")
        await ann.ask("POST", f"/sandbox/api/sessions/{session}/delete")
        await lists(events, lambda rows: rows == [])
        await lists(others, lambda rows: rows != [])
        await lists(others, lambda rows: rows == [])
        # It comes again although nothing changes.
        await lists(others, lambda rows: rows == [])


ROUTES = [
    ("GET", "", None, True),
    ("POST", "/chat", {}, True),
    ("POST", "/stop", None, True),
    ("GET", "/files", None, True),
    ("POST", "/file", {"filepath": "a"}, True),
    ("POST", "/shell", {"session_id": "main"}, True),
    ("POST", "/clear-unread-message-count", None, False),
    ("POST", "/delete", None, False),
]
"""Method, path below the session, body, and whether administrators reach everyone's."""


async def asked(who: Account, session: str, route: tuple[str, str, object, bool]) -> int:
    method, path, body, _ = route
    answer = await who.client.request(method, f"/sandbox/api/sessions/{session}{path}", json=body)
    if answer.headers["content-type"] == "application/json":
        assert answer.json()["code"] == answer.status_code
        if answer.status_code >= 400:
            assert answer.json()["data"] == {}
    return answer.status_code


@pytest.mark.parametrize("route", ROUTES, ids=[route[1] or "/" for route in ROUTES])
async def test_owner_administrator_and_stranger(
    here: Place, route: tuple[str, str, object, bool]
) -> None:
    ann, bob, admin = await here.account(), await here.account(), await here.admin()
    session = await ann.create()
    await ann.chat(session, "hello")
    own = 404 if route[1] in ("/file", "/shell") else 200
    assert await asked(bob, session, route) == 403
    assert await asked(admin, session, route) == (own if route[3] else 403)
    assert len(await ann.sessions()) == 1
    assert await asked(ann, session, route) == own
    assert await asked(bob, "0193c6a5-7a11-7c4e-9d5e-0d4f5a3b2c1d", route) == 404
    assert await asked(bob, "none", route) == 404
    nobody = httpx2.AsyncClient(base_url=here.server.url)
    stranger = Account(nobody, "", "")
    assert await asked(stranger, session, route) == 401
    await nobody.aclose()


async def test_an_administrator_chats_for_the_owner(here: Place) -> None:
    ann, admin = await here.account(), await here.admin()
    session = await ann.create()
    assert said(await admin.chat(session, "from the administrator")) == ["from the administrator"]
    assert (await ann.eventually(session))["unread_message_count"] == 1
    file = await ann.client.post("/sandbox/api/files", files={"file": ("a.txt", b"of ann")})
    told = await admin.chat(session, "see", attachments=[file.json()["data"]["id"]])
    assert [one["filename"] for one in told[0][1]["attachments"]] == ["a.txt"]


async def test_a_ban_cuts_open_streams(here: Place) -> None:
    ann, bob, admin = await here.account(), await here.account(), await here.admin()
    session, other = await ann.create(), await bob.create()
    slow = script({"tokens": 5000, "every_ms": 20})
    async with (
        ann.chatting(session, slow) as chat,
        ann.following() as listed,
        bob.chatting(other, slow) as theirs,
    ):
        await chat.until("message", partial=True)
        await lists(listed, lambda rows: len(rows) == 1)
        path = f"/sandbox/api/admin/users/{ann.id}/status"
        await admin.ask("PUT", path, {"status": "banned"})
        for events in (chat, listed):
            with pytest.raises(httpx2.RemoteProtocolError):
                await events.rest()
        await theirs.until("message", partial=True)
        await bob.ask("POST", f"/sandbox/api/sessions/{other}/stop")
    refused = await ann.client.get("/sandbox/api/sessions")
    assert refused.status_code in (401, 403)
