"""Uploaded files: kept for their owner, read by whoever holds their public address.

The address holds 128 random bits; nothing else says that it exists (design: `/oss/<bits>/<name>`).
"""

import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import quote, unquote

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import NotFound
from domain.file_names import safe_name
from domain.ids import uuid7
from domain.own_addresses import own_path
from storage.database import Database, Unit
from storage.events import EventLog
from storage.files import File, FileStore
from storage.objects import NoSuchObject, ObjectStore

UNTOLD = "application/octet-stream"
ERASED_TOGETHER = 100
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
)


class Reading(msgspec.Struct, frozen=True):
    """A file being read."""

    file: File
    chunks: AsyncIterator[bytes]

    @property
    def is_image(self) -> bool:
        """Whether it is an image of a kind that holds no script."""
        return self.file.media_type != UNTOLD


def image_type(beginning: bytes) -> str | None:
    """The media type of an image by its first bytes (WHATWG MIME Sniffing §6.1), of those that
    browsers show and models see. What an uploader says of a file is not asked."""
    for offset, signature, media_type in _SIGNATURES:
        if beginning[offset : offset + len(signature)] == signature:
            if media_type == "image/webp" and beginning[:4] != b"RIFF":
                continue
            return media_type
    return None


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
    ) -> None:
        self._database = database
        self._store = store
        self._log = log
        self._objects = objects
        self._base_url = base_url.rstrip("/")
        self._clock = clock

    async def publish(
        self, caller: Caller, filename: str, folder: str, size: int, chunks: AsyncIterator[bytes]
    ) -> str:
        """Keep a file and return its public address. Raises StorageError, with nothing kept."""
        beginning = b""
        async for chunk in chunks:
            beginning = chunk
            break
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

        async def content() -> AsyncIterator[bytes]:
            yield beginning
            async for chunk in chunks:
                yield chunk

        def unit() -> Unit[None]:
            yield from self._store.create(file)
            made = deed("file.published", caller, file_id=file.id, name=file.name, size=size)
            yield from self._log.append(f"user:{caller.user_id}", [made])

        objects = self._objects()
        await objects.put(file.key, content(), media_type=file.media_type)
        try:
            await self._database.write(unit)
        except BaseException:
            await objects.delete([file.key])
            raise
        return f"{self._base_url}/oss/{file.link}/{quote(file.name)}"

    async def read_published(self, link: str, name: str) -> Reading:
        """The file at a public address. Raises NotFound("file.not_found")."""
        file = await self._store.get_linked(link)
        if file is None or file.name != name:
            raise NotFound("file.not_found")
        try:
            opened = await self._objects().open(file.key)
        except NoSuchObject:
            raise NotFound("file.not_found") from None
        return Reading(file, opened.chunks)

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
            await self._objects().delete([file.key for file in found])
            for file in found:
                await self._database.write(partial(self._store.delete, owner_id, file.id))
