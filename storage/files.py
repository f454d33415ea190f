"""Rows of files that accounts uploaded. Their bytes lie in the object store under `files/<id>`."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update

from storage.database import Database, Statement, Unit
from storage.schema import files


class File(msgspec.Struct, frozen=True):
    """A row of `files`, in table order. `size` in bytes; `link` is the secret part of the public
    address, if it has one; `created_at` in UTC seconds since the epoch. A file of a session's
    workspace is `session_id`'s; its row is made when it is first listed, and `created_at` is when
    it was last changed."""

    id: str
    owner_id: str
    link: str | None
    folder: str
    name: str
    media_type: str
    size: int
    created_at: float
    session_id: str | None = None

    @property
    def key(self) -> str:
        """Where its bytes lie: in the object store, or in the session's workspace."""
        return f"sessions/{self.session_id}/{self.path}" if self.session_id else f"files/{self.id}"

    @property
    def path(self) -> str:
        """Folder and name."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


INSERT = Statement(insert(files).values({name: bindparam(name) for name in File.__struct_fields__}))
FIND_LINKED = Statement(select(files).where(files.c.link == bindparam("link")), into=File)
FIND = Statement(select(files).where(files.c.id == bindparam("file_id")), into=File)
FIND_SOME = Statement(
    select(files).where(files.c.id.in_(bindparam("file_ids", expanding=True))), into=File
)
LIST_OWN = Statement(
    select(files)
    .where(files.c.owner_id == bindparam("owner"))
    .order_by(files.c.created_at, files.c.id)
    .limit(bindparam("most")),
    into=File,
)
OF_SESSION = Statement(
    select(files).where(files.c.session_id == bindparam("session_id")), into=File
)
CHANGED = Statement(
    update(files)
    .where(files.c.id == bindparam("file_id"))
    .values(size=bindparam("new_size"), created_at=bindparam("at"))
)
DELETE = Statement(
    delete(files).where(files.c.id == bindparam("file_id"), files.c.owner_id == bindparam("owner"))
)


class FileStore:
    """Files over a Database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_linked(self, link: str) -> File | None:
        """Anybody's file whose public address holds `link`."""
        return await self._database.read_one(FIND_LINKED(link=link))

    async def get(self, file_id: str) -> File | None:
        """Anybody's file."""
        return await self._database.read_one(FIND(file_id=file_id))

    async def get_some(self, file_ids: Sequence[str]) -> list[File]:
        """Anybody's files, in no order; what does not exist is left out."""
        return await self._database.read(FIND_SOME(file_ids=list(file_ids))) if file_ids else []

    async def list_own(self, owner: str, most: int) -> list[File]:
        """At most so many of the owner's files, the oldest first."""
        return await self._database.read(LIST_OWN(owner=owner, most=most))

    async def of_session(self, session_id: str) -> list[File]:
        """The files of a session's workspace that were listed, in no order."""
        return await self._database.read(OF_SESSION(session_id=session_id))

    def held_of_session(self, session_id: str) -> Unit[list[File]]:
        """The same as it stands inside this unit."""
        found: list[File] = yield OF_SESSION(session_id=session_id)
        return found

    def changed(self, file_id: str, size: int, at: float) -> Unit[None]:
        """Note what a file of a workspace is now."""
        yield CHANGED(file_id=file_id, new_size=size, at=at)

    def create(self, file: File) -> Unit[None]:
        """Raises Orphan when its owner is gone."""
        yield INSERT(**msgspec.structs.asdict(file))

    def delete(self, owner: str, file_id: str) -> Unit[bool]:
        """Forget a file; whether the owner had it."""
        return bool((yield DELETE(file_id=file_id, owner=owner)))
