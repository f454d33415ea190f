"""No space left: reads go on, writes are refused, nothing acknowledged is lost.

The kernel refuses the server's writes as a full disk does (RLIMIT_FSIZE: EFBIG where that gives
ENOSPC; both mean "full" to us), set and lifted while the server runs.
"""

import asyncio
import json
import resource
import signal
from pathlib import Path

from tests.chaos.deployment import PASSWORD, Site, all_streaming, deployed, entered, eventually
from tests.serving import Server

PACED = '[{"say": "né "}, {"tokens": 3000, "every_ms": 10}]'
SHORT = '[{"tokens": 3}]'
FULL_AT = 64 * 1024
"""Bytes a file may have: less than the database and its log have already."""
TEXT = "é" * 2000
LIVE = "SELECT count(*) FROM runs WHERE state IN ('queued', 'running', 'waiting', 'paused')"


def fill_disk(server: Server) -> None:
    limits = (FULL_AT, resource.RLIM_INFINITY)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)


def make_space(server: Server) -> None:
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)


async def create(site: Site, name: str) -> int:
    """The HTTP status of making an agent."""
    answer = await site.call("POST", "/api/agent/create", {"name": name, "description": TEXT})
    told = json.loads(answer.body)
    assert told["code"] == answer.status
    assert set(told) == {"code", "message", "data", "timestamp"}
    return answer.status


async def names(site: Site) -> set[str]:
    return {agent["name"] for agent in await site.ask("GET", "/api/agent/list")}


async def test_a_full_disk_refuses_writes_and_loses_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    kept: set[str] = set()
    refused: set[str] = set()

    async def make(site: Site, name: str) -> bool:
        status = await create(site, name)
        assert status in (200, 507), status
        (kept if status == 200 else refused).add(name)
        return status == 200

    with deployed(data) as server:
        site = await entered(server)
        for number in range(40):
            assert await make(site, f"before-{number}")
        async with all_streaming(site, [site.turn("done", SHORT)]) as (done,):
            await done.closed()
        async with all_streaming(
            site, [site.turn(f"cut-{number}", PACED) for number in range(3)]
        ) as streams:
            for stream in streams:
                await stream.has_lines(3)
            fill_disk(server)
            number = 0
            while await make(site, f"filling-{number}"):
                number += 1
                assert number < 5000
            await asyncio.gather(*(stream.closed() for stream in streams))
            for stream in streams:
                assert not stream.answer.ended
                assert b"stream_end" not in stream.answer.body

        for number in range(5):
            await make(site, f"full-{number}")
        assert {f"full-{number}" for number in range(5)} <= refused
        for method, target, body in (
            ("POST", "/api/web-stream", {"messages": [{"role": "user", "content": "hello"}]}),
            (
                "POST",
                "/api/auth/login",
                {"username_or_email": "admin", "password": PASSWORD},
            ),
            ("DELETE", "/api/conversations/done", None),
        ):
            answer = await site.call(method, target, body)
            assert answer.status == 507, target
            assert json.loads(answer.body)["code"] == 507
        answer = await site.call(
            "POST", "/api/agent/create", {"name": "keyed"}, {"Idempotency-Key": "once"}
        )
        assert answer.status == 507
        assert await names(site) >= kept
        assert not await names(site) & refused
        assert await site.resumed("done") == done.lines
        assert (await site.call("GET", "/api/health")).status == 200
        for name, stream in zip(("cut-0", "cut-1", "cut-2"), streams, strict=True):
            request = site.resumption(name)
            async with all_streaming(site, [request]) as (again,):
                await again.has_lines(len(stream.lines))
                assert again.lines[: len(stream.lines)] == stream.lines

        make_space(server)
        await eventually(lambda: make(site, "space again"), 10)
        refused.discard("space again")
        again = await site.ask(
            "POST", "/api/agent/create", {"name": "keyed"}, {"Idempotency-Key": "once"}
        )
        assert again["agent_id"]
        kept.add("keyed")
        async with all_streaming(site, [site.turn("after", SHORT)]) as (after,):
            await after.closed()
            assert after.ended
        assert await names(site) >= kept
        server.stop(signal.SIGKILL)

    with deployed(data) as server:
        site = await entered(server)
        assert await names(site) >= kept
        assert not await names(site) & refused
        assert await site.resumed("done") == done.lines
        assert await site.resumed("after") == after.lines

        async def all_ended() -> bool:
            return site.rows(LIVE) == [(0,)]

        await eventually(all_ended)
        for name, stream in zip(("cut-0", "cut-1", "cut-2"), streams, strict=True):
            whole = await site.resumed(name)
            assert whole[: len(stream.lines)] == stream.lines
            assert json.loads(whole[-1])["type"] == "stream_end"
            assert json.loads(whole[-2])["type"] == "error"
