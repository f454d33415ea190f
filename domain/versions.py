"""Versions of the desktop application: what is published, and what an installed one updates to."""

import re
from collections.abc import Callable, Sequence

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, Disabled, NotFound, Unavailable, Unusable
from domain.ids import uuid7
from domain.release_assets import SIGNATURE, by_platform
from gateways.errors import OutboundError
from gateways.github import Release, Releases
from storage.database import Database, Duplicate, NoSuchRow, Unit
from storage.events import EventLog
from storage.versions import Artifact, Version, VersionStore

NAME = re.compile(r"[0-9]+(?:\.[0-9]+){0,3}(?:[-+][0-9A-Za-z.+-]{1,40})?", re.ASCII)
NOTES_MAX = 200_000
URL_MAX = 2048
SIGNATURE_MAX = 4096
_URL = re.compile(r"https?://[!-~]+")


class Versions:
    """Versions by name. A name is kept without its leading `v`: `v1.2.0` and `1.2.0` are one."""

    def __init__(
        self,
        database: Database,
        store: VersionStore,
        log: EventLog,
        releases: Releases,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._store = store
        self._log = log
        self._releases = releases
        self._clock = clock

    async def list(self) -> Sequence[Version]:
        """Every version, the newest publication first."""
        return await self._store.list()

    async def latest(self) -> Version | None:
        """The version that was published last, if there is one."""
        return await self._store.latest()

    async def updating(self) -> Version:
        """The latest version, for an installed application. Raises NotFound("version.none")."""
        found = await self._store.latest()
        if found is None:
            raise NotFound("version.none")
        return found

    async def create(
        self, caller: Caller, version: str, notes: str, artifacts: Sequence[Artifact]
    ) -> Version:
        """Publish a version now. Raises Conflict("version.exists"),
        Unusable("version.platform_twice")."""
        platforms = [each.platform for each in artifacts]
        if len(set(platforms)) < len(platforms):
            raise Unusable("version.platform_twice")
        made = Version(version.removeprefix("v"), notes, list(artifacts), self._clock())

        def unit() -> Unit[None]:
            yield from self._store.create(uuid7(), made)
            yield from self._tell(caller, "version.created", made.version)

        try:
            await self._database.write(unit)
        except Duplicate:
            raise Conflict("version.exists") from None
        return made

    async def import_github(self, caller: Caller) -> Version:
        """Publish the repository's latest release, with the time it was released at. One that is
        here already is brought up to date: signatures are often uploaded after the release.

        Raises Disabled("version.no_repository"), Unavailable("version.github_failed"),
        Unusable("version.github_unusable").
        """
        if not self._releases.repository:
            raise Disabled("version.no_repository")
        try:
            release = await self._releases.latest()
            made = await self._read(release)
        except OutboundError as error:
            raise Unavailable("version.github_failed") from error

        def unit() -> Unit[None]:
            yield from self._store.put(uuid7(), made)
            yield from self._tell(caller, "version.imported", made.version)

        await self._database.write(unit)
        return made

    async def delete(self, caller: Caller, version: str) -> None:
        """Withdraw a version. Raises NotFound("version.not_found")."""
        name = version.removeprefix("v")

        def unit() -> Unit[None]:
            yield from self._store.delete(name)
            yield from self._tell(caller, "version.deleted", name)

        try:
            await self._database.write(unit)
        except NoSuchRow:
            raise NotFound("version.not_found") from None

    def _tell(self, caller: Caller, kind: str, version: str) -> Unit[None]:
        told = deed(kind, caller, version=version)
        yield from self._log.append(f"user:{caller.user_id}", [told])

    async def _read(self, release: Release) -> Version:
        """Raises OutboundError, Unusable when the tag is no version's name."""
        name = release.tag_name.removeprefix("v")
        if not NAME.fullmatch(name):
            raise Unusable("version.github_unusable")
        assets = {each.name: each for each in release.assets}
        artifacts: list[Artifact] = []
        signatures: dict[str, str] = {}
        for platform, files in by_platform(assets).items():
            urls = [_url(assets[one].browser_download_url) if one else None for one in files]
            signature = None
            if files.updater:
                if files.updater not in signatures:
                    text = await self._releases.text(assets[files.updater + SIGNATURE])
                    signatures[files.updater] = text[:SIGNATURE_MAX]
                signature = signatures[files.updater]
            artifacts.append(
                Artifact(
                    platform=platform,
                    installer_url=urls[0],
                    updater_url=urls[1],
                    updater_signature=signature,
                )
            )
        notes = (release.body or "").replace("\0", "")[:NOTES_MAX]
        return Version(name, notes, artifacts, release.published_at.timestamp())


def _url(given: str) -> str:
    if len(given) > URL_MAX or not _URL.fullmatch(given):
        raise Unusable("version.github_unusable")
    return given


def updates(version: Version) -> dict[str, Artifact]:
    """Platform → its artifact, where it has both an update and the signature that proves it."""
    return {
        each.platform: each
        for each in version.artifacts
        if each.updater_url and each.updater_signature
    }
