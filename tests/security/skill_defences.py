"""The defences around skills: sources that lead elsewhere, commands that nobody agreed to, and what
takes each defence away.

Imported, it adds its checks to those of defences.py.
"""

import os
import sys
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from domain.errors import Invalid
from domain.skill_runtime import RUN, RunSkill, SkillRuntime
from domain.skill_sources import Refused, checked, read_local
from domain.tools import ToolFailed
from gateways.archives import ArchiveRefused
from gateways.github import Folder, unpacked
from tests.security.defences import DEFENCES as DEFENCES
from tests.security.defences import without
from tests.security.place import Place, unique
from tests.skills.installing import laid, skill_md, tarball


@contextmanager
def roots() -> Iterator[Path]:
    """A root with a skill in it, and a secret beside the root."""
    with TemporaryDirectory() as directory:
        place = Path(directory).resolve()
        laid(place, {"roots/a/SKILL.md": skill_md(), "secret/SKILL.md": skill_md("secret")})
        yield place / "roots"


def refused(source: Path | str, root: Path) -> bool:
    try:
        read_local(str(source), [root])
    except Refused:
        return True
    return False


# --- 36: local sources under configured roots ---------------------------------------------------


def _anywhere(names: list[str], roots: Any) -> tuple[Path, list[str]]:
    return Path("/"), names


@without(36, roots={"domain.skill_sources:_below": _anywhere})
async def only_what_lies_below_a_root_is_read(place: Place) -> None:
    with roots() as root:
        assert not refused(root / "a", root)
        assert refused(root.parent / "secret", root)


@without(36, shipped={"domain.skill_sources:_below": _anywhere})
async def nothing_is_read_as_it_is_shipped(place: Place) -> None:
    admin = place.root
    with roots() as root:
        caller = msgspec.structs.replace(admin, user_id=(await place.account("chief", "admin")).id)
        try:
            await place.quartet.installed.install(caller, "local", str(root / "a"), manifest={})
        except Invalid:
            return
    raise AssertionError("a directory was read although the operator lists none")


@without(
    36,
    names={"domain.skill_sources:_names": lambda source: [n for n in source.split("/") if n]},
)
async def a_source_does_not_climb_out_of_its_root(place: Place) -> None:
    with roots() as root:
        assert refused(f"{root}/../secret", root)


_FOLLOWED = os.O_RDONLY | os.O_NONBLOCK


@without(36, links={"domain.skill_sources:_DIRECTORY": _FOLLOWED | os.O_DIRECTORY})
async def no_link_leads_to_a_source(place: Place) -> None:
    with roots() as root:
        (root / "way").symlink_to(root.parent / "secret")
        assert refused(root / "way", root)


# --- 31: links and devices ----------------------------------------------------------------------


@without(31, skills={"domain.skill_sources:_FILE": _FOLLOWED})
async def no_link_lies_in_a_source(place: Place) -> None:
    with roots() as root:
        (root / "a" / "key").symlink_to(root.parent / "secret" / "SKILL.md")
        assert refused(root / "a", root)


@without(31, second_names={"domain.skill_sources:_is_own": lambda told: True})
async def no_second_name_lies_in_a_source(place: Place) -> None:
    with roots() as root:
        os.link(root.parent / "secret" / "SKILL.md", root / "a" / "key")
        assert refused(root / "a", root)


@without(31, repositories={"tarfile:TarInfo.isreg": lambda self: True})
async def no_link_lies_in_a_folder_of_github(place: Place) -> None:
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "../../secret"
    try:
        unpacked(tarball({"s/SKILL.md": skill_md(), "s/key": link}), Folder("s", 9, 999, 999))
    except ArchiveRefused:
        return
    raise AssertionError("a link was taken")


# --- 30, 32, 26: names and sizes ----------------------------------------------------------------


def _taken(*_: Any) -> None:
    """Every name is as good as another."""


def is_refused(check: Callable[[], Any]) -> bool:
    try:
        check()
    except (Refused, ArchiveRefused):
        return True
    return False


@without(30, skills={"domain.skill_sources:check_path": _taken})
async def names_in_a_skill_lead_nowhere_else(place: Place) -> None:
    for name in ("../x", "/etc/passwd", "a/../../x", "C:\\x", "a\x00b", "a ", "a."):
        assert is_refused(lambda name=name: checked({name: b""})), name


@without(32, skills={"domain.skill_sources:check_names": _taken})
async def names_in_a_skill_do_not_clash(place: Place) -> None:
    assert is_refused(lambda: checked({"a": b"", "A": b""}))
    assert is_refused(lambda: checked({"a": b"", "a/b": b""}))


@without(26, skills={"domain.skill_sources:FILE_MAX": 1 << 20})
async def a_file_of_a_skill_is_bounded(place: Place) -> None:
    with roots() as root:
        (root / "a" / "large").write_bytes(b"x" * (256 * 1024 + 1))
        assert refused(root / "a", root)


@without(26, repositories={"gateways.github:_inflated": lambda content: bytes(1 << 20)})
async def a_repository_is_no_bomb(place: Place) -> None:
    from gateways import github

    most, github.UNPACKED_MAX = github.UNPACKED_MAX, 64 * 1024
    try:
        bomb = tarball({"s/SKILL.md": skill_md(), "zeros": bytes(1 << 20)})
        assert is_refused(lambda: unpacked(bomb, Folder("s", 9, 999, 999)))
    finally:
        github.UNPACKED_MAX = most


# --- 40: installing starts nothing ----------------------------------------------------------------

_STARTED: list[str] = []
_STARTS = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")


def _noted(event: str, _: Any) -> None:
    if event in _STARTS:
        _STARTED.append(event)


sys.addaudithook(_noted)


def _run_what_comes(bundle: Any) -> Any:
    os.system("true")  # what a hook of an installation would do
    return bundle


@without(40, skills={"domain.skill_sources:checked": _run_what_comes})
async def installing_and_listing_skills_starts_nothing(place: Place) -> None:
    with roots() as root, _listed(place, root):
        caller = (await place.account("chief", "admin")).caller("admin")
        entry = {"command": "touch /tmp/started"}
        source = laid(
            root / "b", {"SKILL.md": skill_md(unique("skill"), entry=entry), "a.sh": "#!"}
        )
        _STARTED.clear()
        made = await place.quartet.installed.install(caller, "local", str(source), manifest={})
        await place.quartet.installed.list()
        await place.quartet.installed.preferred(caller)
        await place.quartet.installed.offered(caller.user_id)
        await place.quartet.installed.delete(caller, made.id)
        assert _STARTED == []


@contextmanager
def _listed(place: Place, root: Path) -> Iterator[None]:
    """The operator lists a root."""
    installed = place.quartet.installed
    kept, installed._roots = installed._roots, [root]
    try:
        yield
    finally:
        installed._roots = kept


# --- 41: what nobody agreed to ------------------------------------------------------------------


@asynccontextmanager
async def a_skill_that_asks(place: Place) -> AsyncIterator[tuple[RunSkill, str]]:
    """The tool of a session whose skill has a command, under enforce_confirmation; the skill's
    name."""
    installed = place.quartet.installed
    caller = (await place.account("chief", "admin")).caller("admin")
    with roots() as root, _listed(place, root):
        name = unique("asking")
        source = laid(root / "b", {"SKILL.md": skill_md(name, entry={"command": "echo ran"})})
        made = await installed.install(caller, "local", str(source), manifest={})
        await installed.set_policy(caller, "enforce_confirmation")
        session = await place.quartet.sessions.create(caller)
        work = place.quartet.sessions._work
        runtime = SkillRuntime(
            place.database,
            installed._store,
            installed._files,
            installed,
            place.quartet.sessions._store,
            work,
            work._workspaces,
            work._sandboxes,
            place.quartet.platform.tools,
        )
        try:
            tools = {tool.name: tool for tool in await runtime.tools(caller.user_id, session)}
            asking = tools[RUN]
            assert isinstance(asking, RunSkill)
            yield asking, name
        finally:
            await work._sandboxes.close(session)
            await installed.set_policy(caller, "off")
            await installed.delete(caller, made.id)


def call(name: str, *arguments: str) -> str:
    return msgspec.json.encode({"skill": name, "arguments": arguments}).decode()


async def ran(tool: RunSkill, arguments: str, agreed: str = "") -> bool:
    try:
        return "ran" in str(await tool.call(arguments, agreed))
    except ToolFailed:
        return False


async def _asks_nobody(self: SkillRuntime) -> bool:
    return False


@without(41, policy={"domain.skill_runtime:SkillRuntime.asks": _asks_nobody})
async def a_command_that_nobody_agreed_to_does_not_run(place: Place) -> None:
    async with a_skill_that_asks(place) as (tool, name):
        assert not await ran(tool, call(name))
        assert not await ran(tool, call(name), "yes")


@without(41, digest={"domain.skill_runtime:_Hands._digest": lambda *_: "the same"})
async def a_yes_is_good_for_its_call_alone(place: Place) -> None:
    async with a_skill_that_asks(place) as (tool, name):
        consent = await tool.consent(call(name, "one"))
        assert consent is not None
        assert await ran(tool, call(name, "one"), consent.digest)
        assert not await ran(tool, call(name, "two"), consent.digest)
