"""Skills: instructions, with files beside them, that agents take up when a task calls for them.

A skill stands in one of three places, and its name stands once in each: the system's are
everybody's and administrators change them; an account's are its own; an agent's belong to the
agent, are seen by whoever may use it and changed by its owner. Where an agent names a skill, its
own comes first, then its owner's, then the system's.
"""

import asyncio
import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO, Literal, TypeVar

import msgspec

from domain.agents import Agents
from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, Forbidden, NotFound, Unusable
from domain.ids import uuid7
from domain.quota import Quota
from domain.skill_manifest import CONTENT_MAX, FILE, decoded, manifest_of
from gateways.archives import Archive, ArchiveRefused, Entry
from gateways.errors import OutboundError, OutboundRefused
from gateways.outbound import Outbound
from storage.agents import Agent
from storage.database import Database, Duplicate, NoSuchRow, Orphan, Unit
from storage.events import EventLog
from storage.skill_files import SkillFiles
from storage.skills import (
    SYSTEM,
    Dimension,
    Skill,
    SkillStore,
    of_agent,
    of_user,
)

T = TypeVar("T")
logger = logging.getLogger("quartet.skills")

PURPOSE = "skill"
IMPORT_MAX = 64 * 1024 * 1024
"""Bytes of an archive that is fetched."""
IMPORT_S = 60.0
SKILLS_MAX = 200
"""Skills in one place."""
READ_MAX = 256 * 1024
STRAY_S = 3600.0
_LEFT_OUT = ("__MACOSX",)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a new skill shall stand: with the agent, with the system, or with the caller."""

    is_system: bool = False
    is_agent: bool = False
    agent_id: str = ""


class Available(msgspec.Struct, frozen=True):
    """A skill that an agent can use. `source` is what it comes from; `own` is the agent's skill of
    that name, which is then the one that counts."""

    source: Skill
    own: Skill | None

    @property
    def is_outdated(self) -> bool | None:
        """Whether the agent's own differs from its source; None where there are not both."""
        if self.own is None or self.own is self.source:
            return None
        return self.own.digest != self.source.digest


class Chosen(msgspec.Struct, frozen=True):
    """A skill as a turn knows it."""

    id: str
    name: str
    description: str


def _of_its_name(there: Sequence[Skill], made: Skill) -> Skill | None:
    return next((one for one in there if one.name == made.name), None)


class Skills:
    """Skills of every account. What is not visible to the caller raises
    NotFound("skill.not_found"), what is and may not be changed Forbidden("skill.forbidden")."""

    def __init__(
        self,
        database: Database,
        store: SkillStore,
        files: SkillFiles,
        log: EventLog,
        agents: Agents,
        outbound: Outbound,
        quota: Quota,
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._log = log
        self._agents = agents
        self._outbound = outbound
        self._quota = quota

    # --- reading --------------------------------------------------------------------------

    async def visible(
        self, caller: Caller, agent_id: str = "", dimension: Dimension | Literal["all"] = "all"
    ) -> list[tuple[Skill, str]]:
        """Skills that the caller may see, each with its agent's name or "", oldest first. Of
        agents' skills only those of `agent_id` where one is given. Raises
        NotFound("agent.not_found")."""
        if agent_id:
            await self._agents.get(caller, agent_id)
        found = await self._visible(caller)
        names = {}
        if any(skill.agent_id for skill in found):
            names = {agent.id: agent.name for agent in await self._agents.visible(caller)}
        return [
            (skill, names.get(skill.agent_id or "", ""))
            for skill in found
            if dimension in ("all", skill.dimension)
            and (not agent_id or skill.agent_id in (None, agent_id))
        ]

    async def available(self, caller: Caller, agent_id: str) -> list[Available]:
        """What an agent can use, by name. Whom the agent is granted to sees of the owner's skills
        those that the agent names. Raises NotFound("agent.not_found")."""
        agent = await self._agents.get(caller, agent_id)
        everything = caller.is_admin or caller.user_id == agent.owner_id
        named = set(agent.skills or ())
        by_name: dict[str, dict[Dimension, Skill]] = {}
        for skill in await self._of(agent):
            if skill.dimension != "user" or everything or skill.name in named:
                by_name.setdefault(skill.name, {})[skill.dimension] = skill
        found = []
        for name in sorted(by_name):
            own = by_name[name].get("agent")
            source = by_name[name].get("user") or by_name[name].get("system") or own
            assert source is not None
            found.append(Available(source, own))
        return found

    async def content(self, caller: Caller, name: str) -> str:
        """The SKILL.md of a skill."""
        return (await self._find(caller, name)).content

    # --- changing -------------------------------------------------------------------------

    async def add(self, caller: Caller, file: BinaryIO, target: Target) -> Skill:
        """Keep the skill in a ZIP archive, in place of the one of its name.

        SKILL.md stands at the top, or in the one folder there; all of the archive is taken or
        nothing. Raises Unusable: skill.archive, skill.manifest, skill.manifest_missing,
        skill.target, skill.too_many; NotFound("agent.not_found"); Forbidden:
        skill.system_forbidden, agent.forbidden; Conflict("skill.busy").
        """
        place, owner, agent_id = await self._place(caller, target)
        bundle, now = uuid7(), time.time()
        try:
            text, kept, digest = await self.written(bundle, lambda: self._take(bundle, file))
        except ArchiveRefused as refusal:
            raise Unusable("skill.archive", reason=str(refusal)) from None
        said = manifest_of(text)
        return await self.put(
            caller,
            Skill(
                id=bundle,
                owner_id=owner,
                agent_id=agent_id,
                place=place,
                name=said.name,
                description=said.description,
                content=text,
                files=kept,
                digest=digest,
                bundle=bundle,
                created_at=now,
                updated_at=now,
            ),
        )

    async def add_from(self, caller: Caller, url: str, target: Target) -> Skill:
        """As `add`, of an archive at an address. Raises also Unusable: skill.address_refused,
        skill.import_failed."""
        await self._place(caller, target)
        try:
            answer = await self._outbound.fetch(
                PURPOSE, url.strip(), max_bytes=IMPORT_MAX, timeout=IMPORT_S
            )
        except OutboundRefused:
            raise Unusable("skill.address_refused") from None
        except OutboundError as error:
            raise Unusable("skill.import_failed", reason=str(error)) from None
        if answer.status != 200:
            raise Unusable("skill.import_failed", reason=f"HTTP {answer.status}")
        return await self.add(caller, io.BytesIO(answer.body), target)

    async def rewrite(self, caller: Caller, name: str, content: str) -> None:
        """Write a skill's SKILL.md anew; its name stays. Raises Unusable: skill.manifest,
        skill.renamed."""
        skill = await self._writable(caller, name)
        content = content.removeprefix("\ufeff")
        said = manifest_of(content)
        if said.name != skill.name:
            raise Unusable("skill.renamed", name=skill.name)
        digest = digest_of(content, skill.digest.partition("-")[2])

        def unit() -> Unit[None]:
            yield from self._store.rewrite(
                skill.id,
                description=said.description,
                content=content,
                digest=digest,
                now=time.time(),
            )
            told = deed("skill.rewritten", caller, skill_id=skill.id, name=skill.name)
            yield from self._log.append(f"user:{skill.owner_id or caller.user_id}", [told])

        try:
            await self._database.write(unit)
        except NoSuchRow:
            raise NotFound("skill.not_found") from None

    async def delete(self, caller: Caller, name: str, agent_id: str = "") -> None:
        """Remove a skill and its files; the agent's where one is given."""
        await self.remove(caller, await self._writable(caller, name, agent_id))

    async def remove(self, caller: Caller, skill: Skill) -> None:
        """Remove a skill that the caller may change, with what accounts wanted of it."""

        def unit() -> Unit[None]:
            yield from self._store.delete(skill.id)
            told = deed("skill.deleted", caller, skill_id=skill.id, name=skill.name)
            yield from self._log.append(f"user:{skill.owner_id or caller.user_id}", [told])

        try:
            await self._database.write(unit)
        except NoSuchRow:
            raise NotFound("skill.not_found") from None
        await self.erase([skill.bundle])

    async def erase_all(self, owner_id: str) -> None:
        """Remove every skill of an account that is about to go, and those of its agents; what it
        added to the system stays there."""
        await self._database.write(partial(self._store.disown, owner_id))
        for skill in await self._store.list_all():
            if skill.owner_id == owner_id:
                await self._database.write(partial(self._store.delete, skill.id))
                await self.erase([skill.bundle])

    async def purge(self) -> None:
        """Erase files that belong to no skill: those of agents and accounts that are gone, and
        what a process that was killed left."""
        known = await self._store.bundles()
        await self.erase(await asyncio.to_thread(self._files.strays, known, STRAY_S))

    # --- in a turn ------------------------------------------------------------------------

    async def usable(
        self, caller: Caller, agent: Agent | None, asked_for: Sequence[str] | None
    ) -> tuple[list[Chosen], list[str]]:
        """The skills that a turn has, and the names that it skips.

        An agent lends its owner's skills that it names to whoever may use it. A request may name
        those, the caller's own and the system's, as far as administrators have them enabled.
        """
        configured = list(agent.skills or ()) if agent else []
        wanted = list(dict.fromkeys(asked_for or configured))
        if not wanted:
            return [], []
        ranked = [of_user(caller.user_id), SYSTEM]
        lent = list(ranked)
        if agent is not None:
            ranked = [of_agent(agent.id), *ranked]
            lent = [of_agent(agent.id), of_user(agent.owner_id), *lent]
        rows = await self._store.list_in(list(dict.fromkeys(lent)))
        held = {(skill.place, skill.name): skill for skill in rows if skill.enabled}
        chosen, skipped = [], []
        for name in wanted:
            places = lent if name in configured else ranked
            skill = next((held[place, name] for place in places if (place, name) in held), None)
            if skill is None:
                skipped.append(name)
            else:
                chosen.append(Chosen(skill.id, skill.name, skill.description))
        return chosen, skipped

    async def read(self, skill_id: str, path: str = FILE) -> str:
        """A file of a skill as text, at most 256 KiB of it. Raises NotFound: skill.not_found,
        skill.no_file."""
        skill = await self._store.get(skill_id)
        if skill is None:
            raise NotFound("skill.not_found")
        if path == FILE:
            return skill.content
        for number, kept in enumerate(skill.files):
            if kept == path:
                try:
                    content = await asyncio.to_thread(
                        self._files.read, skill.bundle, number, READ_MAX
                    )
                except FileNotFoundError:
                    break
                return content.decode("utf-8", "replace")
        raise NotFound("skill.no_file", paths=", ".join(list(skill.files)[:50]))

    # --- parts ----------------------------------------------------------------------------

    async def _visible(self, caller: Caller) -> Sequence[Skill]:
        if caller.is_admin:
            return await self._store.list_all()
        return await self._store.list_visible(caller.user_id)

    async def _of(self, agent: Agent) -> Sequence[Skill]:
        return await self._store.list_in([SYSTEM, of_user(agent.owner_id), of_agent(agent.id)])

    async def _place(self, caller: Caller, target: Target) -> tuple[str, str, str | None]:
        """Place, owner and agent of a new skill."""
        for_agent = target.is_agent or bool(target.agent_id)
        if (target.is_system and for_agent) or (for_agent and not target.agent_id):
            raise Unusable("skill.target")
        if target.is_system:
            if not caller.is_admin:
                raise Forbidden("skill.system_forbidden")
            return SYSTEM, caller.user_id, None
        if not for_agent:
            return of_user(caller.user_id), caller.user_id, None
        agent = await self._agents.get(caller, target.agent_id)
        if agent.owner_id != caller.user_id and not caller.is_admin:
            raise Forbidden("agent.forbidden")
        return of_agent(agent.id), agent.owner_id, agent.id

    def _take(self, bundle: str, file: BinaryIO) -> tuple[str, dict[str, int], str]:
        """SKILL.md, the files beside it, which are written, and the digest of all. Blocks."""
        archive = Archive(file)
        top, entries = _skill_in(archive.entries)
        manifest = next(entry for entry in entries if entry.path == top + FILE)
        if manifest.size > CONTENT_MAX:
            raise Unusable("skill.manifest", reason=f"it is longer than {CONTENT_MAX} bytes")
        text = decoded(b"".join(archive.chunks(manifest)))
        manifest_of(text)
        beside = [entry for entry in entries if entry is not manifest]
        told = hashlib.sha256()

        def copied(entry: Entry) -> Iterator[bytes]:
            told.update(f"\0{entry.path}\0{entry.size}\0".encode())
            for chunk in archive.chunks(entry):
                told.update(chunk)
                yield chunk

        self._files.write(bundle, (copied(entry) for entry in beside))
        kept = {entry.path.removeprefix(top): entry.size for entry in beside}
        return text, kept, digest_of(text, told.hexdigest()[:31])

    async def written(self, bundle: str, work: Callable[[], T]) -> T:
        """What `work` gives, which writes a bundle, in a thread; nothing stays of one that nobody
        waits for any more."""
        writing = asyncio.create_task(asyncio.to_thread(work))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            await self.erase([bundle])
            raise

    async def put(
        self,
        caller: Caller,
        skill: Skill,
        before: Callable[[Sequence[Skill], Skill], Skill | None] = _of_its_name,
    ) -> Skill:
        """Keep a skill whose files are written already; where that fails they are removed. The one
        that `before` finds among those of its place becomes it: id, time of making and `enabled`
        stay.

        Raises what `before` raises, Unusable("skill.too_many"), Conflict("skill.busy"),
        NotFound("agent.not_found"), TooLarge("storage.quota").
        """

        owner_id = skill.owner_id or caller.user_id

        def unit() -> Unit[tuple[Skill, str]]:
            there = yield from self._store.lock_in(skill.place)
            held = before(there, skill)
            kept = skill
            if held is None:
                if len(there) >= SKILLS_MAX:
                    raise Unusable("skill.too_many", most=SKILLS_MAX)
                yield from self._store.insert(skill)
            else:
                kept = msgspec.structs.replace(
                    skill,
                    id=held.id,
                    created_at=held.created_at,
                    enabled=held.enabled,
                    last_sync_at=held.last_sync_at,
                )
                yield from self._store.replace(kept)
            if skill.place != SYSTEM:
                yield from self._quota.hold(owner_id)
            told = deed(
                "skill.added", caller, skill_id=kept.id, name=kept.name, dimension=kept.dimension
            )
            yield from self._log.append(f"user:{owner_id}", [told])
            return kept, held.bundle if held else ""

        try:
            kept, replaced = await self._retried(unit)
        except BaseException as error:
            await self.erase([skill.bundle])
            if isinstance(error, Duplicate):
                raise Conflict("skill.busy") from None
            if isinstance(error, Orphan):
                raise NotFound("agent.not_found") from None
            raise
        await self.erase([replaced] if replaced else [])
        return kept

    async def _retried(self, unit: Callable[[], Unit[tuple[Skill, str]]]) -> tuple[Skill, str]:
        """Again where another upload of the same name came between."""
        try:
            return await self._database.write(unit)
        except Duplicate:
            return await self._database.write(unit)

    async def erase(self, bundles: Sequence[str]) -> None:
        """Remove files; what cannot be removed now is left to `purge`."""
        for bundle in bundles:
            try:
                await asyncio.to_thread(self._files.erase, bundle)
            except OSError as error:
                logger.warning("files of skill %s are left: %s", bundle, error)

    async def _find(self, caller: Caller, name: str, agent_id: str = "") -> Skill:
        """The agent's skill of that name where an agent is given; else the caller's own, the
        system's, or that of the agent or account that has it alone."""
        found = [skill for skill in await self._visible(caller) if skill.name == name]
        if agent_id:
            await self._agents.get(caller, agent_id)
            found = [skill for skill in found if skill.agent_id == agent_id]
        for place in (of_user(caller.user_id), SYSTEM):
            for skill in found:
                if skill.place == place:
                    return skill
        if not found:
            raise NotFound("skill.not_found")
        if len(found) > 1:
            raise Conflict("skill.ambiguous", name=name[:64])
        return found[0]

    async def _writable(self, caller: Caller, name: str, agent_id: str = "") -> Skill:
        skill = await self._find(caller, name, agent_id)
        if not caller.is_admin and (skill.place == SYSTEM or skill.owner_id != caller.user_id):
            raise Forbidden("skill.forbidden")
        return skill


def _skill_in(entries: Sequence[Entry]) -> tuple[str, list[Entry]]:
    """The folder in which the skill lies ("" or one that ends with /), and its files. Raises
    Unusable("skill.manifest_missing")."""
    files = [entry for entry in entries if entry.path.split("/")[0] not in _LEFT_OUT]
    if any(entry.path == FILE for entry in files):
        return "", files
    tops = {entry.path.partition("/")[0] for entry in files}
    if len(tops) == 1:
        top = f"{tops.pop()}/"
        if any(entry.path == top + FILE for entry in files):
            return top, files
    raise Unusable("skill.manifest_missing")


def digest_of(text: str, files: str) -> str:
    """Of SKILL.md and of the files beside it, 32 and 31 hexadecimal digits."""
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}-{files}"
