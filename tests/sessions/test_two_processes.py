"""Sessions on two servers over one database."""

import asyncio
import base64
import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import postgres_answers
from tests.serving import Server, serving
from tests.sessions.talking import SETTINGS, SOON_S, Account, Place, database, plan, said, script

pytestmark = pytest.mark.skipif(not postgres_answers(), reason="two servers need PostgreSQL")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        given = {
            **SETTINGS,
            **stack.enter_context(database("postgresql")),
            "SECRETS_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        servers = [
            stack.enter_context(serving(folder / name, given=given)) for name in ("one", "two")
        ]
        yield servers[0], servers[1]


async def test_a_chat_here_and_there(pair: tuple[Server, Server]) -> None:
    here = Place(pair[0])
    ann = await here.account()
    there = Account(ann.client.__class__(base_url=pair[1].url, timeout=30), ann.id, ann.name)
    there.client.headers["authorization"] = ann.client.headers["authorization"]
    session = await ann.create()
    async with there.following() as lists:
        async with ann.chatting(session, script(plan(script({"tokens": 40, "every_ms": 30})))) as a:
            seen = await a.until("step", status="running")
            joined = asyncio.create_task(there.chat(session))
            seen += await a.rest()
        assert await joined == seen
        async with asyncio.timeout(SOON_S):
            while (event := await lists.next()) is not None:
                rows = event[1]["sessions"]
                if rows and rows[0]["status"] == "completed":
                    break
        assert rows[0]["latest_message"] == "All is done."
    asked = await ann.chat(session, script({"ask": "Which?"}, {"say": "Thanks."}))
    assert asked[-1][0] == "wait"
    answered = await there.chat(session, "this one")
    assert said(answered) == ["Thanks."]
    assert await ann.chat(session, event_id=asked[-1][1]["event_id"]) == answered
    slow = script({"tokens": 5000, "every_ms": 20})
    async with ann.chatting(session, slow) as a:
        await a.until("message", partial=True)
        await there.ask("POST", f"/sandbox/api/sessions/{session}/stop")
        assert (await a.rest())[-1][0] == "done"
    await there.client.aclose()
    await here.close()
