"""A client of /api/web-stream that loses its connection 1,000 times loses nothing else."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from tests.chaos.deployment import SCRIPT, Site, counting_model, deployed, entered
from tests.chaos.disconnects import Job, plans, read_all

RUNS = 700
DISCONNECTS = 1000
SPREAD = 4400
"""Bytes of an answer, about: cuts lie anywhere in it."""
WORDS = ("né", "你好", "世界", "😀", "𝔘𝔫𝔦", "plain", "naïve", "Ωμέγα", "e\u0301", "\\n")


def script(chance: random.Random) -> tuple[str, str]:
    """A script of about 20 lines, and the text that it says."""
    before = " ".join(chance.choices(WORDS, k=8)) + " "
    after = " ".join(chance.choices(WORDS, k=6))
    tokens = chance.randrange(2, 9)
    steps = [{"say": before}, {"tokens": tokens, "every_ms": chance.randrange(12)}, {"say": after}]
    said = before + "".join(f"t{i} " for i in range(tokens)) + after
    return json.dumps(steps, ensure_ascii=False), said


def text_of(lines: list[bytes]) -> str:
    told = [json.loads(line) for line in lines]
    return "".join(line["content"] for line in told if line["type"] == "assistant_text")


async def check(site: Site, provider: str, runs: int, seed: int) -> int:
    """Run `runs` streams through their cuts; the number of connections that were lost."""
    chance = random.Random(seed)
    texts: list[str] = []
    jobs: list[Job] = []
    for number, cuts in enumerate(plans(seed, runs, SPREAD)):
        words, text = script(chance)
        session = f"cut-{seed}-{number}"
        job = site.job(session, words, provider)
        jobs.append(Job(job.request, job.resume, cuts))
        texts.append(text)
    outcomes = await read_all(site.base, jobs, at_once=50)

    room = asyncio.Semaphore(20)
    run_ids = []
    for outcome in outcomes:
        named = {a.headers["x-run-id"] for a in outcome.answers if "x-run-id" in a.headers}
        assert len(named) == 1, named
        run_ids += named

    async def read_again(number: int) -> list[bytes]:
        async with room:
            return await site.resumed(f"cut-{seed}-{number}", 0, run_ids[number])

    again = await asyncio.gather(*map(read_again, range(runs)))
    for number, outcome in enumerate(outcomes):
        assert outcome.lines == again[number], outcome.cuts
        assert text_of(outcome.lines) == texts[number]
        end = json.loads(outcome.lines[-1])
        assert end["total_stream_count"] == len(outcome.lines)
        assert "resume_fallback" not in end
    assert len(set(run_ids)) == runs
    cuts = [cut for outcome in outcomes for cut in outcome.cuts]
    assert {(cut.where, cut.how) for cut in cuts} == {
        (where, how)
        for where in ("request", "headers", "line", "utf8", "anywhere")
        for how in ("fin", "rst")
    }
    return len(cuts)


@pytest.mark.timeout(300)
async def test_a_thousand_disconnects_lose_double_and_reorder_nothing(tmp_path: Path) -> None:
    with counting_model() as (model,), deployed(tmp_path / "data") as server:
        site = await entered(server)
        provider = await site.provider(model)
        lost = await check(site, provider, RUNS, 1)
        assert lost >= DISCONNECTS
        assert site.rows("SELECT count(*) FROM runs") == [(RUNS,)]
        assert await model.calls() == RUNS
        assert site.rows("SELECT DISTINCT state FROM runs") == [("completed",)]
        assert server.process.poll() is None
        assert "Traceback" not in server.logged()


async def test_disconnects_from_the_embedded_script(tmp_path: Path) -> None:
    with deployed(tmp_path / "data") as server:
        site = await entered(server)
        await check(site, SCRIPT, 100, 2)
        assert site.rows("SELECT count(*) FROM runs") == [(100,)]
        assert site.rows("SELECT count(*) FROM calls") == [(100,)]
