"""sage's chat routes over HTTP, against a real server process."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from tests.runs.test_turns import script
from tests.serving import Server, serving

SLOW = script({"tokens": 3000, "every_ms": 10})
SETTINGS = {
    "CHAT_RATE": "1000000/minute",
    "LOGIN_RATE": "1000000/minute",
    "SEND_CODE_RATE": "1000000/minute",
    "HEARTBEAT_S": "0.6",
    "ADMIN_PASSWORD": "a long enough password",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("streams") / "data", given=SETTINGS) as served:
        yield served


class Account:
    """A logged-in account."""

    def __init__(self, client: httpx2.AsyncClient, number: int) -> None:
        self.client = client
        self.number = number

    def turn(self, said: str, session: str, **fields: Any) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": said}],
            "session_id": f"{session}-{self.number}",
            "llm_model_config": {"llm_provider_id": "embedded/script"},
            **fields,
        }

    async def lines(self, path: str, body: Any = None, **options: Any) -> list[dict[str, Any]]:
        """The whole of a stream, heartbeats left out."""
        method = "GET" if body is None else "POST"
        answer = await self.client.request(method, path, json=body, **options)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines() if line[:1] == "{"]

    async def states(self) -> dict[str, str]:
        """What the list of active sessions says at once, by session."""
        async with self.client.stream("GET", "/api/stream/active_sessions") as answer:
            async for line in answer.aiter_lines():
                return {one["session_id"]: one["status"] for one in json.loads(line[6:])}
        raise AssertionError("nothing was sent")

    async def eventually(self, session: str, status: str) -> None:
        for _ in range(100):
            if (await self.states()).get(f"{session}-{self.number}") == status:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(await self.states())


_made = iter(range(1000))


@pytest.fixture
async def accounts(server: Server) -> AsyncIterator[Any]:
    """Makes logged-in accounts."""
    clients: list[httpx2.AsyncClient] = []

    async def login(name: str, password: str) -> httpx2.AsyncClient:
        client = httpx2.AsyncClient(base_url=server.url, timeout=30)
        clients.append(client)
        answer = await client.post(
            "/api/auth/login", json={"username_or_email": name, "password": password}
        )
        client.headers["authorization"] = "Bearer " + answer.json()["data"]["access_token"]
        client.cookies.clear()
        return client

    async def make() -> Account:
        number = next(_made)
        admin = await login("admin", SETTINGS["ADMIN_PASSWORD"])
        fields = {"username": f"user{number}", "password": "password of a user"}
        assert (await admin.post("/api/user/add", json=fields)).json()["code"] == 200
        return Account(await login(fields["username"], fields["password"]), number)

    yield make
    for client in clients:
        await client.aclose()


async def test_the_three_streams_are_alike(accounts: Any) -> None:
    ann = await accounts()
    created = await ann.client.post(
        "/api/agent/create", json={"name": "A", "llm_provider_id": ("embedded/script")}
    )
    agent_id = created.json()["data"]["agent_id"]
    for path in ("/api/chat", "/api/stream", "/api/web-stream"):
        body = ann.turn("grüße 世界", path.rpartition("/")[2], agent_id=agent_id)
        if path == "/api/chat":
            del body["llm_model_config"]
        answer = await ann.client.post(path, json=body)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-run-id"]
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert "".join(one["content"] for one in lines[:2]) == "grüße 世界"
        assert {one["session_id"] for one in lines} == {body["session_id"]}
        assert lines[0]["agent_name"] == "A"
        assert lines[-1]["total_stream_count"] == len(lines)
        again = await ann.client.get(f"/api/stream/resume/{body['session_id']}")
        assert again.content == answer.content
        assert again.headers["x-run-id"] == answer.headers["x-run-id"]


async def test_resuming(accounts: Any) -> None:
    ann, bob = await accounts(), await accounts()
    body = ann.turn(script({"tokens": 30, "every_ms": 10}), "r")
    whole = await ann.lines("/api/web-stream", body)
    resume = f"/api/stream/resume/{body['session_id']}"
    assert await ann.lines(resume, params={"last_index": 7}) == whole[7:]
    [end] = await ann.lines(resume, params={"last_index": len(whole)})
    assert (end["type"], end["resume_fallback"]) == ("stream_end", True)
    assert "total_stream_count" not in end
    first = (await ann.client.get(resume)).headers["x-run-id"]
    later = await ann.lines(
        "/api/web-stream", {**body, "messages": [{"role": "user", "content": "later"}]}
    )
    assert await ann.lines(resume) == later
    assert await ann.lines(resume, params={"run_id": first}) == whole
    for answer in (
        await bob.client.get(resume),
        await bob.client.get(resume, params={"run_id": first}),
        await ann.client.get("/api/stream/resume/unknown"),
        await ann.client.get(resume, params={"run_id": "unknown"}),
    ):
        assert (answer.status_code, answer.content) == (200, b"")
        assert "x-run-id" not in answer.headers


async def test_resuming_past_the_end_of_a_live_run_waits_for_it(accounts: Any) -> None:
    ann = await accounts()
    body = ann.turn(script({"tokens": 20, "every_ms": 50}), "past")
    running = asyncio.create_task(ann.lines("/api/web-stream", body))
    await ann.eventually("past", "running")
    resume = f"/api/stream/resume/{body['session_id']}"
    waited = await ann.lines(resume, params={"last_index": 500})
    assert [one.get("resume_fallback") for one in waited] == [True]
    assert (await running)[-1]["type"] == "stream_end"


async def test_leaving_stops_chat_and_leaves_web_stream(accounts: Any) -> None:
    ann = await accounts()
    for path, session, status in [
        ("/api/stream", "left", "interrupted"),
        ("/api/web-stream", "stays", "running"),
    ]:
        async with ann.client.stream("POST", path, json=ann.turn(SLOW, session)) as answer:
            async for _ in answer.aiter_bytes():
                break
        await ann.eventually(session, status)
    again = ann.turn("newer", "stays")
    assert (await ann.client.post("/api/stream", json=again)).status_code == 409
    assert (await ann.lines("/api/web-stream", again))[0]["content"] == "newer"


async def test_leaving_before_the_first_line_stops_chat(accounts: Any) -> None:
    ann = await accounts()
    stalled = ann.turn(script({"stall_ms": 60_000}), "early")
    request = ann.client.build_request("POST", "/api/stream", json=stalled)
    answer = await ann.client.send(request, stream=True)
    await answer.aclose()
    await ann.eventually("early", "interrupted")


async def test_heartbeats_come_on_web_stream_and_resume_alone(accounts: Any) -> None:
    ann = await accounts()
    body = ann.turn(script({"stall_ms": 3500}, {"say": "x"}), "beat")
    web = await ann.client.post("/api/web-stream", json=body)
    assert web.text.count(": heartbeat\n\n") >= 2
    direct = await ann.client.post("/api/stream", json=body)
    assert "heartbeat" not in direct.text


async def test_active_sessions_are_sent_at_once_and_on_each_change(accounts: Any) -> None:
    ann, bob = await accounts(), await accounts()
    seen: list[list[dict[str, Any]]] = []
    body = ann.turn(SLOW, "watch")
    async with ann.client.stream("GET", "/api/stream/active_sessions") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        running: asyncio.Task[Any] | None = None
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            seen.append(json.loads(line[6:]))
            if len(seen) == 1:
                await bob.lines("/api/web-stream", bob.turn("other", "watch"))
                running = asyncio.create_task(ann.lines("/api/web-stream", body))
            elif [one["status"] for one in seen[-1]] == ["running"]:
                await ann.client.post(f"/api/sessions/{body['session_id']}/interrupt")
            elif [one["status"] for one in seen[-1]] == ["interrupted"]:
                break
    assert seen[0] == []
    assert seen[-1][0]["query"] == SLOW
    assert {one["session_id"] for each in seen for one in each} == {body["session_id"]}
    assert running is not None
    lines = await running
    assert [one["type"] for one in lines[-2:]] == ["system", "stream_end"]
    assert lines[-2]["content"] == "用户请求中断"


async def test_a_logout_cuts_open_streams_within_a_second(accounts: Any) -> None:
    ann = await accounts()
    body = ann.turn(script({"say": "x "}, {"stall_ms": 60_000}), "out")
    cut = []
    for method, path, sent in [
        ("POST", "/api/web-stream", body),
        ("GET", "/api/stream/active_sessions", None),
    ]:
        request = ann.client.build_request(method, path, json=sent)
        answer = await ann.client.send(request, stream=True)
        cut.append(answer)
    await ann.client.post("/api/auth/logout")
    async with asyncio.timeout(3):
        for answer in cut:
            with pytest.raises(httpx2.RemoteProtocolError):
                await answer.aread()
            await answer.aclose()


async def test_a_key_gives_the_same_run(accounts: Any) -> None:
    ann = await accounts()
    body, key = ann.turn("only once", "key"), {"Idempotency-Key": f"k{ann.number}"}
    answers = await asyncio.gather(
        *(ann.client.post("/api/web-stream", json=body, headers=key) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-run-id"] for answer in answers}) == 1
    assert len({answer.content for answer in answers}) == 1
    other = await ann.client.post("/api/web-stream", json=ann.turn("x", "key"), headers=key)
    assert other.status_code == 409


async def test_refusals_come_before_the_stream(accounts: Any) -> None:
    ann, bob = await accounts(), await accounts()
    me = (await ann.client.get("/api/auth/session")).json()["data"]["user"]["userid"]
    cases = [
        ("/api/web-stream", {**ann.turn("x", "no"), "messages": []}, 400, "消息列表不能为空"),
        (
            "/api/stream",
            ann.turn("x", "no", available_sub_agent_ids=["nobody"]),
            400,
            "子 Agent 不存在: nobody",
        ),
        ("/api/chat", {"messages": [{"role": "user", "content": "x"}], "agent_id": "no"}, 404, ""),
        ("/api/stream", ann.turn("x", "no", agent_id="no"), 404, ""),
    ]
    for path, body, status, message in cases:
        answer = await ann.client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, 500)
        assert message in answer.json()["message"]
    foreign = await bob.client.post("/api/stream", json=bob.turn("x", "no", user_id=me))
    assert (foreign.status_code, foreign.json()["code"]) == (403, 403)
    missing = await ann.client.post("/api/chat", json={"messages": []})
    assert missing.status_code == 422
    found = await ann.client.get(f"/api/conversations/no-{ann.number}/messages")
    assert found.status_code == 404
