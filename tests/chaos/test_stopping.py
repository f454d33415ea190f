"""SIGTERM in mid-stream: streams are cut, plain requests finish, runs are left to the next life."""

import asyncio
import json
import signal
from pathlib import Path

from tests.chaos.deployment import (
    PASSWORD,
    Kept,
    Site,
    Stream,
    all_streaming,
    counting_model,
    deployed,
    entered,
    eventually,
)
from tests.chaos.disconnects import Request, exchange

PACED = '[{"tokens": 3000, "every_ms": 20}]'
CALCULATE = '{"call": "calculator", "args": {"expression": "6*7"}}'
STATES = (
    "SELECT c.session_id, r.state, r.reason FROM runs r JOIN conversations c"
    " ON c.id = r.conversation_id"
)


LOGIN = Request(
    "POST",
    "/api/auth/login",
    {"Content-Type": "application/json"},
    json.dumps({"username_or_email": "admin", "password": PASSWORD}).encode(),
)


async def is_not_ready(base: str) -> bool:
    """Whether a load balancer would take the server off: 503, or nobody answers."""
    try:
        answer, _ = await exchange(base, Request("GET", "/ready"), None)
    except ConnectionError:
        return True
    return answer.status in (0, 503)


async def test_a_told_end_cuts_streams_finishes_requests_and_leaves_runs_to_the_next(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with counting_model(2) as (model, unhurried):
        with deployed(data, given={"RUNS_PER_PROVIDER": "2", "DRAIN_S": "8"}) as server:
            site = await entered(server)
            provider, other = await site.provider(model), await site.provider(unhurried)
            agent = await site.ask(
                "POST", "/api/agent/create", {"name": "A", "llm_provider_id": other}
            )
            turns = [
                site.turn("web", PACED, provider),
                site.turn("stalled", '[{"say": "é "}, {"stall_ms": 600000}]', provider),
                site.turn("chat", PACED, "", path="/api/chat", agent_id=agent["agent_id"]),
                site.turn("stream", PACED, other, path="/api/stream"),
            ]
            async with all_streaming(site, turns) as streams:
                for stream in streams:
                    await stream.has_lines(1)
                waiting = await Stream(
                    site.base, site.turn("waiting", f'[{CALCULATE}, {{"say": "done"}}]', provider)
                ).open()
                await waiting.until(lambda: bool(waiting.run_id))
                sessions = await Stream(
                    site.base, site.request("GET", "/api/stream/active_sessions")
                ).open()
                await sessions.until(lambda: bool(sessions.answer.body))
                slow = await Kept.to(site.base)
                head, _, body = LOGIN.encoded("x").partition(b"\r\n\r\n")
                await slow.send(head + b"\r\n\r\n" + body[:10])
                await asyncio.sleep(0.2)
                server.process.send_signal(signal.SIGTERM)
                await eventually(lambda: is_not_ready(site.base), 5)
                seen = len(streams[0].lines)
                await streams[0].has_lines(seen + 3)
                await slow.send(body[10:])
                assert (await slow.rest()).startswith(b"HTTP/1.1 200 OK\r\n")
                streams += [waiting, sessions]
                await asyncio.gather(*(stream.closed(15) for stream in streams))
                assert server.stop() == 0
            for stream in streams:
                assert not stream.answer.ended
                assert not any(json.loads(line)["type"] == "stream_end" for line in lines(stream))
            assert "Traceback" not in server.logged()
        ended = {session: (state, reason) for session, state, reason in site.rows(STATES)}
        assert ended.pop("chat") == ended.pop("stream") == ("cancelled", "shutdown")
        assert {state for state, _ in ended.values()} <= {"queued", "running"}

        with deployed(data) as server:
            site = await entered(server)
            await eventually(lambda: settled(site), 30)
            ended = {session: (state, reason) for session, state, reason in site.rows(STATES)}
            assert ended["web"] == ended["stalled"] == ("failed", "interrupted_by_restart")
            assert ended["waiting"] == ("completed", None)
            for session, stream in zip(
                ("web", "stalled", "chat", "stream", "waiting"), streams, strict=False
            ):
                whole = await site.resumed(session, 0, stream.run_id)
                assert whole[: len(stream.lines)] == stream.lines
                rest = await site.resumed(session, len(stream.lines), stream.run_id)
                assert rest == whole[len(stream.lines) :]
                assert json.loads(whole[-1])["type"] == "stream_end"
        assert await model.calls() == 4
        assert await unhurried.calls() == 2


def lines(stream: Stream) -> list[bytes]:
    return [line for line in stream.lines if line.startswith(b"{")]


async def settled(site: Site) -> bool:
    return not [state for _, state, _ in site.rows(STATES) if state in ("queued", "running")]
