"""Files by opaque keys: a directory by default, an S3 bucket where one is configured (obstore).

A key is made of ids by the caller, never of a name that a user chose. A put is all or nothing:
readers see the old object, the new one, or none. What was put into the directory is on the disk
when `put` returns.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from storage.database import StorageError, StorageFull, StorageUnavailable

CHUNK = 256 * 1024
DIRECTORY = "objects"
"""The folder of the data directory that stands for a bucket."""
PARTIAL = re.compile(r".+#\d+")
"""The name in the directory of an object that is being put; no key is like it."""
PRESIGNED_MAX_S = 3600
"""A presigned URL lives an hour at most."""

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,7}")
_OUT_OF_SPACE = re.compile(r"os error (?:27|28|122)\b|InsufficientStorage|507 ")
"""EFBIG, ENOSPC, EDQUOT, and HTTP 507."""
_IN_THE_WAY = re.compile(r"os error (?:20|21)\b")
"""ENOTDIR, EISDIR: where objects are files, a part of a key cannot be another object's key."""
_NO_BUCKET = re.compile(r"NoSuchBucket|404 Not Found")

Content = bytes | Path | AsyncIterator[bytes]


class NoSuchObject(StorageError):
    """Nothing is stored under the key."""


class NoSuchBucket(StorageError):
    """There is no bucket of this name."""


class ObjectExists(StorageError):
    """Something is stored under the key, and `create_only` was asked for; or, where objects are
    files, under a part of it, or with it as a part."""


class RangeUnsatisfiable(StorageError):
    """The range begins at or after the end of the object."""


class ObjectInfo(msgspec.Struct, frozen=True, gc=False):
    """`size` in bytes, `modified` in UTC seconds since the epoch; `etag` changes with content."""

    key: str
    size: int
    modified: float
    etag: str


class Place(msgspec.Struct, frozen=True):
    """Where objects lie: `endpoint` is an address without credentials, or "local" for a directory;
    `secure` says whether it is reached by TLS, or by no network at all."""

    endpoint: str
    secure: bool
    bucket: str


class Written(msgspec.Struct, frozen=True):
    """What the store says of an object that was put; `version` is None where it keeps none."""

    etag: str
    version: str | None


class Opened(msgspec.Struct, frozen=True):
    """An object being read: bytes `start` to `end` (exclusive), in `chunks`."""

    info: ObjectInfo
    start: int
    end: int
    chunks: AsyncIterator[bytes]


class ObjectStore:
    """One place for files. Every method raises ValueError for a key that is not one, and
    StorageUnavailable when the store does not answer."""

    def __init__(self, store: Any, directory: Path | None, place: Place) -> None:
        self._store = store
        self._directory = directory
        self.place = place

    async def exists(self) -> bool:
        """Whether the bucket, or the directory, is there."""
        import obstore

        if self._directory is not None:
            return await asyncio.to_thread(self._directory.is_dir)
        try:
            with _translated("the bucket"):
                async for _ in obstore.list(self._store, chunk_size=1):
                    break
        except StorageUnavailable as error:
            if _NO_BUCKET.search(str(error.__cause__)):
                return False
            raise
        except NoSuchObject:
            return False
        return True

    async def put(
        self, key: str, content: Content, *, media_type: str = "", create_only: bool = False
    ) -> Written:
        """Store content under a key. An iterator is streamed, and what it raises comes out with
        nothing stored. `create_only` reads it into memory first. `media_type` is kept by S3 alone,
        for presigned downloads. Raises ObjectExists, StorageFull."""
        import obstore

        if create_only and isinstance(content, AsyncIterator):
            content = b"".join([chunk async for chunk in content])
        options: dict[str, Any] = {"mode": "create"} if create_only else {}
        if media_type and self._directory is None:
            options["attributes"] = {"Content-Type": media_type}
        with _translated(key):
            put = await obstore.put_async(self._store, _checked(key), content, **options)
        if self._directory is not None:
            await asyncio.to_thread(_flush, self._directory, key)
        return Written(put["e_tag"] or "", put["version"])

    async def get(self, key: str) -> bytes:
        """A whole object, in memory. Raises NoSuchObject."""
        import obstore

        with _translated(key):
            found = await obstore.get_async(self._store, _checked(key))
            return bytes(await found.bytes_async())

    async def range(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) as far as there are any. Raises NoSuchObject,
        RangeUnsatisfiable."""
        opened = await self.open(key, start=start, end=end)
        return b"".join([chunk async for chunk in opened.chunks])

    async def open(self, key: str, *, start: int = 0, end: int | None = None) -> Opened:
        """An object to be streamed in chunks of about CHUNK bytes. Raises NoSuchObject,
        RangeUnsatisfiable; the chunks raise StorageUnavailable when the store breaks off."""
        import obstore

        options: Any = {}
        if start or end is not None:
            info = await self.stat(key)
            if start >= info.size or (end is not None and end <= start):
                raise RangeUnsatisfiable(key)
            end = info.size if end is None else min(end, info.size)
            options = {"range": (start, end), "if_match": info.etag}
        with _translated(key):
            found = await obstore.get_async(self._store, _checked(key), options=options)
        start, end = found.range
        return Opened(_info(found.meta), start, end, _chunks(key, found.stream(CHUNK)))

    async def stat(self, key: str) -> ObjectInfo:
        """What is known of an object without reading it. Raises NoSuchObject."""
        import obstore

        with _translated(key):
            return _info(await obstore.head_async(self._store, _checked(key)))

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """The objects whose key begins with the segments of `prefix`, in no order."""
        import obstore

        with _translated(prefix):
            found = obstore.list(self._store, prefix=_checked(prefix) if prefix else None)
            async for batch in found:
                for meta in batch:
                    yield _info(meta)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. Deleting what is not there is no error."""
        import obstore

        for key in keys:
            with _translated(key), suppress(FileNotFoundError):
                await obstore.delete_async(self._store, _checked(key))

    async def presign(self, method: Literal["GET", "PUT"], key: str, expires_s: int) -> str | None:
        """A URL that lets its bearer read or write one object for `expires_s` seconds; None where
        the store is a directory, which only this server can serve. Raises ValueError for more
        than PRESIGNED_MAX_S."""
        import obstore

        if not 0 < expires_s <= PRESIGNED_MAX_S:
            raise ValueError(f"a presigned URL lives 1 to {PRESIGNED_MAX_S} seconds")
        if self._directory is not None:
            _checked(key)
            return None
        with _translated(key):
            return await obstore.sign_async(
                self._store, method, _checked(key), timedelta(seconds=expires_s)
            )


def open_objects(url: str, data: Path, bucket: str = "") -> ObjectStore:
    """The object store at `url`, or the directory `objects` of the data directory when empty;
    `bucket` takes the place of the one that is named there. Raises NoSuchBucket where a directory
    is asked for another.

    `s3://bucket/prefix?endpoint=http://host:9000&region=eu-west-1`; the AWS_* variables give
    credentials, and whatever the URL leaves out. Raises ValueError for another kind of URL.
    """
    from obstore.store import LocalStore, S3Store

    if not url:
        if bucket not in ("", DIRECTORY):
            raise NoSuchBucket(bucket)
        directory = data / DIRECTORY
        local = LocalStore(prefix=directory, mkdir=True)
        return ObjectStore(local, directory, Place("local", True, DIRECTORY))
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError("OBJECT_STORE_URL must be s3://bucket/prefix or empty")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    endpoint = options.pop("endpoint", "") or os.environ.get("AWS_ENDPOINT_URL", "")
    config: Any = {"endpoint": endpoint} if endpoint else {}
    if region := options.pop("region", ""):
        config["region"] = region
    if options:
        raise ValueError(f"OBJECT_STORE_URL: unknown {', '.join(sorted(options))}")
    place = Place(
        urlsplit(endpoint).netloc.rpartition("@")[2] or "s3.amazonaws.com",
        not endpoint.startswith("http://"),
        bucket or parts.netloc,
    )
    store = S3Store(
        place.bucket,
        prefix=parts.path.strip("/") or None,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": "5 seconds",
            "timeout": "10 minutes",
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )
    return ObjectStore(store, None, place)


def sweep(data: Path, before: float) -> None:
    """Remove from the directory what puts began that their process did not live to end: what was
    last written before then, in UTC seconds since the epoch. Raises OSError."""
    for folder, _, names in os.walk(data / DIRECTORY):
        for path in (Path(folder, name) for name in names if PARTIAL.fullmatch(name)):
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < before:
                    path.unlink()


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError("not an object key")
    return key


@contextmanager
def _translated(key: str) -> Iterator[None]:
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        yield
    except FileNotFoundError as error:
        raise NoSuchObject(key) from error
    except AlreadyExistsError as error:
        raise ObjectExists(key) from error
    except BaseError as error:
        if _IN_THE_WAY.search(str(error)):
            raise ObjectExists(key) from error
        kind = StorageFull if _OUT_OF_SPACE.search(str(error)) else StorageUnavailable
        raise kind(f"the object store failed for {key}") from error


def _info(meta: Any) -> ObjectInfo:
    modified = meta["last_modified"].timestamp()
    return ObjectInfo(meta["path"], meta["size"], modified, meta["e_tag"] or "")


async def _chunks(key: str, stream: Any) -> AsyncIterator[bytes]:
    with _translated(key):
        async for chunk in stream:
            yield bytes(chunk)


def _flush(directory: Path, key: str) -> None:
    """Have the kernel write a new file, and the entries that lead to it."""
    path = directory / key
    while True:
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # replaced or deleted already
            return
        try:
            os.fsync(file)
        finally:
            os.close(file)
        if path == directory:
            return
        path = path.parent
