"""Uploaded files: kept for their owner, who alone reads them, or whoever holds the public address
of one that was published.

The address holds 128 random bits; nothing else says that it exists (design: `/oss/<bits>/<name>`).
"""

import mimetypes
import re
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import quote, unquote

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Forbidden, NotFound, PreconditionFailed, Unauthenticated
from domain.file_names import safe_name
from domain.ids import uuid7
from domain.own_addresses import own_path
from domain.quota import Quota
from storage.database import Database, Orphan, Unit
from storage.events import EventLog
from storage.files import File, FileStore
from storage.objects import NoSuchObject, ObjectStore
from storage.workspace_files import BadPath, NoSuchFile, Place, WorkspaceFiles, segments
from storage.workspace_files import Reading as InWorkspace

UNTOLD = "application/octet-stream"
ERASED_TOGETHER = 100
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
)

IMAGES = frozenset(media_type for _, _, media_type in _SIGNATURES)
"""Media types of images that hold no script; a file has one only if its first bytes say so."""
VERSION = 1
"""An uploaded file never changes, so it has this version for as long as it lives."""
SESSIONS = "sessions"
"""Workspaces of sessions stand below this name, where those of agents have the agents' ids."""
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,62}")


class Reading(msgspec.Struct, frozen=True):
    """A file being read."""

    file: File
    chunks: AsyncIterator[bytes]

    @property
    def is_image(self) -> bool:
        """Whether it is an image of a kind that holds no script."""
        return self.file.media_type in IMAGES


def image_type(beginning: bytes) -> str | None:
    """The media type of an image by its first bytes (WHATWG MIME Sniffing §6.1), of those that
    browsers show and models see. What an uploader says of a file is not asked."""
    for offset, signature, media_type in _SIGNATURES:
        if beginning[offset : offset + len(signature)] == signature:
            if media_type == "image/webp" and beginning[:4] != b"RIFF":
                continue
            return media_type
    return None


def told_type(media_type: str, filename: str, beginning: bytes) -> str:
    """The media type of a file that is only ever sent as an attachment: its uploader's word, else
    its name's. An image's is what its first bytes say."""
    told = media_type.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(told) or told == UNTOLD:
        told = mimetypes.guess_type(filename)[0] or UNTOLD
    if told in IMAGES or told == UNTOLD:
        return image_type(beginning) or UNTOLD
    return told


def place_of(file: File) -> Place:
    """The workspace of the session that a file is of."""
    return Place(SESSIONS, file.owner_id, file.session_id or "")


def version_of(file: File) -> int:
    """What `ETag` says of a file. An uploaded one never changes; one of a workspace may."""
    return VERSION if file.session_id is None else int(file.created_at * 1000)


class Files:
    """Files of every account. `objects` gives the object store, opened when it is first needed;
    `base_url` is where browsers reach this server."""

    def __init__(
        self,
        database: Database,
        store: FileStore,
        log: EventLog,
        objects: Callable[[], ObjectStore],
        *,
        base_url: str,
        clock: Callable[[], float],
        quota: Quota,
        workspaces: WorkspaceFiles | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._workspaces = workspaces
        self._log = log
        self._objects = objects
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._quota = quota

    async def publish(
        self, caller: Caller, filename: str, folder: str, size: int, chunks: AsyncIterator[bytes]
    ) -> str:
        """Keep a file and return its public address. Raises StorageError, TooLarge("storage.quota")
        and, where the caller's account is gone, Unauthenticated("auth.expired"), with nothing
        kept."""
        beginning = await anext(chunks, b"")
        file = File(
            id=uuid7(),
            owner_id=caller.user_id,
            link=secrets.token_hex(16),
            folder=folder.rstrip("/"),
            name=safe_name(filename),
            media_type=image_type(beginning) or UNTOLD,
            size=size,
            created_at=self._clock(),
        )
        await self._put(caller, file, "file.published", beginning, chunks)
        return f"{self._base_url}/oss/{file.link}/{quote(file.name)}"

    async def keep(
        self,
        caller: Caller,
        filename: str,
        media_type: str,
        size: int,
        chunks: AsyncIterator[bytes],
    ) -> File:
        """Keep a file that only its owner and administrators read. Raises as `publish`."""
        beginning = await anext(chunks, b"")
        name = safe_name(filename)
        file = File(
            id=uuid7(),
            owner_id=caller.user_id,
            link=None,
            folder="",
            name=name,
            media_type=told_type(media_type, name, beginning),
            size=size,
            created_at=self._clock(),
        )
        await self._put(caller, file, "file.uploaded", beginning, chunks)
        return file

    async def find(self, caller: Caller, file_id: str) -> File:
        """A file of the caller's, or anyone's for an administrator. Raises
        NotFound("file.not_found"), Forbidden("file.forbidden")."""
        file = await self._store.get(file_id)
        if file is None:
            raise NotFound("file.not_found")
        if file.owner_id != caller.user_id and not caller.is_admin:
            raise Forbidden("file.forbidden")
        return file

    async def find_all(self, caller: Caller, file_ids: Sequence[str]) -> list[File]:
        """As `find`, of several and in their order."""
        found = {file.id: file for file in await self._store.get_some(file_ids)}
        for file_id in file_ids:
            if file_id not in found:
                raise NotFound("file.not_found")
            if found[file_id].owner_id != caller.user_id and not caller.is_admin:
                raise Forbidden("file.forbidden")
        return [found[file_id] for file_id in file_ids]

    async def read(self, caller: Caller, file_id: str) -> Reading:
        """As `find`, with the content."""
        return await self._opened(await self.find(caller, file_id))

    async def delete(self, caller: Caller, file_id: str, if_match: int | None = None) -> None:
        """Forget a file, and its public address with it. Raises as `find`, and
        PreconditionFailed("request.precondition")."""
        file = await self.find(caller, file_id)
        if if_match not in (None, version_of(file)):
            raise PreconditionFailed("request.precondition")

        def unit() -> Unit[None]:
            if (yield from self._store.delete(file.owner_id, file.id)):
                gone = deed("file.deleted", caller, file_id=file.id, name=file.name)
                yield from self._log.append(f"user:{file.owner_id}", [gone])

        await self._database.write(unit)
        if file.session_id is None:
            await self._objects().delete([file.key])
        elif self._workspaces is not None:
            with suppress(NoSuchFile, BadPath):
                await self._workspaces.delete(place_of(file), segments(file.path))

    async def _put(
        self,
        caller: Caller,
        file: File,
        event: str,
        beginning: bytes,
        chunks: AsyncIterator[bytes],
    ) -> None:
        async def content() -> AsyncIterator[bytes]:
            yield beginning
            async for chunk in chunks:
                yield chunk

        def unit() -> Unit[None]:
            yield from self._store.create(file)
            yield from self._quota.hold(file.owner_id)
            made = deed(event, caller, file_id=file.id, name=file.name, size=file.size)
            yield from self._log.append(f"user:{caller.user_id}", [made])

        objects = self._objects()
        await objects.put(file.key, content(), media_type=file.media_type)
        try:
            await self._database.write(unit)
        except Orphan:
            await objects.delete([file.key])
            raise Unauthenticated("auth.expired") from None
        except BaseException:
            await objects.delete([file.key])
            raise

    async def _opened(self, file: File) -> Reading:
        if file.session_id is not None:
            return await self._opened_in_session(file)
        try:
            opened = await self._objects().open(file.key)
        except NoSuchObject:
            raise NotFound("file.not_found") from None
        return Reading(file, opened.chunks)

    async def _opened_in_session(self, file: File) -> Reading:
        try:
            if self._workspaces is None:
                raise NoSuchFile
            opened = await self._workspaces.open(place_of(file), segments(file.path))
        except (NoSuchFile, BadPath):
            raise NotFound("file.not_found") from None
        if not isinstance(opened, InWorkspace):
            raise NotFound("file.not_found")
        return Reading(msgspec.structs.replace(file, size=opened.size), opened)

    async def read_published(self, link: str, name: str) -> Reading:
        """The file at a public address. Raises NotFound("file.not_found")."""
        file = await self._store.get_linked(link)
        if file is None or file.name != name:
            raise NotFound("file.not_found")
        return await self._opened(file)

    async def read_image(self, user_id: str, url: str, max_bytes: int) -> tuple[str, bytes] | None:
        """Media type and bytes of a file at a public address of ours, whoever asks; None for any
        other address. Raises NotFound, ValueError for more than `max_bytes`."""
        del user_id  # the address itself is the right to read
        if (found := self.published_at(url)) is None:
            return None
        reading = await self.read_published(*found)
        if reading.file.size > max_bytes:
            raise ValueError(f"more than {max_bytes} bytes")
        return reading.file.media_type, b"".join([chunk async for chunk in reading.chunks])

    def published_at(self, url: str) -> tuple[str, str] | None:
        """Link and name that a public address of this server holds; None for any other address."""
        if (given := own_path(self._base_url, url)) is None:
            return None
        parts = given.path.split("/")
        if len(parts) != 4 or parts[:2] != ["", "oss"]:
            return None
        return parts[2], unquote(parts[3])

    async def erase_all(self, owner_id: str) -> None:
        """Remove every file of an account that is about to go."""
        while found := await self._store.list_own(owner_id, ERASED_TOGETHER):
            stored = [file.key for file in found if file.session_id is None]
            await self._objects().delete(stored)
            for file in found:
                await self._database.write(partial(self._store.delete, owner_id, file.id))
