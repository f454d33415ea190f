"""Skills over a real database, a real directory, and a real server to import from."""

import asyncio
import errno
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from domain.agents import Agents
from domain.caller import Caller
from domain.errors import Conflict, DomainError, Forbidden, NotFound, Unusable
from domain.quota import Quota
from domain.skill_manifest import CONTENT_MAX, Manifest, manifest_of
from domain.skills import Skills, Target
from domain.tools import ToolFailed
from domain.turn.skill_tool import skill_tool
from gateways.outbound import Outbound
from storage.agents import AgentFields, AgentStore
from storage.database import Database, StorageFull
from storage.events import EventLog
from storage.providers import ProviderStore
from storage.skill_files import SkillFiles
from storage.skills import SkillStore
from storage.users import UserStore
from storage.wakeups import OneProcess
from tests.skills.packing import packed, packed_skill, skill_md
from tests.skills.test_archives import CORPUS
from tests.storage.accounts import make_accounts

ANN = Caller(user_id="ann", role="operator")
BOB = Caller(user_id="bob", role="operator")
ROOT = Caller(user_id="root", role="admin")
BOSS = Caller(user_id="boss", role="admin")
OWN = Target()
SYSTEM = Target(is_system=True)


class Place:
    """Skills, and what stands around them."""

    def __init__(self, database: Database, data: Path, allow: list[str]) -> None:
        log = EventLog(database, OneProcess())
        self.outbound = Outbound(allow)
        self.folder = data / "skills"
        self.agents = Agents(
            database, AgentStore(database), ProviderStore(database), log, embedded=frozenset()
        )
        self.skills = Skills(
            database,
            SkillStore(database),
            SkillFiles(self.folder),
            log,
            self.agents,
            self.outbound,
            Quota(0),
        )

    async def add(self, caller: Caller, content: bytes, target: Target = OWN) -> str:
        return (await self.skills.add(caller, io.BytesIO(content), target)).id

    async def names(self, caller: Caller, **narrowed: str) -> list[str]:
        found = await self.skills.visible(caller, **narrowed)  # type: ignore[arg-type]
        return [skill.name for skill, _ in found]

    @property
    def kept(self) -> set[str]:
        """Everything on the disk, below the folder of skills."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@pytest.fixture
async def place(database: Database, data: Path) -> AsyncIterator[Place]:
    await make_accounts(database, "ann", "bob", "root", "boss")
    made = Place(database, data, ["skill=127.0.0.1/32"])
    yield made
    await made.outbound.close()


async def refused(key: str, awaited: object) -> DomainError:
    with pytest.raises(DomainError) as refusal:
        await awaited  # type: ignore[misc]
    assert refusal.value.key == key
    return refusal.value


# --- front matter -----------------------------------------------------------------------------


def test_front_matter_names_and_describes() -> None:
    assert manifest_of(skill_md("a-b", "Does\n  things.")) == Manifest("a-b", "Does things.")
    assert manifest_of("---\r\nname: 市场 研究\r\ndescription: 你好\r\n---") == Manifest(
        "市场 研究", "你好"
    )
    assert manifest_of("---\nname: a\ndescription: >\n  Two\n  lines\nlicense: MIT\n---\n---\n")


_MERGED = "a0: &a0 {k: 1}\n" + "\n".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, 200)
)
"""Read naively, 3^199 times one pair."""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# How to\n",
        "---\nname: a\ndescription: b\n",
        "\n---\nname: a\ndescription: b\n---\n",
        "---\nname: a\n---\n",
        "---\ndescription: a\n---\n",
        "---\n- a\n---\n",
        "---\nname: [a]\ndescription: b\n---\n",
        "---\nname: 1\ndescription: b\n---\n",
        "---\nname: ../../etc\ndescription: b\n---\n",
        'name: "a"\n---\n',
        '---\nname: "a\\u202Eb"\ndescription: b\n---\n',
        f"---\nname: {'a' * 65}\ndescription: b\n---\n",
        f"---\nname: a\ndescription: {'b' * 1025}\n---\n",
        "---\nname: !!python/object/apply:os.system [id]\ndescription: b\n---\n",
        f"---\nname: a\ndescription: b\nx: {'[' * 5000}\n---\n",
        f"---\nname: a\ndescription: b\n{_MERGED}\n---\n",
        "---\nname: &a a\ndescription: *a\n---\n",
        f"---\nname: a\ndescription: b\nx: {'[' * 17 + ']' * 17}\n---\n",
        "---\nname: a\ndescription: b\n---\n" + "x" * CONTENT_MAX,
        "---\nname: a\ndescription: b\n---\n\0",
    ],
)
def test_other_front_matter_is_refused(text: str) -> None:
    with pytest.raises(Unusable) as refusal:
        manifest_of(text)
    assert refusal.value.key == "skill.manifest"


# --- what is taken, and what is left ------------------------------------------------------------


async def test_a_skill_is_kept_under_opaque_names(place: Place) -> None:
    made = await place.add(ANN, packed_skill("market-research"))
    assert await place.names(ANN) == ["market-research"]
    assert await place.skills.content(ANN, "market-research") == skill_md("market-research")
    assert place.kept == {made, f"{made}/0"}
    assert await place.skills.read(made, "scripts/ask.py") == "print('Why?')\n"


async def test_skill_md_may_stand_at_the_top(place: Place) -> None:
    files = {"SKILL.md": skill_md("flat"), "__MACOSX/x": b"junk", "a.md": "A"}
    made = await place.add(ANN, packed(files))
    assert await place.skills.read(made, "a.md") == "A"
    assert (await refused("skill.no_file", place.skills.read(made, "__MACOSX/x"))).details == {
        "paths": "a.md"
    }


@pytest.mark.parametrize("kind", CORPUS)
async def test_a_refused_archive_leaves_nothing(kind: str, place: Place) -> None:
    with pytest.raises(Unusable) as refusal:
        await place.add(ANN, CORPUS[kind]())
    assert refusal.value.key in ("skill.archive", "skill.manifest_missing")
    assert place.kept == set()
    assert await place.names(ANN) == []


@pytest.mark.parametrize(
    ("files", "key"),
    [
        ({}, "skill.manifest_missing"),
        ({"a.md": "a"}, "skill.manifest_missing"),
        ({"a/SKILL.md": skill_md(), "b/c": "c"}, "skill.manifest_missing"),
        ({"a/b/SKILL.md": skill_md()}, "skill.manifest_missing"),
        ({"skill.md": skill_md()}, "skill.manifest_missing"),
        ({"SKILL.md": b"\xff\xfe"}, "skill.manifest"),
        ({"SKILL.md": "# none", "b": "c"}, "skill.manifest"),
    ],
)
async def test_an_archive_without_a_skill_leaves_nothing(
    files: dict[str, str | bytes], key: str, place: Place
) -> None:
    await refused(key, place.add(ANN, packed(files)))
    assert place.kept == set()


async def test_a_damaged_late_file_takes_the_early_ones_along(place: Place) -> None:
    content = packed({"SKILL.md": skill_md(), "a": b"early", "b": packed({"x": b"nested"})})
    await refused("skill.archive", place.add(ANN, content))
    assert place.kept == set()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"some"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageFull):
        SkillFiles(tmp_path / "skills").write("01a20630-0000-7000-8000-00000000dead", [chunks()])
    assert list((tmp_path / "skills").iterdir()) == []


async def test_the_same_name_is_replaced(place: Place) -> None:
    first = await place.add(ANN, packed_skill("a", "First."))
    second = await place.add(ANN, packed_skill("a", "Second."))
    [(skill, _)] = await place.skills.visible(ANN)
    assert (first, skill.id, skill.description) == (second, second, "Second.")
    assert place.kept == {skill.bundle, f"{skill.bundle}/0"}
    assert skill.bundle != first
    assert await place.skills.read(first, "scripts/ask.py") == "print('Why?')\n"


async def test_two_uploads_at_once_leave_one(place: Place) -> None:
    results = await asyncio.gather(
        *(place.add(ANN, packed_skill("a", f"Number {n}.")) for n in range(4)),
        return_exceptions=True,
    )
    assert all(isinstance(one, str | Conflict) for one in results), results
    assert await place.names(ANN) == ["a"]
    assert len({path.split("/")[0] for path in place.kept}) == 1


async def test_strays_are_swept_and_skills_are_not(place: Place) -> None:
    made = await place.add(ANN, packed_skill())
    stray = "01a20630-0000-7000-8000-00000000dead"
    SkillFiles(place.folder).write(stray, [iter([b"left"])])
    files = SkillFiles(place.folder)
    assert files.strays([made], -1) == [stray]
    assert files.strays([made], 60) == []
    await place.skills.purge()
    assert {made, stray} <= place.kept


async def test_an_account_that_leaves_takes_its_skills_along(place: Place) -> None:
    await place.add(ANN, packed_skill("a"))
    kept = await place.add(BOB, packed_skill("b"))
    await place.skills.erase_all("ann")
    assert await place.names(ROOT) == ["b"]
    assert place.kept == {kept, f"{kept}/0"}


async def test_what_an_account_added_to_the_system_stays(place: Place, database: Database) -> None:
    """Whatever it was when it added it."""
    everybodys = await place.add(ROOT, packed_skill("everybody"), SYSTEM)
    others = await place.add(BOSS, packed_skill("other"), SYSTEM)
    await place.add(ROOT, packed_skill("mine"))
    await place.skills.erase_all("root")
    await database.write(lambda: UserStore(database).delete("root"))
    assert await place.names(ANN) == ["everybody", "other"]
    assert {path for path in place.kept if "/" not in path} == {everybodys, others}
    store = SkillStore(database)
    owners = {one.name: one.owner_id for one in await store.list_all()}
    assert owners == {"everybody": None, "other": "boss"}
    await place.skills.rewrite(BOSS, "everybody", skill_md("everybody", "Anew."))
    await place.add(BOSS, packed_skill("everybody"), SYSTEM)
    owners = {one.name: one.owner_id for one in await store.list_all()}
    assert owners == {"everybody": "boss", "other": "boss"}
    await place.skills.erase_all("boss")
    for name in owners:
        await refused("skill.forbidden", place.skills.delete(ANN, name))
        await place.skills.delete(BOSS, name)
    assert (await place.names(BOSS), place.kept) == ([], set())


# --- whose it is --------------------------------------------------------------------------------


async def test_places_and_who_sees_them(place: Place) -> None:
    agent = await place.agents.create(ANN, AgentFields(name="Clerk"))
    its = Target(is_agent=True, agent_id=agent)
    await place.add(ROOT, packed_skill("everybody"), SYSTEM)
    await place.add(ANN, packed_skill("mine"))
    await place.add(ANN, packed_skill("the-clerks"), its)
    assert await place.names(ANN) == ["everybody", "mine", "the-clerks"]
    assert await place.names(BOB) == ["everybody"]
    assert await place.names(ROOT) == ["everybody", "mine", "the-clerks"]
    assert await place.names(ANN, dimension="user") == ["mine"]
    assert await place.names(ANN, dimension="agent", agent_id=agent) == ["the-clerks"]
    await refused("agent.not_found", place.skills.visible(BOB, agent))
    await place.agents.set_grants(ANN, agent, ["bob"])
    assert await place.names(BOB) == ["everybody", "the-clerks"]
    await refused("skill.forbidden", place.skills.delete(BOB, "the-clerks"))
    await refused("agent.forbidden", place.add(BOB, packed_skill("x"), its))
    await place.agents.delete(ANN, agent)
    assert await place.names(ANN) == ["everybody", "mine"]


async def test_only_administrators_change_the_systems(place: Place) -> None:
    with pytest.raises(Forbidden):
        await place.add(ANN, packed_skill("x"), SYSTEM)
    assert place.kept == set()
    await place.add(ROOT, packed_skill("x"), SYSTEM)
    await refused("skill.forbidden", place.skills.delete(ANN, "x"))
    await refused("skill.forbidden", place.skills.rewrite(ANN, "x", skill_md("x")))
    await place.skills.delete(ROOT, "x")
    assert place.kept == set()


@pytest.mark.parametrize(
    "target",
    [
        Target(is_system=True, is_agent=True, agent_id="a"),
        Target(is_system=True, agent_id="a"),
        Target(is_agent=True),
    ],
)
async def test_a_skill_has_one_place(target: Target, place: Place) -> None:
    await refused("skill.target", place.add(ROOT, packed_skill(), target))


async def test_writing_keeps_the_name(place: Place) -> None:
    made = await place.add(ANN, packed_skill("a"))
    await place.skills.rewrite(ANN, "a", skill_md("a", "New.", "Ask five."))
    [(skill, _)] = await place.skills.visible(ANN)
    assert (skill.id, skill.description) == (made, "New.")
    await refused("skill.renamed", place.skills.rewrite(ANN, "a", skill_md("b")))
    await refused("skill.manifest", place.skills.rewrite(ANN, "a", "nothing"))
    await refused("skill.not_found", place.skills.rewrite(BOB, "a", skill_md("a")))
    assert await place.skills.content(ANN, "a") == skill_md("a", "New.", "Ask five.")


# --- what an agent can use ----------------------------------------------------------------------


async def test_an_agents_own_comes_first(place: Place) -> None:
    agent = await place.agents.create(ANN, AgentFields(name="Clerk", skills=["a", "gone"]))
    system = await place.add(ROOT, packed_skill("a"), SYSTEM)
    row = await place.agents.get(ANN, agent)
    assert [one.id for one in (await place.skills.usable(BOB, row, None))[0]] == [system]
    anns = await place.add(ANN, packed_skill("a"))
    assert [one.id for one in (await place.skills.usable(BOB, row, None))[0]] == [anns]
    own = await place.add(ANN, packed_skill("a", "Its own."), Target(agent_id=agent))
    chosen, skipped = await place.skills.usable(BOB, row, None)
    assert ([one.id for one in chosen], skipped) == ([own], ["gone"])
    [found] = await place.skills.available(ANN, agent)
    assert (found.source.id, found.own and found.own.id, found.is_outdated) == (anns, own, True)
    await place.skills.rewrite(ANN, "a", skill_md("a", "Its own."))
    [found] = await place.skills.available(ANN, agent)
    assert found.is_outdated is False


async def test_what_an_owner_does_not_name_is_not_lent(place: Place) -> None:
    agent = await place.agents.create(ANN, AgentFields(name="Clerk", skills=["lent"]))
    await place.agents.set_grants(ANN, agent, ["bob"])
    await place.add(ANN, packed_skill("lent"))
    await place.add(ANN, packed_skill("secret"))
    await place.add(BOB, packed_skill("bobs"))
    row = await place.agents.get(BOB, agent)
    chosen, skipped = await place.skills.usable(BOB, row, ["lent", "secret", "bobs"])
    assert ([one.name for one in chosen], skipped) == (["lent", "bobs"], ["secret"])
    assert [one.source.name for one in await place.skills.available(BOB, agent)] == ["lent"]
    assert [one.source.name for one in await place.skills.available(ANN, agent)] == [
        "lent",
        "secret",
    ]
    with pytest.raises(NotFound):
        await place.skills.available(Caller(user_id="carol", role="operator"), agent)


async def test_the_tool_reads_what_was_chosen(place: Place) -> None:
    await place.add(ANN, packed_skill("a"))
    await place.add(ANN, packed_skill("b"))
    chosen, _ = await place.skills.usable(ANN, None, ["a"])
    tool = skill_tool(place.skills, chosen)
    assert "Ask three people." in await tool.call('{"name": "a"}')
    assert await tool.call('{"name": "a", "file": "scripts/ask.py"}') == "print('Why?')\n"
    for arguments, said in [
        ('{"name": "b"}', "no such skill; there are: a"),
        ('{"name": "a", "file": "../../quartet.sqlite"}', "no such file"),
        ("{}", "do not fit"),
    ]:
        with pytest.raises(ToolFailed, match=said):
            await tool.call(arguments)
    await place.skills.delete(ANN, "a")
    with pytest.raises(ToolFailed, match="is gone"):
        await tool.call('{"name": "a"}')


# --- importing ----------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[str]:
    """A server with a skill, a page, a redirect to each of two places, and nothing else."""
    answers: dict[str, Callable[[], tuple[int, bytes, str]]] = {
        "/skill.zip": lambda: (200, packed_skill("fetched"), ""),
        "/page": lambda: (200, b"<html>", ""),
        "/moved": lambda: (302, b"", "/skill.zip"),
        "/inside": lambda: (302, b"", "http://169.254.169.254/latest/meta-data/"),
        "/slip": lambda: (200, CORPUS["slip"](), ""),
    }

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, location = answers.get(self.path, lambda: (404, b"", ""))()
            self.send_response(status)
            if location:
                self.send_header("location", location)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("path", ["/skill.zip", "/moved"])
async def test_a_skill_is_imported(path: str, place: Place, site: str) -> None:
    await place.skills.add_from(ANN, site + path, OWN)
    assert await place.names(ANN) == ["fetched"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/nothing", "skill.import_failed"),
        ("/page", "skill.archive"),
        ("/slip", "skill.archive"),
        ("/inside", "skill.address_refused"),
    ],
)
async def test_an_import_that_fails_leaves_nothing(
    path: str, key: str, place: Place, site: str
) -> None:
    await refused(key, place.skills.add_from(ANN, site + path, OWN))
    assert place.kept == set()


async def test_addresses_inside_need_the_operators_leave(
    database: Database, data: Path, place: Place, site: str
) -> None:
    closed = Place(database, data, ["model=127.0.0.1/32"])
    await refused("skill.address_refused", closed.skills.add_from(ANN, f"{site}/skill.zip", OWN))
    for url in ("file:///etc/passwd", "http://u:p@127.0.0.1/", "http://0x7f.1/", "no address"):
        await refused("skill.address_refused", place.skills.add_from(ANN, url, OWN))
