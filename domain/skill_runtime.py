"""Skills in sessions: copied into the session's workspace, read there, and run.

What a session takes up of a skill it keeps: its files lie below `.skills/<skill id>` of the
workspace, and how it is run in the session's row of it, until the session ends. Those that the
first message speaks of are copied before the first step, the others in the background; a call
waits for its own.
"""

import asyncio
import hashlib
import logging
import re
import shlex
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any
from weakref import WeakValueDictionary

import msgspec

from domain.files import SESSIONS
from domain.platform.skills import PlatformSkills
from domain.platform.tools import PlatformTools
from domain.session_work import SessionWork
from domain.skill_entry import Entry
from domain.skill_manifest import FILE
from domain.skill_sources import BUNDLE_MAX, FILE_MAX, FILES_MAX
from domain.tools import Consent, Result, Tool, ToolFailed, shortened
from gateways.errors import GatewayError
from gateways.sandbox.confining import WORKSPACE
from gateways.sandbox.sandboxes import Sandbox, Sandboxes
from storage.conversations import ConversationStore
from storage.database import Database, Orphan, StorageError, Unit
from storage.session_skills import SessionSkill, SessionSkills
from storage.skill_files import SkillFiles
from storage.skills import Skill, SkillStore
from storage.workspace_files import BadPath, NoSuchFile, Place, Reading, WorkspaceFiles

logger = logging.getLogger("quartet.skills")

FOLDER = ".skills"
READ, RUN = "skill_read", "skill_run"
NAMES = frozenset({READ, RUN})
"""What the tools are called: nobody else's may be."""
SHELL = "skill"
"""The shell that runs the commands of skills."""
FIRST = 3
"""Skills that are copied before the first step, at most."""
SAID_MAX = 50
"""Messages of a session that are looked through for what its user said last."""
DESCRIBED_MAX = 300
ARGUMENTS_MAX = 64


class Edition(msgspec.Struct, frozen=True, omit_defaults=True):
    """A skill as a session took it up."""

    digest: str
    runtime_type: str
    entry: Entry
    refs: list[str] = []


class Read(msgspec.Struct, forbid_unknown_fields=True):
    skill: Annotated[str, msgspec.Meta(max_length=64, description="The name of a skill.")]
    file: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=1024,
            description="SKILL.md, or the path of a file that it tells of.",
        ),
    ] = FILE


class Run(msgspec.Struct, forbid_unknown_fields=True):
    skill: Annotated[str, msgspec.Meta(max_length=64, description="The name of a skill.")]
    arguments: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=8192)]],
        msgspec.Meta(
            max_length=ARGUMENTS_MAX, description="Arguments of its command, if it has one."
        ),
    ] = []
    input: Annotated[
        dict[str, Any], msgspec.Meta(description="Arguments of its MCP tool, if it has one.")
    ] = {}
    message: Annotated[
        str, msgspec.Meta(max_length=32_000, description="The message to its agent, if it has one.")
    ] = ""


class SkillRuntime:
    """Skills of every session in this process."""

    def __init__(
        self,
        database: Database,
        store: SkillStore,
        files: SkillFiles,
        skills: PlatformSkills,
        conversations: ConversationStore,
        work: SessionWork,
        workspaces: WorkspaceFiles,
        sandboxes: Sandboxes,
        platform: PlatformTools,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._skills = skills
        self._conversations = conversations
        self._taken = SessionSkills(database)
        self._work = work
        self._workspaces = workspaces
        self._sandboxes = sandboxes
        self._platform = platform
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def tools(self, owner_id: str, session_id: str) -> list["Tool | RunSkill"]:
        """The tools by which the owner's session uses skills; none where there are none. What the
        session has not taken up yet is copied: what its user spoke of before this returns."""
        offered = [skill for skill in await self._skills.offered(owner_id) if _fits(skill)]
        if not offered:
            return []
        taken = {row.skill_id for row in await self._taken.of(session_id)}
        missing = [skill for skill in offered if skill.id not in taken]
        hands = _Hands(self, owner_id, session_id, {skill.name: skill.id for skill in offered})
        if missing:
            first = chosen(missing, await self._said(session_id))
            await self._sync_all(owner_id, session_id, first)
            rest = [skill.id for skill in missing if skill.id not in first]
            if rest:
                self._database.in_background(partial(self._sync_all, owner_id, session_id, rest))
        return hands.tools(offered)

    async def _said(self, session_id: str) -> str:
        """What the session's user said last."""
        messages = await self._conversations.history(session_id, SAID_MAX)
        return next((one.text or "" for one in reversed(messages) if one.role == "user"), "")

    # --- copying --------------------------------------------------------------------------

    async def _sync_all(self, owner_id: str, session_id: str, skill_ids: Sequence[str]) -> None:
        """Copy skills; one that cannot be is left to the call that needs it and then says why."""
        for skill_id in skill_ids:
            try:
                await self.sync(owner_id, session_id, skill_id)
            except (ToolFailed, GatewayError, StorageError) as error:
                logger.info("skill %s is not in session %s: %s", skill_id, session_id, error)

    async def sync(self, owner_id: str, session_id: str, skill_id: str) -> Edition:
        """The edition that the session has of a skill; it takes up the present one, and its files
        are copied, where it has none. Raises ToolFailed, GatewayError, StorageError."""
        async with self._lock(session_id):
            rows = await self._taken.of(session_id)
            row = next((one for one in rows if one.skill_id == skill_id), None)
            if row is None:
                row = await self._take_up(owner_id, session_id, skill_id)
        return msgspec.convert(row.edition, Edition)

    async def _take_up(self, owner_id: str, session_id: str, skill_id: str) -> SessionSkill:
        skill = await self._store.get(skill_id)
        if skill is None:
            raise ToolFailed("the skill is gone")
        place = _place(owner_id, session_id)
        await self._sandboxes.prepare(session_id, place.names)
        await self._copy(place, skill)
        now = self._clock()
        edition = Edition(
            skill.digest, skill.runtime_type, msgspec.convert(skill.entry, Entry), skill.refs
        )
        row = SessionSkill(session_id, skill_id, msgspec.to_builtins(edition), now)

        def unit() -> Unit[None]:
            yield from self._taken.add(row)
            yield from self._store.synced(skill_id, now)

        try:
            await self._database.write(unit)
        except Orphan:  # it was deleted meanwhile, and its workspace before this made it anew
            await self._sandboxes.erase(session_id, place.names)
            raise ToolFailed("the session is gone") from None
        return row

    async def _copy(self, place: Place, skill: Skill) -> None:
        """Write a skill's files into a workspace, in place of what stood there."""
        contents = {FILE: skill.content.encode()}
        try:
            with suppress(NoSuchFile):
                await self._workspaces.delete(place, (FOLDER, skill.id))
            for number, path in enumerate(skill.files):
                contents[path] = await asyncio.to_thread(
                    self._files.read, skill.bundle, number, FILE_MAX
                )
            for path, content in contents.items():
                await self._workspaces.write(
                    place,
                    (FOLDER, skill.id, *path.split("/")),
                    _once(content),
                    owner=self._sandboxes.owner(place.session_id),
                    executable=content.startswith(b"#!"),
                )
        except FileNotFoundError:
            raise ToolFailed("the skill is being replaced; try again") from None
        except (BadPath, NoSuchFile, OSError) as error:
            raise ToolFailed(f"its files cannot be copied: {error}") from None

    # --- what the tools do ----------------------------------------------------------------

    async def asks(self) -> bool:
        """Whether a person is asked before a command runs."""
        return (await self._skills.policy()).mode == "enforce_confirmation"

    async def text(self, owner_id: str, session_id: str, skill_id: str, path: str) -> str:
        """A file of the session's edition. Raises ToolFailed."""
        try:
            opened = await self._workspaces.open(
                _place(owner_id, session_id), (FOLDER, skill_id, *path.split("/"))
            )
        except (BadPath, NoSuchFile):
            raise ToolFailed(f"the skill has no file {path}") from None
        try:
            if not isinstance(opened, Reading) or opened.size > FILE_MAX:
                raise ToolFailed(f"{path} is no file that can be read")
            return b"".join([chunk async for chunk in opened]).decode(errors="replace")
        finally:
            await opened.aclose()

    async def run_native(self, owner_id: str, session_id: str, edition: Edition, line: str) -> str:
        """What a command says, and how it ended. Raises ToolFailed, GatewayError."""
        sandbox = await self._work.sandbox(owner_id, session_id)
        output, exit_code = await self._shell(sandbox, line, edition.entry.timeout_s)
        return f"{output}\n[exit code {exit_code}]"

    async def _shell(self, sandbox: Sandbox, line: str, timeout_s: int) -> tuple[str, int]:
        async with self._lock(f"{SHELL}:{sandbox.session_id}"):
            told = await sandbox.shell(SHELL, line, timeout_s=timeout_s)
            if told.exit_code is None:
                await sandbox.kill_shell(SHELL)
                raise ToolFailed(f"it took more than {timeout_s} s\n{told.output}")
            return told.output, told.exit_code

    def _lock(self, key: str) -> asyncio.Lock:
        """A lock that is there for as long as somebody holds it or waits for it."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def run_mcp(self, owner_id: str, entry: Entry, arguments: dict[str, Any]) -> str:
        """What the tool of a server gives. Raises ToolFailed."""
        result = await self._platform.call_mcp(owner_id, entry.server, entry.tool, arguments)
        if result.text or result.structured is None:
            return shortened(result.text)
        return shortened(msgspec.json.encode(result.structured).decode())

    async def run_a2a(self, owner_id: str, entry: Entry, message: str) -> str:
        """What an agent says. Raises ToolFailed."""
        if not message:
            raise ToolFailed("the skill's agent needs a message")
        return shortened(await self._platform.ask_a2a(owner_id, entry.agent, message))


class _Hands:
    """What the tools of one session do."""

    def __init__(
        self, runtime: SkillRuntime, owner_id: str, session_id: str, ids: Mapping[str, str]
    ) -> None:
        self._runtime = runtime
        self._owner_id = owner_id
        self._session_id = session_id
        self._ids = ids

    def tools(self, offered: Sequence[Skill]) -> list["Tool | RunSkill"]:
        """skill_read, and skill_run where there is something to run."""
        listed = "\n".join(f"- {one.name}: {one.description[:DESCRIBED_MAX]}" for one in offered)
        reads = Tool(
            READ,
            "Reads the instructions of a skill, or a file of it. Call it before you do what the"
            f" skill is for. Skills:\n{listed}",
            Read,
            self._read,
            True,
            "skill",
        )
        runs = [one.name for one in offered if one.entry]
        if not runs:
            return [reads]
        told = (
            "Runs a skill: its command with arguments, its MCP tool with input, or its agent with a"
            f" message, as its instructions say. Skills: {', '.join(runs)}"
        )
        return [reads, RunSkill(Tool(RUN, told, Run, self.run, False, "skill"), self)]

    async def _read(self, wanted: Read) -> str:
        skill_id, edition = await self._taken(wanted.skill)
        text = await self._text(skill_id, wanted.file)
        if wanted.file != FILE:
            return text
        folder = f"[The skill's files are in {_home(skill_id)}.]"
        beside = [f"# {path}\n{await self._text(skill_id, path)}" for path in edition.refs]
        return "\n\n".join([folder, text, *beside])

    async def _text(self, skill_id: str, path: str) -> str:
        return await self._runtime.text(self._owner_id, self._session_id, skill_id, path)

    async def run(self, wanted: Run, agreed: str = "") -> str:
        """What a skill gives; `agreed` is the digest of what the user has agreed to."""
        skill_id, edition = await self._taken(wanted.skill)
        match edition.runtime_type:
            case "mcp":
                return await self._runtime.run_mcp(self._owner_id, edition.entry, wanted.input)
            case "a2a":
                return await self._runtime.run_a2a(self._owner_id, edition.entry, wanted.message)
        line = _line(skill_id, edition, wanted)
        if await self._runtime.asks() and agreed != self._digest(skill_id, edition, line):
            raise ToolFailed("the user has not agreed to this call")
        return await self._runtime.run_native(self._owner_id, self._session_id, edition, line)

    async def consent(self, wanted: Run) -> Consent | None:
        """What the user has to agree to before a call; None where nothing."""
        if not await self._runtime.asks():
            return None
        skill_id, edition = await self._taken(wanted.skill)
        if edition.runtime_type != "native" or not edition.entry.command:
            return None
        digest = self._digest(skill_id, edition, _line(skill_id, edition, wanted))
        return Consent(f"{wanted.skill}: {_command(edition, wanted)}", digest)

    def _digest(self, skill_id: str, edition: Edition, line: str) -> str:
        """Of what is agreed to: the session, the skill's edition, and the command."""
        told = msgspec.json.encode([self._session_id, skill_id, edition, line])
        return hashlib.sha256(told).hexdigest()

    async def _taken(self, name: str) -> tuple[str, Edition]:
        if name not in self._ids:
            raise ToolFailed(f"there is no such skill; there are: {', '.join(self._ids)}")
        skill_id = self._ids[name]
        return skill_id, await self._runtime.sync(self._owner_id, self._session_id, skill_id)


class RunSkill:
    """skill_run, which asks first where the policy wants it (domain.tools.Asking)."""

    toolbox = "skill"
    repeatable = False

    def __init__(self, tool: Tool, hands: _Hands) -> None:
        self._tool = tool
        self._hands = hands
        self.name = tool.name

    def function(self) -> dict[str, Any]:
        """As a model is told of it: OpenAI's chat completions, `tools[]`."""
        return self._tool.function()

    async def call(self, arguments: str, agreed: str = "") -> str | Result:
        """The result of a call, `arguments` being JSON text. Raises ToolFailed, GatewayError."""
        run = partial(self._hands.run, agreed=agreed)
        return await msgspec.structs.replace(self._tool, run=run).call(arguments)

    async def consent(self, arguments: str) -> Consent | None:
        """What the user has to agree to before this call; None where nothing, also where the call
        cannot be made now and says so itself. Raises StorageError."""
        try:
            return await self._hands.consent(msgspec.json.decode(arguments or "{}", type=Run))
        except (msgspec.DecodeError, UnicodeError, RecursionError, ToolFailed, GatewayError):
            return None


def chosen(skills: Sequence[Skill], said: str) -> list[str]:
    """Ids of the skills that a message speaks of, those with the most words in common first."""
    words = _words(said)
    shared = {one.id: len(words & _words(f"{one.name} {one.description}")) for one in skills}
    ranked = sorted((one for one in shared if shared[one]), key=lambda one: -shared[one])
    return ranked[:FIRST]


def _words(text: str) -> set[str]:
    """Words of four letters and more, and pairs of characters of scripts that write none."""
    words = {word for word in re.findall(r"[a-z0-9]+", text.casefold()) if len(word) > 3}
    for run in re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+", text):
        words |= {run[at : at + 2] for at in range(len(run) - 1)}
    return words


def _fits(skill: Skill) -> bool:
    """Whether a session can take it up: an upload of another contract may be larger."""
    sizes = skill.files.values()
    return (
        len(sizes) <= FILES_MAX and sum(sizes) <= BUNDLE_MAX and max(sizes, default=0) <= FILE_MAX
    )


def _command(edition: Edition, wanted: Run) -> str:
    if not edition.entry.command:
        raise ToolFailed("the skill has no command; follow its instructions")
    if any("\x00" in one for one in wanted.arguments):
        raise ToolFailed("an argument holds a NUL")
    return " ".join([edition.entry.command, *map(shlex.quote, wanted.arguments)])


def _line(skill_id: str, edition: Edition, wanted: Run) -> str:
    """The command as a shell is given it: in a shell of its own, so that nothing of it stays."""
    place = edition.entry.exec_dir or _home(skill_id)
    return f"(cd -- {shlex.quote(place)} && {{\n{_command(edition, wanted)}\n}})"


def _home(skill_id: str) -> str:
    return f"{WORKSPACE}/{FOLDER}/{skill_id}"


def _place(owner_id: str, session_id: str) -> Place:
    return Place(SESSIONS, owner_id, session_id)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
