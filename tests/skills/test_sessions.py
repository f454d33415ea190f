"""Skills in sessions: copied into the sandbox, read and run there, and asked for where the policy
says so."""

import asyncio
import signal
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.sessions.talking import SOON_S, Account, Place, plan, said, script, served
from tests.skills.conftest import Shop
from tests.skills.installing import laid, skill_md
from tests.skills.packing import packed_skill
from tests.tools.agents import agent
from tests.tools.servers import everything

SKILLS = "/sandbox/api/v2/skills"
HOME = "/home/ubuntu/workspace/.skills"
NO_SANDBOX = "The session has no sandbox."
ASKS = '#!/bin/sh\necho "in $(pwd)" "$@"\n'

Told = list[tuple[str, dict[str, Any]]]


def run(skill: str, *arguments: str, **more: object) -> dict[str, object]:
    return {"call": "skill_run", "args": {"skill": skill, "arguments": list(arguments), **more}}


def read(skill: str, **more: object) -> dict[str, object]:
    return {"call": "skill_read", "args": {"skill": skill, **more}}


def called(told: Told, function: str = "skill_run") -> list[dict[str, Any]]:
    return [
        data
        for name, data in told
        if name == "tool" and data["function"] == function and data["status"] == "called"
    ]


def told_of(told: Told) -> list[dict[str, Any]]:
    """What came of every call about skills."""
    return [*called(told), *called(told, "skill_read")]


def a_name() -> str:
    return f"s{uuid.uuid4().hex[:10]}"


async def install(
    admin: Account, roots: Path, files: Mapping[str, str | bytes] | None = None, **front: object
) -> dict[str, Any]:
    """A new skill with a script of its own, or with other files and front matter."""
    name = a_name()
    front = front or {"entry": {"command": "scripts/ask.sh"}, "refs": ["docs/how.md"]}
    beside = {"scripts/ask.sh": ASKS, "docs/how.md": "Softly.\n"} if files is None else files
    source = laid(roots / name, {"SKILL.md": skill_md(name, **front), **beside})
    body = {"source_type": "local", "source_ref": str(source)}
    made: dict[str, Any] = await admin.ask("POST", f"{SKILLS}/install", body)
    return made


@pytest.fixture
async def admin(there: Place) -> Account:
    return await there.admin()


@pytest.fixture
async def enforced(admin: Account) -> Any:
    await admin.ask("POST", f"{SKILLS}/policy", {"mode": "enforce_confirmation"})
    yield
    await admin.ask("POST", f"{SKILLS}/policy", {"mode": "off"})


async def test_a_native_skill_is_read_and_run(shop: Shop, there: Place, admin: Account) -> None:
    skill = await install(admin, shop.roots)
    ann = await there.account()
    session = await ann.create()
    name, home = skill["name"], f"{HOME}/{skill['id']}"
    step = script(
        read(name),
        read(name, file="scripts/ask.sh"),
        run(name, "why not?", "$(id)"),
        {"call": "shell_execute", "args": {"command": f"stat -c %A {home}/scripts/ask.sh"}},
        {"say": "Done."},
    )
    told = await ann.chat(session, script(plan(step)))
    instructions, beside = called(told, "skill_read")
    assert instructions["name"] == "skill"
    text = instructions["content"]["skill_result"]
    assert home in text
    assert "Ask three people." in text
    assert "# docs/how.md\nSoftly." in text
    assert beside["content"] == {"skill_result": ASKS}
    [ran] = called(told)
    assert ran["name"] == "skill"
    assert ran["args"]["arguments"] == ["why not?", "$(id)"]
    assert ran["content"] == {"skill_result": f"in {home} why not? $(id)\n\n[exit code 0]"}
    [mode] = called(told, "shell_execute")
    assert mode["content"]["console"][0]["output"].startswith("-rwx")
    listed = (await admin.ask("GET", SKILLS))["skills"]
    assert next(one for one in listed if one["id"] == skill["id"])["last_sync_at"] is not None
    assert (await ann.ask("GET", f"/sandbox/api/sessions/{session}/files")) == {"files": []}


async def test_a_skill_is_read_without_a_sandbox(shop: Shop, there: Place, admin: Account) -> None:
    """None is opened by a chat that runs nothing; the files are there when one is."""
    skill = await install(admin, shop.roots)
    ann = await there.account()
    ann.client.headers["accept-language"] = "en"
    session = await ann.create()
    told = await ann.chat(session, script(read(skill["name"])))
    assert "Softly." in called(told, "skill_read")[0]["content"]["skill_result"]
    path, body = f"/sandbox/api/sessions/{session}/shell", {"session_id": "main"}
    assert (await ann.client.post(path, json=body)).json()["msg"] == NO_SANDBOX
    told = await ann.chat(session, script(run(skill["name"], "why?")))
    assert called(told)[0]["content"]["skill_result"].startswith(f"in {HOME}/{skill['id']} why?")
    refused = await ann.client.post(path, json=body)
    assert refused.status_code == 404
    assert refused.json()["msg"] != NO_SANDBOX, "one runs, but it has no such shell"


async def test_a_session_keeps_its_edition(shop: Shop, there: Place, admin: Account) -> None:
    skill = await install(admin, shop.roots)
    ann = await there.account()
    session, name = await ann.create(), skill["name"]
    first = await ann.chat(session, script(run(name)))
    assert called(first)[0]["content"]["skill_result"].startswith("in ")
    source = laid(
        shop.roots / name,
        {
            "SKILL.md": skill_md(name, "Ask nobody.", entry={"command": "echo new"}),
            "scripts/ask.sh": "#!/bin/sh\necho changed\n",
        },
    )
    body = {"source_type": "local", "source_ref": str(source)}
    again = await admin.ask("POST", f"{SKILLS}/install", body)
    assert again["id"] == skill["id"]
    same = await ann.chat(session, script(run(name), read(name)))
    assert called(same)[0]["content"] == called(first)[0]["content"]
    assert "Ask three people." in called(same, "skill_read")[0]["content"]["skill_result"]
    other = await ann.create()
    told = await ann.chat(other, script(run(name), read(name)))
    assert called(told)[0]["content"]["skill_result"].startswith("new\n")
    assert "Ask nobody." in called(told, "skill_read")[0]["content"]["skill_result"]


async def test_what_is_switched_off_is_not_there(shop: Shop, there: Place, admin: Account) -> None:
    skill = await install(admin, shop.roots)
    ann = await there.account()
    session, name = await ann.create(), skill["name"]
    mine = f"/sandbox/api/v2/user/tools/skills/{skill['id']}/enabled"
    everybodys = f"{SKILLS}/{skill['slug']}/enabled"
    for who, path in ((ann, mine), (admin, everybodys)):
        await who.ask("POST", path, {"enabled": False})
        told = await ann.chat(session, script(run(name), read(name)))
        errors = [one["content"]["error"] for one in told_of(told)]
        assert all("There is no" in one or "there is no such skill" in one for one in errors)
        assert len(errors) == 2
        await who.ask("POST", path, {"enabled": True})
    told = await ann.chat(session, script(run(name)))
    assert "exit code 0" in called(told)[0]["content"]["skill_result"]


async def test_what_a_command_cannot_do(shop: Shop, there: Place, admin: Account) -> None:
    fails = await install(admin, shop.roots, {}, entry={"command": "echo no; exit 3"})
    slow = await install(admin, shop.roots, {}, entry={"command": "sleep 600", "timeout_s": 1})
    says = await install(admin, shop.roots, {}, version="1.0.0")
    ann = await there.account()
    session = await ann.create()
    steps = script(run(fails["name"]), run(slow["name"]), run(says["name"]), run(fails["name"]))
    told = await ann.chat(session, steps)
    failed, late, none, again = called(told)
    assert failed["content"]["skill_result"] == "no\n\n[exit code 3]"
    assert "more than 1 s" in late["content"]["error"]
    assert "no command" in none["content"]["error"]
    assert again["content"] == failed["content"]


async def test_a_command_waits_for_a_yes(
    shop: Shop, there: Place, admin: Account, enforced: None
) -> None:
    skill = await install(admin, shop.roots)
    ann = await there.account()
    session, name = await ann.create(), skill["name"]
    told = await ann.chat(
        session, script(read(name), run(name, "one"), run(name, "two"), {"say": "Done."})
    )
    assert told[-1][0] == "wait"
    assert f"{name}: scripts/ask.sh one" in said(told)[-1]
    assert called(told) == []
    assert (await ann.detail(session))["status"] == "waiting"

    yes = await ann.chat(session, "同意。")
    assert called(yes)[0]["content"]["skill_result"].endswith("one\n\n[exit code 0]")
    assert yes[-1][0] == "wait", "a yes is good for one call"
    assert f"{name}: scripts/ask.sh two" in said(yes)[-1]

    no = await ann.chat(session, "no, rather not")
    assert no[-1][0] == "done"
    assert "no, rather not" in called(no)[0]["content"]["error"]
    assert said(no)[-1] == "Done."


async def test_the_same_call_is_asked_for_anew(
    shop: Shop, there: Place, admin: Account, enforced: None
) -> None:
    skill = await install(admin, shop.roots)
    ann = await there.account()
    session, name = await ann.create(), skill["name"]
    steps = script(run(name, "one"), run(name, "one"))
    assert (await ann.chat(session, steps))[-1][0] == "wait"
    once = await ann.chat(session, "yes")
    assert len(called(once)) == 1
    assert once[-1][0] == "wait"
    twice = await ann.chat(session, "YES!")
    assert "exit code 0" in called(twice)[0]["content"]["skill_result"]
    assert twice[-1][0] == "done"


async def test_a_no_stays_a_no(shop: Shop, there: Place, admin: Account, enforced: None) -> None:
    """A policy that is turned off meanwhile does not make a no a yes."""
    skill = await install(admin, shop.roots)
    ann = await there.account()
    session, name = await ann.create(), skill["name"]
    assert (await ann.chat(session, script(run(name, "one"))))[-1][0] == "wait"
    await admin.ask("POST", f"{SKILLS}/policy", {"mode": "off"})
    told = await ann.chat(session, "no")
    assert "did not agree" in called(told)[0]["content"]["error"]


async def test_skills_of_servers_and_agents(shop: Shop, there: Place, admin: Account) -> None:
    ann = await there.account()
    server_name = f"docs-{uuid.uuid4().hex[:8]}"
    with everything("streamable_http") as server, agent("streaming") as address:
        servers = {server_name: {"url": server.endpoint.url}}
        await admin.ask("POST", "/sandbox/api/app-config/mcp-servers", {"mcpServers": servers})
        await admin.ask("POST", "/sandbox/api/app-config/a2a-servers", {"base_url": address})
        adds = await install(
            admin,
            shop.roots,
            {},
            runtime_type="mcp",
            entry={"server": server_name, "tool": "add"},
        )
        echoes = await install(admin, shop.roots, {}, runtime_type="a2a", entry={"agent": address})
        none = await install(
            admin, shop.roots, {}, runtime_type="mcp", entry={"server": server_name, "tool": "no"}
        )
        steps = script(
            run(adds["name"], input={"a": 20, "b": 22}),
            run(echoes["name"], message="hi"),
            run(echoes["name"]),
            run(none["name"]),
        )
        added, echoed, silent, missing = called(await ann.chat(await ann.create(), steps))
        agents = (await ann.ask("GET", "/sandbox/api/user/tools/a2a"))["tools"]
        mine = [f"mcp/{server_name}", *(f"a2a/{one['tool_id']}" for one in agents)]
        for path in mine:
            await ann.ask("POST", f"/sandbox/api/user/tools/{path}/enabled", {"enabled": False})
        unwanted = called(await ann.chat(await ann.create(), steps))
        bob = await there.account()
        his = called(await bob.chat(await bob.create(), steps))
    assert added["name"] == echoed["name"] == "skill"
    assert "42" in added["content"]["skill_result"]
    assert "hi" in echoed["content"]["skill_result"]
    assert "needs a message" in silent["content"]["error"]
    assert "no tool no" in missing["content"]["error"]
    assert [list(one["content"]) for one in unwanted] == [["skill_result", "error"]] * 4
    assert "no tool add" in unwanted[0]["content"]["error"]
    assert "no agent" in unwanted[1]["content"]["error"]
    assert [one["content"] for one in his[:2]] == [added["content"], echoed["content"]]


async def test_a_system_skill_of_sage_is_one_here(shop: Shop, there: Place, admin: Account) -> None:
    ann = await there.account()
    name = a_name()
    answer = await admin.client.post(
        "/sage/api/skills/upload",
        files={"file": ("skill.zip", packed_skill(name))},
        data={"is_system": "true"},
    )
    assert answer.json()["code"] == 200, answer.text
    listed = (await admin.ask("GET", SKILLS))["skills"]
    [here] = [one for one in listed if one["name"] == name]
    assert (here["slug"], here["version"], here["runtime_type"]) == (name, "0.1.0", "native")
    assert (here["source_type"], here["source_ref"], here["bundle_file_count"]) == ("local", "", 2)
    told = await ann.chat(await ann.create(), script(read(name), run(name)))
    assert "Ask three people." in called(told, "skill_read")[0]["content"]["skill_result"]
    await admin.ask("POST", f"{SKILLS}/{here['id']}/enabled", {"enabled": False})
    body = {
        "messages": [{"role": "user", "content": script({"say": "Hello."})}],
        "available_skills": [name],
    }
    stream = await ann.client.post("/sage/api/web-stream", json=body)
    assert name in stream.text, "what is disabled is skipped, and a line says so"
    await admin.ask("DELETE", f"{SKILLS}/{name}")
    assert name not in (await ann.client.get("/sage/api/skills")).text


async def test_every_skill_is_there_from_the_start(
    shop: Shop, there: Place, admin: Account
) -> None:
    """What the first message speaks of before the first step, the others soon after it."""
    spoken = await install(admin, shop.roots)
    other = await install(admin, shop.roots)
    ann = await there.account()
    session = await ann.create()
    async with ann.chatting(session, script({"say": spoken["name"]}, {"stall_ms": 200})) as events:
        await events.until("message", role="assistant")
        home = shop.server.data / "workspaces" / "sessions" / ann.id / session / ".skills"
        assert (home / spoken["id"] / "SKILL.md").exists()
        await events.rest()
    async with asyncio.timeout(SOON_S):
        while True:
            listed = (await admin.ask("GET", SKILLS))["skills"]
            if next(one for one in listed if one["id"] == other["id"])["last_sync_at"]:
                break
            await asyncio.sleep(0.05)
    assert (home / other["id"] / "scripts" / "ask.sh").read_text() == ASKS


async def test_a_kill_while_a_yes_is_awaited(tmp_path: Path) -> None:
    (tmp_path / "roots").mkdir()
    given = {"SKILL_SOURCE_ROOTS": str(tmp_path / "roots")}
    with served(tmp_path / "data", "sqlite", given) as server:
        here = Place(server)
        admin, ann = await here.admin(), await here.account()
        skill = await install(admin, tmp_path / "roots")
        await admin.ask("POST", f"{SKILLS}/policy", {"mode": "enforce_confirmation"})
        session = await ann.create()
        steps = script(run(skill["name"], "one"), {"say": "Done."})
        assert (await ann.chat(session, steps))[-1][0] == "wait"
        server.stop(signal.SIGKILL)
    with served(tmp_path / "data", "sqlite", given) as server:
        ann.client.base_url = server.url
        assert (await ann.detail(session))["status"] == "waiting"
        told = await ann.chat(session, "yes")
        assert "one\n\n[exit code 0]" in called(told)[0]["content"]["skill_result"]
        assert said(told)[-1] == "Done."
        await here.close()


async def test_a_workspace_that_an_agent_has_crossed(tmp_path: Path) -> None:
    """A link where skills are copied to is not followed; the skill is then not to be had."""
    (tmp_path / "roots").mkdir()
    given = {"SKILL_SOURCE_ROOTS": str(tmp_path / "roots")}
    with served(tmp_path / "data", "sqlite", given) as server:
        here = Place(server)
        admin, ann = await here.admin(), await here.account()
        session = await ann.create()
        crossing = {"call": "shell_execute", "args": {"command": "ln -s /tmp .skills"}}
        await ann.chat(session, script(crossing))
        skill = await install(admin, tmp_path / "roots")
        told = await ann.chat(session, script(read(skill["name"]), run(skill["name"])))
        errors = [one["content"]["error"] for one in told_of(told)]
        assert len(errors) == 2
        assert all("cannot be copied" in error for error in errors)
        await here.close()
