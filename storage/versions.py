"""Rows of the versions of the desktop application. They belong to the deployment, so there is no
owner."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.schema import versions


class Artifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is offered for one platform, as `darwin-aarch64`; None where there is none."""

    platform: str
    installer_url: str | None = None
    updater_url: str | None = None
    updater_signature: str | None = None


class Version(msgspec.Struct, frozen=True):
    """A version. `published_at` is in UTC seconds since the epoch."""

    version: str
    release_notes: str
    artifacts: list[Artifact]
    published_at: float


def _read(version: str, release_notes: str, artifacts: object, published_at: float) -> Version:
    return Version(version, release_notes, msgspec.convert(artifacts, list[Artifact]), published_at)


_COLUMNS = (
    versions.c.version,
    versions.c.release_notes,
    versions.c.artifacts,
    versions.c.published_at,
)
_NEWEST_FIRST = (versions.c.published_at.desc(), versions.c.id.desc())
_VALUES: dict[str, Any] = {
    "id": bindparam("version_id"),
    **{column.name: bindparam(column.name) for column in _COLUMNS},
}


def _put(dialect: Any) -> Any:
    made = dialect.insert(versions).values(_VALUES)
    return made.on_conflict_do_update(
        index_elements=["version"],
        set_={
            column.name: made.excluded[column.name]
            for column in _COLUMNS
            if column.name != "version"
        },
    )


LIST = Statement(select(*_COLUMNS).order_by(*_NEWEST_FIRST), into=_read)
LATEST = Statement(select(*_COLUMNS).order_by(*_NEWEST_FIRST).limit(1), into=_read)
INSERT = Statement(insert(versions).values(_VALUES))
PUT = Statement({"sqlite": _put(sqlite), "postgresql": _put(postgresql)})
DELETE = Statement(delete(versions).where(versions.c.version == bindparam("name")))


class VersionStore:
    """Versions over a Database, the newest publication first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> Sequence[Version]:
        return await self._database.read(LIST())

    async def latest(self) -> Version | None:
        """The version that was published last."""
        return await self._database.read_one(LATEST())

    def create(self, version_id: str, made: Version) -> Unit[None]:
        """Raises Duplicate("uq_versions_version")."""
        yield INSERT(version_id=version_id, **msgspec.structs.asdict(made))

    def put(self, version_id: str, made: Version) -> Unit[None]:
        """Store a version, over the one of its name if there is one."""
        yield PUT(version_id=version_id, **msgspec.structs.asdict(made))

    def delete(self, version: str) -> Unit[None]:
        """Raises NoSuchRow("version")."""
        if not (yield DELETE(name=version)):
            raise NoSuchRow("version")
