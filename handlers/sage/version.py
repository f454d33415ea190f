"""sage: versions of the desktop application (document, "system/version")."""

from typing import Any

from msgspec import UNSET, UnsetType

from domain.caller import Caller
from domain.quartet import Quartet
from domain.versions import updates
from generated.sage.models import Update, UpdatePlatform, VersionArtifact, VersionCreate
from generated.sage.models import Version as Shown
from handlers.times import iso
from storage.versions import Artifact, Version


async def check(quartet: Quartet) -> Update:
    latest = await quartet.versions.updating()
    return Update(
        version=latest.version,
        notes=latest.release_notes,
        pub_date=iso(latest.published_at),
        platforms={
            platform: UpdatePlatform(
                url=each.updater_url or "", signature=each.updater_signature or ""
            )
            for platform, each in updates(latest).items()
        },
    )


async def get_latest(quartet: Quartet) -> Shown | None:
    latest = await quartet.versions.latest()
    return None if latest is None else shown(latest)


async def list_(quartet: Quartet) -> list[Shown]:
    return [shown(version) for version in await quartet.versions.list()]


async def create(quartet: Quartet, caller: Caller, body: VersionCreate) -> Shown:
    artifacts = [artifact(each) for each in body.artifacts or ()]
    made = await quartet.versions.create(caller, body.version, body.release_notes or "", artifacts)
    return shown(made)


async def import_github(quartet: Quartet, caller: Caller) -> Shown:
    return shown(await quartet.versions.import_github(caller))


async def delete(quartet: Quartet, caller: Caller, version_str: str) -> dict[str, Any]:
    await quartet.versions.delete(caller, version_str)
    return {"success": True}


def artifact(given: VersionArtifact) -> Artifact:
    """An artifact of a request; an empty text is none."""

    def stated(value: str | UnsetType | None) -> str | None:
        return None if value is UNSET else value or None

    return Artifact(
        platform=given.platform,
        installer_url=stated(given.installer_url),
        updater_url=stated(given.updater_url),
        updater_signature=stated(given.updater_signature),
    )


def shown(version: Version) -> Shown:
    return Shown(
        version=version.version,
        release_notes=version.release_notes,
        pub_date=iso(version.published_at),
        artifacts=[
            VersionArtifact(
                platform=each.platform,
                installer_url=each.installer_url,
                updater_url=each.updater_url,
                updater_signature=each.updater_signature,
            )
            for each in version.artifacts
        ],
    )
