"""Two server processes over one PostgreSQL and one Redis, and what is left when one dies."""

import asyncio
import base64
import contextlib
import json
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest

from storage.database import Database
from tests.chaos.deployment import (
    PASSWORD,
    SETTINGS,
    Site,
    all_streaming,
    counting_model,
    entered,
    eventually,
    private_redis,
    streaming,
)
from tests.serving import Server, spawn, wait_until_ready

PACED = '[{"say": "né "}, {"tokens": 3000, "every_ms": 20}]'
SHORT = '[{"tokens": 30, "every_ms": 40}, {"say": "done"}]'
CALCULATE = '{"call": "calculator", "args": {"expression": "6*7"}}'
SETTLED_S = 45.0
"""A process is dead after 10 s without a heartbeat, and so long the leader's lease lasts."""

WITHIN_S = 5.0
"""The promise is a second; a machine that runs other tests beside adds its own. Without wake-ups
or polling nothing would end at all: the runs go on for a minute."""


@dataclass
class Pair:
    """Two processes over the database at `url`."""

    one: Server
    two: Server
    url: str
    redis: subprocess.Popen[bytes]

    async def sites(self) -> tuple[Site, Site]:
        """One login, used at both."""
        site = await entered(self.one)
        return site, Site(self.two, site.token)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def pair(postgres: Database, database_url: str, tmp_path: Path) -> Iterator[Pair]:
    """Started at the same moment, on a database that holds nothing yet."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS jobs CASCADE")
    with private_redis(tmp_path) as (redis_url, redis):
        given = {
            **SETTINGS,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "PUBLIC_URL": "http://quartet.example.org",
            "SECRETS_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "RUNS_PER_PROVIDER": "6",
        }
        servers = [spawn(tmp_path / name, given=given) for name in ("one", "two")]
        try:
            for server in servers:
                wait_until_ready(server)
            yield Pair(servers[0], servers[1], database_url, redis)
        finally:
            for server in servers:
                server.process.send_signal(signal.SIGTERM)
            for server in servers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.process.wait(20)
                server.stop(signal.SIGKILL)


async def test_a_run_is_the_same_seen_from_either_process(pair: Pair) -> None:
    one, two = await pair.sites()
    async with streaming(one, one.turn("s1", SHORT, key="k1")) as began:
        await began.has_lines(3)
        async with all_streaming(
            two,
            [
                two.resumption("s1"),
                two.resumption("s1", 2, began.run_id),
                two.turn("s1", SHORT, key="k1"),
            ],
        ) as others:
            await asyncio.gather(*(stream.closed() for stream in (began, *others)))
    assert began.ended
    resumed, later, replayed = others
    assert resumed.lines == began.lines == replayed.lines
    assert later.lines == began.lines[2:]
    assert replayed.answer.headers["idempotency-replayed"] == "true"
    assert {stream.run_id for stream in others} == {began.run_id}
    assert pair.rows("SELECT count(*) FROM runs") == [(1,)]

    body = {"name": "Same", "description": "né"}
    first = await one.call("POST", "/api/agent/create", body, {"Idempotency-Key": "a1"})
    again = await two.call("POST", "/api/agent/create", body, {"Idempotency-Key": "a1"})
    assert first.body == again.body
    assert again.headers["idempotency-replayed"] == "true"
    assert pair.rows("SELECT count(*) FROM agents WHERE name = 'Same'") == [(1,)]


async def test_both_processes_asked_at_once_under_one_key_begin_one_run(pair: Pair) -> None:
    one, two = await pair.sites()
    requests = [(site, site.turn("s1", SHORT, key="k")) for site in (one, two) * 5]
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(streaming(*request)) for request in requests]
        await asyncio.gather(*(stream.closed() for stream in streams))
    assert {tuple(stream.lines) for stream in streams} == {tuple(streams[0].lines)}
    assert streams[0].ended
    assert pair.rows("SELECT count(*) FROM runs") == [(1,)]
    assert pair.rows("SELECT count(*) FROM calls") == [(1,)]


async def test_what_is_ended_on_one_process_stops_on_the_other_within_a_second(
    pair: Pair,
) -> None:
    one, two = await pair.sites()
    async with streaming(one, one.turn("s1", PACED)) as stream:
        await stream.has_lines(2)
        asked = time.monotonic()
        await two.ask("POST", "/api/sessions/s1/interrupt", {"message": "enough"})
        await stream.closed()
        assert stream.closed_at - asked < WITHIN_S
        assert stream.ended
        assert b"enough" in stream.lines[-2]
    count = (await two.resumed("s1"))[:-2]
    assert [json.loads(line)["type"] for line in count] == ["assistant_text"] * len(count)

    for username, end in (("anna", "logout"), ("berta", "change-password")):
        await one.ask(
            "POST",
            "/api/user/add",
            {"username": username, "password": PASSWORD, "email": f"{username}@example.org"},
        )
        here = await one.log_in(username)
        there = await Site(pair.two).log_in(username)
        requests = [
            here.turn("s1", PACED),
            here.request("GET", "/api/stream/active_sessions"),
        ]
        async with all_streaming(here, requests) as streams:
            await streams[0].has_lines(2)
            async with streaming(there, there.resumption("s1")) as kept:
                await kept.has_lines(2)
                asked = time.monotonic()
                if end == "logout":
                    await Site(pair.two, here.token).ask("POST", "/api/auth/logout")
                else:
                    await there.ask(
                        "POST",
                        "/api/user/change-password",
                        {"old_password": PASSWORD, "new_password": "another word 8"},
                    )
                await asyncio.gather(*(stream.closed() for stream in streams))
                for stream in streams:
                    assert stream.closed_at - asked < WITHIN_S
                    assert b"stream_end" not in stream.answer.body
                refused = await here.call("GET", "/api/user/list")
                assert refused.status == 401
                seen = len(kept.lines)
                await kept.has_lines(seen + 2)
        last = there if end == "logout" else await one.log_in(username, "another word 8")
        await last.ask("POST", "/api/sessions/s1/interrupt")


async def test_streams_go_on_when_redis_dies(pair: Pair) -> None:
    one, two = await pair.sites()
    async with streaming(one, one.turn("s1", PACED)) as here:
        await here.has_lines(2)
        async with streaming(two, two.resumption("s1")) as there:
            await there.has_lines(2)
            pair.redis.kill()
            pair.redis.wait(10)
            for _ in range(3):
                seen = len(there.lines)
                await there.has_lines(seen + 5)
            refused = await two.call("POST", "/api/web-stream", {"messages": []})
            assert refused.status == 503
            assert json.loads(refused.body)["code"] == 503
            await one.ask("POST", "/api/agent/create", {"name": "Made meanwhile"})
            shown = [agent["name"] for agent in await two.ask("GET", "/api/agent/list")]
            assert "Made meanwhile" in shown
            await two.ask("POST", "/api/sessions/s1/interrupt")
            await asyncio.gather(here.closed(), there.closed())
        assert here.ended
        assert here.lines == there.lines

    with started_again(pair.redis):
        for site in (one, two):
            await eventually(partial(is_admitted, site))
        async with streaming(one, one.turn("s2", SHORT)) as here:
            await here.has_lines(2)
            async with streaming(two, two.resumption("s2")) as there:
                await asyncio.gather(here.closed(), there.closed())
        assert here.ended
        assert here.lines == there.lines


@contextlib.contextmanager
def started_again(process: subprocess.Popen[bytes]) -> Iterator[None]:
    with subprocess.Popen(process.args, stdout=subprocess.DEVNULL) as again:
        yield
        again.kill()


async def is_admitted(site: Site) -> bool:
    """Whether the rate limit lets a turn in, which an empty one fails only behind."""
    answer = await site.call("POST", "/api/web-stream", {"messages": []})
    return answer.status != 503


@pytest.mark.timeout(180)
async def test_the_runs_of_a_killed_process_are_settled_by_the_other(pair: Pair) -> None:
    with counting_model(2) as models:
        one, two = await pair.sites()
        dead, waited = [await one.provider(model) for model in models]
        scripts = {
            "paced": (dead, PACED),
            "stalled": (dead, '[{"say": "é "}, {"stall_ms": 600000}]'),
            "queued": (dead, f'[{CALCULATE}, {{"say": "done"}}]'),
            "chained": (waited, f'[{", ".join([CALCULATE] * 8)}, {{"say": "done"}}]'),
        }
        async with contextlib.AsyncExitStack() as stack:
            streams = {}
            for phase, (provider, script) in scripts.items():
                for number in range(3):
                    name = f"{phase}-{number}"
                    stream = await stack.enter_async_context(
                        streaming(one, one.turn(name, script, provider))
                    )
                    await stream.until(lambda stream=stream: bool(stream.run_id))
                    streams[name] = stream
                for name, stream in streams.items():
                    if name.startswith(phase) and phase != "queued":
                        await stream.has_lines(1)
            elsewhere = await stack.enter_async_context(streaming(two, two.turn("own", PACED)))
            await elsewhere.has_lines(1)
            made = await models[0].calls()
            following = await stack.enter_async_context(
                streaming(two, two.resumption("paced-0", 0))
            )
            await following.has_lines(1)
            pair.one.stop(signal.SIGKILL)
            await asyncio.gather(*(stream.closed() for stream in streams.values()))
            interrupted = {run for (run,) in pair.rows(OPEN)}

            async def settled() -> bool:
                return pair.rows(LIVE) == [(elsewhere.run_id,)]

            await eventually(settled, SETTLED_S, 0.5)
            await following.closed()
            assert following.ended
            seen = len(elsewhere.lines)
            await elsewhere.has_lines(seen + 2)
            interrupted.discard(elsewhere.run_id)
        ends = {run: (state, reason) for run, state, reason in pair.rows(STATES)}
        for name, stream in streams.items():
            whole = await two.resumed(name, 0, stream.run_id)
            assert whole[: len(stream.lines)] == stream.lines
            assert json.loads(whole[-1])["total_stream_count"] == len(whole)
            if stream.run_id in interrupted:
                assert ends[stream.run_id] == ("failed", "interrupted_by_restart"), name
                assert json.loads(whole[-2])["type"] == "error"
            else:
                assert ends[stream.run_id] == ("completed", None), name
        assert following.lines == await two.resumed("paced-0")
        assert {streams[name].run_id for name in streams if name[0] in "ps"} <= interrupted
        assert not {streams[name].run_id for name in streams if name[0] == "q"} & interrupted
        assert made == 6
        assert await models[0].calls() == 6 + 2 * 3
        ((begun,),) = pair.rows("SELECT count(*) FROM calls WHERE kind = 'model'")
        assert sum([await model.calls() for model in models]) + 1 <= begun


OPEN = "SELECT DISTINCT run_id FROM calls WHERE outcome IS NULL AND name <> 'calculator'"
LIVE = "SELECT id FROM runs WHERE state IN ('queued', 'running', 'waiting', 'paused')"
STATES = "SELECT id, state, reason FROM runs"
