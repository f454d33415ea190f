"""Forms: url-encoded ones in memory, multipart ones spooled to disk part by part.

Connexion's own validator keeps a whole upload in memory; here a part beyond 1 MiB lies in an
unnamed temporary file, and sizes are checked while the bytes arrive.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from server.lane.bodies import ClientGone, read_body
from server.lane.parameters import parse_query
from server.lane.refusals import Refusal
from server.lane.schemas import Validator, Violation

MULTIPART = b"multipart/form-data"
URLENCODED = b"application/x-www-form-urlencoded"
_FIELDS_MAX = 100
_FIELD_MAX = 1024 * 1024


class Limits(NamedTuple):
    """Bytes per file, files per request."""

    file: int
    files: int


class _Parser(MultiPartParser):
    """Starlette's spooling parser with a limit for each file."""

    def __init__(self, *args: Any, file_limit: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._file_limit = file_limit
        self._file_size = 0

    def on_part_begin(self) -> None:
        self._file_size = 0
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._file_size += end - start
        if self._current_part.file is not None and self._file_size > self._file_limit:
            raise Refusal(413, "request.too_large", details={"limit": self._file_limit})
        super().on_part_data(data, start, end)


async def read_form(
    receive: Receive,
    media: bytes,
    headers: Mapping[bytes, bytes],
    validator: Validator,
    limits: Limits,
) -> tuple[dict[str, Any], bytes]:
    """Fields by name and the raw bytes of a url-encoded form.

    A repeated name gives a list; a file is a starlette UploadFile.
    Raises Refusal 400 for a form that does not parse, 413 past a limit, 422 for one that breaks
    its schema (files count as strings there).
    """
    raw = b""
    fields: dict[str, Any]
    if media == URLENCODED:
        raw = await read_body(receive, _FIELD_MAX, headers.get(b"content-length"))
        fields = {
            name: values[0] if len(values) == 1 else values
            for name, values in parse_query(raw).items()
        }
    else:
        fields = await _multipart(receive, headers, limits)
    try:
        validator.check(_without_files(fields))
    except Violation as violation:
        await close(fields)
        raise Refusal(422, "request.invalid", errors=violation.errors) from None
    return fields, raw


async def _multipart(
    receive: Receive, headers: Mapping[bytes, bytes], limits: Limits
) -> dict[str, Any]:
    most = limits.file * limits.files + _FIELD_MAX * _FIELDS_MAX
    parser = _Parser(
        Headers(raw=list(headers.items())),
        _chunks(receive, most),
        max_files=limits.files,
        max_fields=_FIELDS_MAX,
        max_part_size=_FIELD_MAX,
        file_limit=limits.file,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, "request.not_multipart", details={"reason": error.message}) from None
    except (KeyError, UnicodeDecodeError):
        raise Refusal(
            400, "request.not_multipart", details={"reason": "no boundary, or not UTF-8"}
        ) from None
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in fields:
            known = fields[name]
            fields[name] = [*known, value] if isinstance(known, list) else [known, value]
        else:
            fields[name] = value
    return fields


async def _chunks(receive: Receive, most: int) -> AsyncIterator[bytes]:
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise Refusal(413, "request.too_large", details={"limit": most})
        yield chunk
        if not message.get("more_body"):
            return


def _files(fields: Any) -> list[UploadFile]:
    found = []
    for value in fields.values() if isinstance(fields, dict) else ():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, UploadFile):
                found.append(item)
    return found


def _without_files(fields: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return (value.filename or "") if isinstance(value, UploadFile) else value

    return {
        name: [plain(item) for item in value] if isinstance(value, list) else plain(value)
        for name, value in fields.items()
    }


async def close(fields: Any) -> None:
    """Release the temporary files of a form."""
    for file in _files(fields):
        await file.close()


def digest(fields: Any) -> bytes:
    """SHA-256 over the fields and files of a form, for idempotency fingerprints."""
    if not isinstance(fields, dict):
        return b""
    total = hashlib.sha256()
    for name, value in sorted(fields.items()):
        for item in value if isinstance(value, list) else [value]:
            total.update(name.encode() + b"\0")
            if isinstance(item, UploadFile):
                total.update((item.filename or "").encode() + b"\0")
                item.file.seek(0)
                while chunk := item.file.read(1 << 20):
                    total.update(chunk)
                item.file.seek(0)
            else:
                total.update(str(item).encode())
            total.update(b"\0")
    return total.digest()
