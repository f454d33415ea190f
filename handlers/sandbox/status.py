"""sandbox: whether the services behind the server answer (document 002, "Status Module")."""

from typing import Any

from msgspec import UNSET

from domain.caller import Caller
from domain.errors import Unavailable
from domain.object_checks import Found
from domain.quartet import Quartet
from generated.sandbox import models
from handlers.wire import File


async def check(quartet: Quartet) -> list[models.HealthStatus]:
    services = await quartet.status.services()
    listed = [
        models.HealthStatus(
            service=each.name, status="error" if each.wrong else "ok", details=each.wrong
        )
        for each in services
    ]
    if any(each.wrong for each in services):
        raise Unavailable("status.degraded", shown=listed)
    return listed


async def check_objects(
    quartet: Quartet, caller: Caller, smoke: bool, bucket: str | None
) -> models.ObjectStoreStatus:
    found = await quartet.objects.check(caller, smoke=smoke, bucket=bucket or "")
    return shown(found, smoke=smoke)


async def upload_object(
    quartet: Quartet,
    body: dict[str, Any],
    bucket: str | None,
    object_name: str | None,
    prefix: str,
    presign: bool,
    expiry_seconds: int,
) -> models.StoredObject:
    file = body["file"]
    kept = await quartet.objects.upload(
        file.filename,
        file.media_type,
        file.size,
        file.chunks(),
        bucket=bucket or "",
        object_key=object_name or "",
        prefix=prefix,
        expires_s=expiry_seconds if presign else 0,
    )
    return models.StoredObject(
        bucket=kept.bucket,
        object=kept.object,
        etag=kept.etag,
        version_id=kept.version,
        filename=kept.filename,
        content_type=kept.media_type,
        size=kept.size,
        presigned_get_url=kept.url or UNSET,
    )


async def download_object(quartet: Quartet, object: str, expires: int, signature: str) -> File:
    opened = await quartet.objects.read(object, expires, signature)
    name = object.rpartition("/")[2]
    return File(name, "application/octet-stream", opened.chunks, opened.info.size)


def shown(found: Found, *, smoke: bool) -> models.ObjectStoreStatus:
    """What a try found out; a bucket that is missing is all there is to say of it."""
    status = models.ObjectStoreStatus(
        ok=found.bucket_exists,
        endpoint=found.place.endpoint,
        secure=found.place.secure,
        bucket=found.place.bucket,
        bucket_exists=found.bucket_exists,
    )
    if not found.bucket_exists:
        status.error = "bucket_not_exists"
    elif smoke:
        status.ok = status.match = found.match
        status.object = found.object
        status.uploaded_bytes = found.uploaded
        status.downloaded_bytes = found.downloaded
    if not smoke:
        status.reachable = True
    return status
