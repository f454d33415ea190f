"""Keys that a request brings along are in its run's row, sealed, for as long as the run lasts."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.providers.parts import endpoint
from tests.runs.conftest import Here
from tests.runs.test_turns import script
from tests.runs.world import ADA, World

KEY = "sk-canary-brought-8Vt2"
SLOW = script({"tokens": 2000, "every_ms": 5})


@pytest.fixture
async def brought() -> AsyncIterator[dict[str, Any]]:
    """The fields of a request that brings a model and an MCP server along, and a sub-agent."""
    async with endpoint(KEY) as (base_url, _):
        yield {
            "llm_model_config": {"base_url": base_url, "api_key": KEY, "model": "m"},
            "custom_sub_agents": [{"name": "Helper"}],
            "extra_mcp_config": {"docs": {"url": "http://127.0.0.1:9/mcp", "api_key": KEY}},
            "system_context": {"api_key_sealed": "a word of the user's"},
        }


def sealed(request: dict[str, Any]) -> list[str]:
    """What is sealed in a run's row: of its model, of its sub-agent's, of its MCP servers."""
    assert KEY not in json.dumps(request)
    assert request["system_context"] == {"api_key_sealed": "a word of the user's"}
    [helper] = request["sub_agents"].values()
    found = [plan["model"].get("api_key_sealed") for plan in (request, helper)]
    found.append((request.get("brought_mcp") or {}).get("servers_sealed"))
    return [one for one in found if one]


@pytest.mark.parametrize(
    ("said", "state"),
    [("hello", "completed"), (script({"fail": "no", "status": 400}), "failed")],
)
async def test_they_go_when_the_run_ends(
    here: World, brought: dict[str, Any], said: str, state: str
) -> None:
    run = await here.start(said, **brought)
    assert len(sealed(run.request)) == 3
    await here.lines(run)
    ended = await here.run(run.id)
    assert (ended.state, sealed(ended.request)) == (state, [])


async def test_they_go_when_the_run_is_interrupted(here: World, brought: dict[str, Any]) -> None:
    run = await here.start(SLOW, **brought)
    await here.shown(run, 3)
    assert len(sealed((await here.run(run.id)).request)) == 3
    await here.runs.interrupt(ADA, "s")
    assert sealed((await here.run(run.id)).request) == []


async def test_they_go_when_the_run_is_settled_after_a_crash(
    make: Here, brought: dict[str, Any]
) -> None:
    """By the reconciler, as the workflow of an older version cannot go on."""
    async with make() as first:

        async def nothing(*_: object) -> None:
            """A crash at this point."""

        first.runs._workflows.start, start = nothing, first.runs._workflows.start  # type: ignore[method-assign]
        run = await first.start(SLOW, **brought)
        first.runs._draining = True
        await start("run", run.workflow_id)
    async with make(version="2") as second:
        await second.lines(run)
        ended = await second.run(run.id)
        assert (ended.reason, sealed(ended.request)) == ("outdated", [])
