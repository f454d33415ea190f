"""Rows of files that accounts uploaded. Their bytes lie in the object store under `files/<id>`."""

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from storage.database import Database, Statement, Unit
from storage.schema import files


class File(msgspec.Struct, frozen=True):
    """A row of `files`, in table order. `size` in bytes; `link` is the secret part of the public
    address, if it has one; `created_at` in UTC seconds since the epoch."""

    id: str
    owner_id: str
    link: str | None
    folder: str
    name: str
    media_type: str
    size: int
    created_at: float

    @property
    def key(self) -> str:
        """Where its bytes lie in the object store."""
        return f"files/{self.id}"


INSERT = Statement(insert(files).values({name: bindparam(name) for name in File.__struct_fields__}))
FIND_LINKED = Statement(select(files).where(files.c.link == bindparam("link")), into=File)
LIST_OWN = Statement(
    select(files)
    .where(files.c.owner_id == bindparam("owner"))
    .order_by(files.c.created_at, files.c.id)
    .limit(bindparam("most")),
    into=File,
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

    async def list_own(self, owner: str, most: int) -> list[File]:
        """At most so many of the owner's files, the oldest first."""
        return await self._database.read(LIST_OWN(owner=owner, most=most))

    def create(self, file: File) -> Unit[None]:
        """Raises Orphan when its owner is gone."""
        yield INSERT(**msgspec.structs.asdict(file))

    def delete(self, owner: str, file_id: str) -> Unit[bool]:
        """Forget a file; whether the owner had it."""
        return bool((yield DELETE(file_id=file_id, owner=owner)))
