"""Open streams per account (server/lane/leases.py), in memory and in Redis."""

import asyncio
import copy
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from domain.errors import Throttled
from server.lane import leases as leases_module
from server.lane.leases import TTL_S, Leases
from server.lane.refusals import Refusal
from tests.lane import shop
from tests.lane.conftest import application, contract

REDIS = "redis://127.0.0.1:6379/0"


@pytest.fixture(params=["memory", "redis"])
async def leases(request: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    made = Leases({"sse": 2, "ws": 1}, REDIS if request.param == "redis" else "")
    yield made
    await made.close()


@pytest.fixture
def user() -> str:
    return uuid.uuid4().hex


async def test_as_many_as_allowed_and_no_more(leases: Leases, user: str) -> None:
    async with leases.held("sse", user), leases.held("sse", user):
        with pytest.raises(Throttled) as refused:
            async with leases.held("sse", user):
                pytest.fail("a third was let in")
        assert refused.value.details == {
            "retry_after": 5,
            "limit": 2,
            "window_seconds": TTL_S,
            "bucket": "sse",
        }
        async with leases.held("ws", user), leases.held("sse", f"not {user}"):
            pass
    async with leases.held("sse", user), leases.held("sse", user):
        pass


async def test_a_failing_stream_gives_its_place_back(leases: Leases, user: str) -> None:
    for _ in range(5):
        with pytest.raises(RuntimeError):
            async with leases.held("ws", user):
                raise RuntimeError


async def test_at_once_only_one_gets_the_last_place(leases: Leases, user: str) -> None:
    entered, leave = 0, asyncio.Event()

    async def stream() -> None:
        nonlocal entered
        async with leases.held("sse", user):
            entered += 1
            await leave.wait()

    tasks = [asyncio.create_task(stream()) for _ in range(20)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    while len(done) < 18:
        more, _ = await asyncio.wait(
            [task for task in tasks if task not in done], return_when=asyncio.FIRST_COMPLETED
        )
        done |= more
    assert entered == 2
    assert all(isinstance(task.exception(), Throttled) for task in done)
    leave.set()
    await asyncio.wait(tasks)


async def test_processes_count_together(user: str) -> None:
    one, other = Leases({"ws": 1}, REDIS), Leases({"ws": 1}, REDIS)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(one.close)
        stack.push_async_callback(other.close)
        async with one.held("ws", user):
            with pytest.raises(Throttled):
                async with other.held("ws", user):
                    pass
        async with other.held("ws", user):
            pass


async def test_the_lease_of_a_dead_process_runs_out(
    user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "TTL_S", 1)
    dead, living = Leases({"ws": 1}, REDIS), Leases({"ws": 1}, REDIS)
    await dead._take("ws", user, 1)
    async with Redis.from_url(REDIS) as redis:
        while await redis.exists(f"quartet:leases:ws:{user}"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with living.held("ws", user):
        pass
    await living.close()
    await dead.close()


async def test_a_living_stream_keeps_its_lease(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "RENEW_S", 0.05)
    made = Leases({"ws": 1}, REDIS)
    async with made.held("ws", user), Redis.from_url(REDIS) as redis:
        key = f"quartet:leases:ws:{user}"
        [(_, first)] = await redis.zrange(key, 0, -1, withscores=True)
        later = first
        while later == first:
            await asyncio.sleep(0.02)
            [(_, later)] = await redis.zrange(key, 0, -1, withscores=True)
        assert later > first
    await made.close()


async def test_redis_away_is_503(user: str) -> None:
    made = Leases({"ws": 1}, "redis://127.0.0.1:1/0")
    with pytest.raises(Refusal) as refused:
        async with made.held("ws", user):
            pass
    assert (refused.value.status, refused.value.headers) == (503, ((b"retry-after", b"1"),))
    await made.close()


async def test_the_lane_holds_a_place_while_a_stream_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    document: Any = copy.deepcopy(shop.DOCUMENT)
    document["paths"]["/stream"]["get"]["x-stream-limit"] = "sse"
    app = application(contract(document=document, leases=Leases({"sse": 1}), check_responses=False))
    began, leave = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            began.set()
            await leave.wait()

    async def receive() -> Any:
        await leave.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/sage/stream",
        "raw_path": b"/sage/stream",
        "query_string": b"",
        "headers": [],
        "client": ("1.1.1.1", 1),
    }
    first = asyncio.create_task(app(scope, receive, send))
    await began.wait()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://shop.test"
    ) as client:
        refused = await client.get("/sage/stream")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        leave.set()
        await first
        assert (await client.get("/sage/stream")).status_code == 200
