"""The object store as operators try it out: a ping, a smoke test, an upload with a URL to read it.

Where objects lie in a directory nobody else serves them, so the URL is this server's own: signed
for one object, for reading, until a time at most an hour away (security 37).
"""

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec

from domain.caller import Caller
from domain.errors import Conflict, Forbidden, NotFound, Unavailable
from domain.file_names import object_name, safe_name
from domain.files import told_type
from domain.ids import uuid7
from storage.database import StorageUnavailable
from storage.objects import (
    NoSuchBucket,
    NoSuchObject,
    ObjectExists,
    ObjectStore,
    Opened,
    Place,
)

SMOKE_BYTES = 1024
UPLOADS = "uploads"
"""What the keys of trial uploads begin with unless told otherwise."""
_OURS = frozenset({"files", "knowledge", "smoke"})
"""What the keys of the server's own objects begin with."""

OpenObjects = Callable[[str], ObjectStore]
"""The object store of a bucket, the server's own for "". Raises NoSuchBucket."""


def _away() -> Unavailable:
    return Unavailable("object.unavailable", shown={"error": "object_store_unavailable"})


class Found(msgspec.Struct, frozen=True):
    """What a try found out. `object` and what follows it are of a smoke test alone."""

    place: Place
    bucket_exists: bool
    object: str = ""
    uploaded: int = 0
    downloaded: int = 0
    match: bool = False


class Kept(msgspec.Struct, frozen=True):
    """An uploaded object; `version` is None where the store keeps none, `url` reads it if one was
    asked for."""

    bucket: str
    object: str
    etag: str
    version: str | None
    filename: str
    media_type: str
    size: int
    url: str = ""


class ObjectChecks:
    """`base_url` is where this server's own links begin, `key` signs them."""

    def __init__(
        self, objects: OpenObjects, *, base_url: str, key: bytes, clock: Callable[[], float]
    ) -> None:
        self._objects = objects
        self._base_url = base_url
        self._key = hashlib.sha256(b"quartet object links " + key).digest()
        self._clock = clock

    async def ping(self) -> None:
        """Raises Unavailable("object.unavailable") unless the server's own bucket is there."""
        if not (await self._look("")).bucket_exists:
            raise _away()

    async def check(self, caller: Caller, *, smoke: bool, bucket: str = "") -> Found:
        """Look for the bucket; with `smoke` put an object, read it and remove it.

        Raises Forbidden("auth.forbidden") for more than a look at the server's own bucket without
        being an administrator, Unavailable("object.unavailable").
        """
        if (smoke or bucket) and not caller.is_admin:
            raise Forbidden("auth.forbidden")
        found = await self._look(bucket)
        if not smoke or not found.bucket_exists:
            return found
        key, sent = f"smoke/{uuid7()}", secrets.token_bytes(SMOKE_BYTES)
        objects = self._objects(bucket)
        try:
            await objects.put(key, sent)
            back = await objects.get(key)
            await objects.delete([key])
        except (StorageUnavailable, NoSuchObject) as error:
            raise _away() from error
        return msgspec.structs.replace(
            found, object=key, uploaded=len(sent), downloaded=len(back), match=back == sent
        )

    async def upload(
        self,
        filename: str,
        media_type: str,
        size: int,
        chunks: AsyncIterator[bytes],
        *,
        bucket: str,
        object_key: str,
        prefix: str,
        expires_s: int,
    ) -> Kept:
        """Keep a file under `object_key`, or under a new key that begins with `prefix`; with a URL
        that reads it for `expires_s` seconds unless that is 0.

        Raises Conflict("object.exists" | "object.reserved"), NotFound("object.no_bucket"),
        Unavailable("object.unavailable"), StorageFull.
        """
        now = datetime.fromtimestamp(self._clock(), UTC)
        name = safe_name(filename)
        key = object_key or "/".join(
            (prefix, f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}-{object_name(name)}")
        )
        if key == UPLOADS or key.partition("/")[0] in _OURS:
            raise Conflict("object.reserved")
        content = b"".join([chunk async for chunk in chunks])
        media_type = told_type(media_type, name, content[:16])
        place = msgspec.structs.replace(
            self._objects("").place, **({"bucket": bucket} if bucket else {})
        )
        try:
            objects = self._objects(bucket)
            written = await objects.put(key, content, media_type=media_type, create_only=True)
            url = await self._link(objects, key, expires_s) if expires_s else ""
        except ObjectExists:
            raise Conflict("object.exists") from None
        except (NoSuchBucket, NoSuchObject):
            shown = {"bucket": place.bucket, "object": key}
            raise NotFound("object.no_bucket", shown=shown) from None
        except StorageUnavailable as error:
            raise _away() from error
        return Kept(
            place.bucket,
            key,
            etag=written.etag,
            version=written.version,
            filename=name,
            media_type=media_type,
            size=size,
            url=url,
        )

    async def read(self, key: str, expires: int, signature: str) -> Opened:
        """An object by a link of ours. Raises Forbidden("object.link"), NotFound."""
        good = hmac.compare_digest(signature.encode(), self._signature(key, expires).encode())
        if not good or expires <= self._clock():
            raise Forbidden("object.link")
        try:
            return await self._objects("").open(key)
        except NoSuchObject:
            raise NotFound("file.not_found") from None

    async def _look(self, bucket: str) -> Found:
        own = self._objects("").place
        try:
            objects = self._objects(bucket)
            return Found(objects.place, await objects.exists())
        except NoSuchBucket:
            return Found(msgspec.structs.replace(own, bucket=bucket), False)
        except StorageUnavailable as error:
            raise _away() from error

    async def _link(self, objects: ObjectStore, key: str, expires_s: int) -> str:
        link = await objects.presign("GET", key, expires_s)
        if link is not None:
            return link
        expires = int(self._clock()) + expires_s
        query = {"object": key, "expires": expires, "signature": self._signature(key, expires)}
        return f"{self._base_url}/sandbox/api/status/minio/object?{urlencode(query)}"

    def _signature(self, key: str, expires: int) -> str:
        said = f"GET\n{key}\n{expires}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()
