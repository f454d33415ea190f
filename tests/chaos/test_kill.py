"""kill -9 in mid-run, restart on the same data, with the same code and with changed code.

What counts are the rows as the kill left them: a run with a call that went out and did not come
back ends as interrupted, every other run goes on (rules of runs: a call is at most once).
"""

import asyncio
import contextlib
import json
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.chaos.deployment import (
    ROOT,
    Model,
    Site,
    Stream,
    all_streaming,
    counting_model,
    deployed,
    entered,
    eventually,
)

EACH = 8
CHAIN = 8
"""Tool calls of a run in a chain: as many model calls, and one for the answer."""
CALCULATE = '{"call": "calculator", "args": {"expression": "6*7"}}'
LIMITS = {"RUNS_PER_PROVIDER": str(EACH), "OUTBOUND_ALLOW": "model=127.0.0.1,fetch=127.0.0.1"}
SOURCE = ("domain", "gateways", "generated", "handlers", "openapi", "scripts", "server", "storage")
LIVE = "('queued', 'running', 'waiting', 'paused')"
UNFINISHED = "SELECT DISTINCT run_id FROM calls WHERE outcome IS NULL AND name <> 'calculator'"


class SlowPage:
    """A web page that takes for ever, and counts who asks for it."""

    def __init__(self) -> None:
        self.asked = 0
        self.url = ""
        self.crowded = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.asked == EACH:
                self.crowded.set()
            await reader.read()
        writer.close()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["SlowPage"]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            yield self
        finally:
            server.close()


def the_same_code(_: Path) -> Path:
    return ROOT


def changed_code(directory: Path) -> Path:
    """A copy of the tree whose sources hash to something else."""
    tree = directory / "upgraded"
    for name in SOURCE:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    changed = tree / "domain" / "runs" / "life.py"
    changed.write_text(changed.read_text().replace("BACKLOG = 4", "BACKLOG = 2 + 2"))
    assert "BACKLOG = 2 + 2" in changed.read_text()
    return tree


@pytest.mark.timeout(180)
@pytest.mark.parametrize("restarted_from", [the_same_code, changed_code])
async def test_a_killed_server_ends_every_run_and_repeats_no_call(
    tmp_path: Path, restarted_from: Callable[[Path], Path]
) -> None:
    data, root = tmp_path / "data", restarted_from(tmp_path)
    page = SlowPage()
    with counting_model(4) as models:
        async with page.serving():
            with deployed(data, given=LIMITS) as server:
                site = await entered(server)
                async with every_phase(site, models, page) as before:
                    server.stop(signal.SIGKILL)
                    await asyncio.gather(*(stream.closed() for stream in before.values()))
            interrupted = {run for (run,) in site.rows(UNFINISHED)}
            live = {run for (run,) in site.rows(f"SELECT id FROM runs WHERE state IN {LIVE}")}
            made = [await model.calls() for model in models]
            asked = page.asked
            with deployed(data, given=LIMITS, root=root) as server:
                site = await entered(server)
                await eventually(lambda: all_ended(site), 60)
                await check_runs(site, before, live, interrupted)
                await check_calls(site, models, made)
                assert page.asked == asked == EACH
                assert "Traceback" not in server.logged()


@contextlib.asynccontextmanager
async def every_phase(
    site: Site, models: list[Model], page: SlowPage
) -> AsyncIterator[dict[str, Stream]]:
    """Streams by session name, `<phase>-<number>`, each where its phase's name says."""
    streaming, stalling, fetching, chained = [await site.provider(model) for model in models]
    fetch = json.dumps({"call": "web_fetch", "args": {"url": page.url}})
    phases = [
        ("streaming", streaming, '[{"tokens": 2000, "every_ms": 20}]', 5),
        ("stalled", stalling, '[{"say": "né "}, {"stall_ms": 600000}]', 1),
        # The stalled ones hold every place at their provider: these are not admitted.
        ("waiting", stalling, f'[{CALCULATE}, {{"say": "done"}}]', 0),
        ("fetching", fetching, f'[{fetch}, {{"say": "done"}}]', 2),
        ("chained", chained, f'[{", ".join([CALCULATE] * CHAIN)}, {{"say": "done"}}]', 3),
    ]
    async with contextlib.AsyncExitStack() as stack:
        streams: dict[str, Stream] = {}
        for phase, provider, script, lines in phases:
            names = [f"{phase}-{number}" for number in range(EACH)]
            turns = [site.turn(name, script, provider, key=name) for name in names]
            opened = await stack.enter_async_context(all_streaming(site, turns))
            for stream in opened:
                await stream.until(lambda stream=stream: bool(stream.run_id))
                await stream.has_lines(lines)
            streams |= zip(names, opened, strict=True)
        async with asyncio.timeout(10):
            await page.crowded.wait()
        yield streams


async def all_ended(site: Site) -> bool:
    return site.rows(f"SELECT count(*) FROM runs WHERE state IN {LIVE}") == [(0,)]


async def check_runs(
    site: Site, before: dict[str, Stream], live: set[str], interrupted: set[str]
) -> None:
    """What was streamed stays, and each run ended as its rows at the kill ask for."""
    ends = {run: (state, reason) for run, state, reason in site.rows(STATES)}
    assert len(ends) == len(before) == 5 * EACH
    for name, stream in before.items():
        run_id = stream.run_id
        again = await site.resumed(name, 0, run_id)
        seen = len(stream.lines)
        assert again[:seen] == stream.lines, name
        end = json.loads(again[-1])
        assert (end["type"], end["total_stream_count"]) == ("stream_end", len(again))
        assert await site.resumed(name, seen, run_id) == (again[seen:] or again[-1:])
        told = [json.loads(line) for line in again]
        if run_id in interrupted:
            assert ends[run_id] == ("failed", "interrupted_by_restart"), name
            assert told[-2]["type"] == "error"
            assert run_id in live
        else:
            assert ends[run_id] == ("completed", None), name
            assert told[-3]["content"] == "done"
            assert "error" not in {line["type"] for line in told}
    phases = {name: before[name].run_id in interrupted for name in before}
    for phase in ("streaming", "stalled", "fetching"):
        assert all(was for name, was in phases.items() if name.startswith(phase))
    assert not any(was for name, was in phases.items() if name.startswith("waiting"))


async def check_calls(site: Site, models: list[Model], made: list[int]) -> None:
    """At most one call for each that was begun, and none again after the restart."""
    streaming, stalling, fetching, chained = [await model.calls() for model in models]
    assert made[:3] == [EACH, EACH, EACH]
    assert (streaming, stalling, fetching) == (EACH, EACH + 2 * EACH, EACH)
    rows = f"{BEGUN} AND r.conversation_id IN ({CHAINS})"
    ((begun, answered),) = site.rows(rows)
    assert answered <= chained <= begun
    assert begun - answered <= EACH
    ((completed,),) = site.rows(
        f"SELECT count(*) FROM runs WHERE state = 'completed' AND conversation_id IN ({CHAINS})"
    )
    assert answered >= completed * (CHAIN + 1)


STATES = "SELECT id, state, reason FROM runs"
CHAINS = "SELECT id FROM conversations WHERE session_id LIKE 'chained-%'"
BEGUN = (
    "SELECT count(*), sum(c.outcome = 'ok') FROM calls c JOIN runs r ON r.id = c.run_id"
    " WHERE c.kind = 'model'"
)
