"""Skills of the platform: those of the system, as administrators keep them and as accounts want
them in their sessions (document 002, "Skill Ecosystem Module").

They stand in one table with everybody's (domain.skills), and what sage uploads as a system skill is
one of them: instructions alone, for only an installation checks how a skill is run.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, Invalid, NotFound, Unusable
from domain.ids import uuid7
from domain.platform.config import next_version
from domain.platform.tools import Preferred
from domain.skill_entry import Runnable, Unfit, runnable, slug_of
from domain.skill_manifest import FILE, decoded, front_of
from domain.skill_sources import Bundle, Refused, read_github, read_local
from domain.skills import Skills, digest_of
from gateways.github import Trees
from storage.database import Database, NoSuchRow, Orphan, Unit
from storage.events import EventLog
from storage.skill_files import SkillFiles
from storage.skills import SYSTEM, Skill, SkillStore
from storage.stored_settings import StoredSettings
from storage.tool_preferences import ToolPreferences

POLICY = "sandbox.skill_policy"
Mode = Literal["off", "enforce_confirmation"]
Source = Literal["local", "github"]
FETCHES_MAX = 4
"""Sources of one type that are read at the same time."""


class Policy(msgspec.Struct, frozen=True):
    """Whether a person is asked before a skill's command runs."""

    mode: Mode = "off"
    version: int = 1


class PlatformSkills:
    """Skills that a key names, which is an id or a slug, raise NotFound("skill.not_found"), and
    Conflict("skill.ambiguous") where two names have one slug."""

    def __init__(
        self,
        database: Database,
        store: SkillStore,
        files: SkillFiles,
        skills: Skills,
        log: EventLog,
        trees: Trees,
        *,
        roots: Sequence[Path],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._skills = skills
        self._preferences = ToolPreferences(database)
        self._stored = StoredSettings(database)
        self._log = log
        self._trees = trees
        self._roots = roots
        self._clock = clock
        self._installing = asyncio.Lock()
        self._fetching = {
            "local": asyncio.Semaphore(FETCHES_MAX),
            "github": asyncio.Semaphore(FETCHES_MAX),
        }

    async def list(self) -> Sequence[Skill]:
        """Every skill of the system without its content, the oldest first. Nothing is started or
        asked for this."""
        return await self._store.list_briefly(SYSTEM)

    # --- what administrators keep ---------------------------------------------------------

    async def install(
        self,
        caller: Caller,
        source_type: Source,
        source_ref: str,
        *,
        manifest: Mapping[str, Any],
        skill_md: str = "",
    ) -> Skill:
        """Keep a skill from its source, in place of the one of its name, or of its slug and source,
        whose id and `enabled` stay. `skill_md` stands for the bundle's SKILL.md, `manifest` over
        its front matter.

        Raises Invalid for a source that is not taken or a skill that does not fit;
        Conflict("skill.slug_taken"); what Skills.put raises.
        """
        source_ref = source_ref.strip()
        bundle = await self._fetched(source_type, source_ref)
        async with self._installing:
            text, said = _read(bundle, manifest, skill_md)
            beside = {path: bundle[path] for path in bundle if path != FILE}
            place, now = uuid7(), self._clock()
            await self._skills.written(
                place,
                lambda: self._files.write(place, (iter([each]) for each in beside.values())),
            )
            made = Skill(
                id=place,
                owner_id=caller.user_id,
                agent_id=None,
                place=SYSTEM,
                name=said.name,
                description=said.description,
                content=text,
                files={path: len(content) for path, content in beside.items()},
                digest=digest_of(text, _told(beside)),
                bundle=place,
                created_at=now,
                updated_at=now,
                version=said.version,
                source_type=source_type,
                source_ref=source_ref,
                runtime_type=said.runtime_type,
                entry=msgspec.to_builtins(said.entry),
                refs=said.refs,
            )
            return await self._skills.put(caller, made, _of_its_slug)

    async def _fetched(self, source_type: Source, source_ref: str) -> Bundle:
        """What a source holds; a slow one holds up none of another type."""
        try:
            async with self._fetching[source_type]:
                if source_type == "local":
                    return await asyncio.to_thread(read_local, source_ref, self._roots)
                return await read_github(source_ref, self._trees)
        except Refused as refusal:
            raise Invalid(["source_ref"], rule="source", said=str(refusal)) from None

    async def set_enabled(self, caller: Caller, key: str, *, enabled: bool) -> None:
        skill = await self.find(key)

        def unit() -> Unit[None]:
            yield from self._store.enable(skill.id, enabled=enabled, now=self._clock())
            told = deed("skill.enabled", caller, skill_id=skill.id, enabled=enabled)
            yield from self._log.append(f"user:{caller.user_id}", [told])

        try:
            await self._database.write(unit)
        except NoSuchRow:
            raise NotFound("skill.not_found") from None

    async def delete(self, caller: Caller, key: str) -> None:
        """Remove a skill, its files, and what accounts wanted of it."""
        await self._skills.remove(caller, await self.find(key))

    async def policy(self) -> Policy:
        return msgspec.convert(await self._stored.find(POLICY, {}), Policy)

    async def set_policy(self, caller: Caller, mode: Mode, if_match: int | None = None) -> Policy:
        """Raises PreconditionFailed("request.precondition")."""

        def unit() -> Unit[Policy]:
            found = msgspec.convert((yield from self._stored.lock(POLICY, {})), Policy)
            made = Policy(mode, next_version(found.version, if_match))
            yield from self._stored.put(POLICY, msgspec.structs.asdict(made), self._clock())
            told = deed("platform.settings_changed", caller, name=POLICY, mode=mode)
            yield from self._log.append(f"user:{caller.user_id}", [told])
            return made

        return await self._database.write(unit)

    # --- what accounts want ---------------------------------------------------------------

    async def preferred(self, caller: Caller) -> Sequence[Preferred]:
        """Every skill, and whether the caller wants it."""
        wanted = await self._preferences.of(caller.user_id, "skill")
        return [
            Preferred(
                skill.id, skill.name, skill.description, skill.enabled, wanted.get(skill.id, True)
            )
            for skill in await self.list()
        ]

    async def prefer(self, caller: Caller, key: str, *, enabled: bool) -> None:
        """Switch a skill on or off for the caller's sessions alone."""
        skill = await self.find(key)

        def unit() -> Unit[None]:
            if (yield from self._store.lock(skill.id)) is None:
                raise NotFound("skill.not_found")
            yield from self._preferences.put(caller.user_id, "skill", skill.id, enabled=enabled)
            told = deed(
                "tool.preferred", caller, toolbox="skill", tool_id=skill.id, enabled=enabled
            )
            yield from self._log.append(f"user:{caller.user_id}", [told])

        try:
            await self._database.write(unit)
        except Orphan:
            raise NotFound("user.not_found") from None

    async def offered(self, user_id: str) -> Sequence[Skill]:
        """Skills that an account's sessions have: enabled, and not switched off by the account."""
        wanted = await self._preferences.of(user_id, "skill")
        return [
            skill for skill in await self.list() if skill.enabled and wanted.get(skill.id, True)
        ]

    async def find(self, key: str) -> Skill:
        there = await self.list()
        found = [skill for skill in there if skill.id == key] or [
            skill for skill in there if slug_of(skill.name) == key
        ]
        if not found:
            raise NotFound("skill.not_found")
        if len(found) > 1:
            raise Conflict("skill.ambiguous", name=key[:64])
        return found[0]


def _of_its_slug(there: Sequence[Skill], made: Skill) -> Skill | None:
    """The skill that an installation replaces: of its name, else of its slug and source. Raises
    Conflict("skill.slug_taken")."""
    slug, source = slug_of(made.name), (made.source_type, made.source_ref)
    rivals = [one for one in there if slug_of(one.name) == slug]
    for one in rivals:
        if one.name == made.name:
            return one
    for one in rivals:
        if (one.source_type, one.source_ref) == source:
            return one
    if rivals:
        raise Conflict("skill.slug_taken", slug=slug, name=rivals[0].name)
    return None


def _read(bundle: Bundle, manifest: Mapping[str, Any], skill_md: str) -> tuple[str, Runnable]:
    """SKILL.md, and what it says with the manifest over it. Raises Invalid."""
    place = "skill_md" if skill_md else "source_ref"
    if not skill_md and FILE not in bundle:
        raise Invalid([place], rule="manifest", said=f"there is no {FILE}")
    try:
        text = skill_md.removeprefix("\ufeff") or decoded(bundle[FILE])
        front = front_of(text)
    except Unusable as refusal:
        why = f"{FILE} cannot be used: {refusal.details['reason']}"
        raise Invalid([place], rule="manifest", said=why) from None
    given = {key: value for key, value in manifest.items() if value is not None}
    try:
        said = runnable({**front, **given})
    except Unfit as unfit:
        loc = ["manifest", unfit.key] if unfit.key in given else [place]
        raise Invalid(loc, rule="manifest", said=str(unfit)) from None
    if missing := [path for path in said.refs if path not in bundle]:
        loc = ["manifest", "refs"] if "refs" in given else [place]
        raise Invalid(loc, rule="manifest", said=f"refs names {missing[0]!r}, which is not there")
    return text, said


def _told(files: Bundle) -> str:
    """The digest of files beside SKILL.md, 31 hexadecimal digits."""
    told = hashlib.sha256()
    for path, content in files.items():
        told.update(f"\0{path}\0{len(content)}\0".encode() + content)
    return told.hexdigest()[:31]
