"""Agents and the files of their workspaces."""

from pathlib import Path
from typing import Any

import pytest

from domain.caller import Caller
from domain.turn import file_tools
from tests.runs.conftest import Here
from tests.runs.test_mcp_tools import results
from tests.runs.test_sub_agents import hand, of_tasks
from tests.runs.test_turns import Recorder, script
from tests.runs.world import ADA, BOB, World


def write(path: str, content: str = "x", **fields: Any) -> dict[str, Any]:
    return {"call": "file_write", "args": {"path": path, "content": content, **fields}}


def read(path: str) -> dict[str, Any]:
    return {"call": "file_read", "args": {"path": path}}


async def test_an_agent_works_on_files(here: World, data: Path) -> None:
    agent = await here.agent()
    said = script(
        write("a.txt", "one\n"),
        write("./a.txt", "two\n", append=True),
        read("a.txt"),
        write("b/c.md", "zwei Two"),
        {"call": "file_find", "args": {"pattern": "*.md"}},
        {"call": "file_search", "args": {"query": "two"}},
        read("nothing.txt"),
        {"say": "Done."},
    )
    lines = await here.turn(said, agent_id=agent)
    assert results(lines) == [
        ("a.txt is written.", False),
        ("a.txt is written.", False),
        ("one\ntwo\n", False),
        ("b/c.md is written.", False),
        ("b/c.md", False),
        ("a.txt:2: two\nb/c.md:1: zwei Two", False),
        ("file_read failed: there is no file nothing.txt", True),
    ]
    assert (data / "workspaces" / agent / "ada" / "s" / "b" / "c.md").read_text() == "zwei Two"


async def test_each_session_and_account_has_its_own(here: World) -> None:
    agent = await here.agent()
    await here.agents.set_grants(ADA, agent, ["bob"])
    await here.turn(script(write("a.txt"), {"say": "Done."}), agent_id=agent)
    look = script(read("a.txt"), {"call": "file_find"}, {"say": "Done."})
    assert results(await here.turn(look, agent_id=agent)) == [("x", False), ("a.txt", False)]
    for caller, session_id in ((ADA, "other"), (BOB, "s")):
        lines = await here.turn(look, agent_id=agent, caller=caller, session_id=session_id)
        assert [failed for _, failed in results(lines)] == [True, False]
        assert results(lines)[1][0] == "No file matches."


@pytest.mark.parametrize(
    "path",
    ["../s2/x", "/etc/passwd", "a/../../x", ".hidden", "%2e%2e/x", "a\\b", "a//b", "x" * 256],
)
async def test_no_path_leads_out(here: World, data: Path, path: str) -> None:
    agent = await here.agent()
    lines = await here.turn(script(write(path), read(path), {"say": "Done."}), agent_id=agent)
    assert [failed for _, failed in results(lines)] == [True, True]
    assert not [one for one in (data / "workspaces").rglob("*") if one.is_file()]


async def test_a_session_whose_name_is_no_folder_has_no_workspace(here: World) -> None:
    agent = await here.agent()
    said = script(write("a.txt"), {"call": "file_find"}, {"say": "Done."})
    lines = await here.turn(said, agent_id=agent, session_id="..")
    assert results(lines) == [
        ("file_write failed: a session of this name has no workspace", True),
        ("No file matches.", False),
    ]


async def test_an_agent_has_the_tools_that_it_names(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        said = script(write("a.txt"), read("a.txt"), {"say": "Done."})
        reader = await here.agent(tools=["file_read"])
        lines = await here.turn(said, agent_id=reader)
        assert results(lines)[0] == ("There is no tool 'file_write'.", True)
        assert "there is no file" in results(lines)[1][0]
        offered = {tool["function"]["name"] for tool in model.calls[0].tools}
        assert offered == {"file_read"}
        other = await here.agent(tools=["time"])
        assert all(failed for _, failed in results(await here.turn(said, agent_id=other)))
        assert all(failed for _, failed in results(await here.turn(said)))
        stranger = Caller(user_id="ada", role="operator")
        lines = await here.turn(said, agent_id=reader, caller=stranger)
        assert all(failed for _, failed in results(lines))


async def test_sub_agents_work_in_the_workspace_of_the_run(here: World) -> None:
    """Also one that the caller may not see for itself; without an agent each has its own."""
    sub = await here.agent(name="Sub")
    agent = await here.agent(sub_agent_ids=[sub], multi_agent=True)
    await here.agents.set_grants(ADA, agent, ["bob"])
    task = script(write("a.txt"), {"say": "Done."})
    said = script(hand(("Sub", task)), read("a.txt"), {"say": "Done."})
    lines = await here.turn(said, agent_id=agent, caller=BOB)
    assert ("x", False) in results(lines)
    lines = await here.turn(said, session_id="t", available_sub_agent_ids=[sub])
    [wrote] = [line for line in of_tasks(lines) if line["type"] == "tool_call_result"]
    assert not wrote["metadata"]["failed"]
    lines = await here.turn(script(read("a.txt"), {"say": "x"}), session_id="t", agent_id=sub)
    assert results(lines) == [("x", False)]


async def test_workspaces_are_bounded(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sessions of an account with an agent together."""
    monkeypatch.setattr(file_tools, "BYTES_MAX", 10)
    agent, other = await here.agent(), await here.agent()
    eight, two = (script(write("a.txt", "x" * size), {"say": "Done."}) for size in (8, 2))
    assert not results(await here.turn(eight, agent_id=agent))[0][1]
    assert results(await here.turn(eight, agent_id=agent, session_id="t"))[0][1]
    assert not results(await here.turn(two, agent_id=agent, session_id="t"))[0][1]
    assert not results(await here.turn(eight, agent_id=other))[0][1]


async def test_a_link_in_the_place_of_a_workspace_is_not_followed(here: World, data: Path) -> None:
    agent = await here.agent()
    inside = data / "workspaces" / agent / "ada"
    inside.mkdir(parents=True)
    (inside / "s").symlink_to(data)
    lines = await here.turn(script(write("a.txt"), {"say": "Done."}), agent_id=agent)
    assert results(lines)[0][1]
    assert not (data / "a.txt").exists()
