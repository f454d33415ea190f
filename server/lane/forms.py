"""Forms: url-encoded ones in memory, multipart ones spooled to disk part by part.

Connexion's own validator keeps a whole upload in memory; here a part beyond 1 MiB lies in an
unnamed temporary file, and sizes are checked while the bytes arrive.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from handlers.wire import Upload
from server.lane.bodies import ClientGone, read_body
from server.lane.parameters import CONVERT, parse_query
from server.lane.refusals import Refusal
from server.lane.schemas import Schemas, Violation

URLENCODED = b"application/x-www-form-urlencoded"
_FIELDS_MAX = 100
_FIELD_MAX = 1024 * 1024


class Limits(NamedTuple):
    """Bytes per file, files per request."""

    file: int
    files: int


class Form:
    """How one operation's form is read: which fields are files (`format: binary`), which repeat
    (arrays), and what the text of the others converts to."""

    __slots__ = ("_properties", "_validator")

    def __init__(self, schema: dict[str, Any], schemas: Schemas) -> None:
        self._properties: Mapping[str, Any] = schema.get("properties", {})
        self._validator = schemas.validator(schema)

    def typed(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields as their schema has them. Raises Violation: for what breaks the schema, a
        text where a file belongs, a file where a text does."""
        made = {name: self._value(name, given) for name, given in fields.items()}
        self._validator.check(_without_files(made))
        for name, declared in self._properties.items():
            if name not in made and "default" in declared:
                made[name] = declared["default"]
        return made

    def _value(self, name: str, given: Any) -> Any:
        declared = self._properties.get(name)
        if declared is None:
            return given
        if declared.get("type") == "array":
            items = given if isinstance(given, list) else [given]
            return [self._one(name, declared.get("items", {}), item) for item in items]
        return given if isinstance(given, list) else self._one(name, declared, given)

    @staticmethod
    def _one(name: str, declared: Mapping[str, Any], given: Any) -> Any:
        is_file, wants_file = isinstance(given, Upload), declared.get("format") == "binary"
        if is_file != wants_file:
            message = "is not a file" if wants_file else "is a file"
            raise Violation([{"loc": ["body", name], "msg": message, "type": "type"}])
        if is_file:
            return given
        kind = declared.get("type", "string")
        try:
            return CONVERT[kind](given) if kind in CONVERT else given
        except ValueError:
            told = {"loc": ["body", name], "msg": f"is not of type {kind}", "type": "type"}
            raise Violation([told]) from None


class _Parser(MultiPartParser):
    """Starlette's spooling parser with a limit for each file."""

    def __init__(self, *args: Any, file_limit: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._file_limit = file_limit
        self._file_size = 0
        self._complete = False

    def on_part_begin(self) -> None:
        self._file_size = 0
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._file_size += end - start
        if self._current_part.file is not None and self._file_size > self._file_limit:
            raise Refusal(413, "request.too_large", details={"limit": self._file_limit})
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self._complete = True

    async def parse(self) -> FormData:
        """As Starlette's, which takes a form that breaks off for one that ends there (RFC 2046
        §5.1.1: the last boundary is a line of its own kind)."""
        form = await super().parse()
        if not self._complete:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("the form breaks off.")
        return form


async def read_form(
    receive: Receive,
    media: bytes,
    headers: Mapping[bytes, bytes],
    form: Form,
    limits: Limits,
) -> tuple[dict[str, Any], bytes]:
    """Fields by name and the raw bytes of a url-encoded form.

    A repeated name gives a list; a file is a handlers.wire.Upload.
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
        return form.typed(fields), raw
    except Violation as violation:
        close(fields)
        raise Refusal(422, "request.invalid", errors=violation.errors) from None


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
    for name, given in form.multi_items():
        value: Any = given if isinstance(given, str) else _upload(given)
        if "\0" in (value if isinstance(value, str) else value.filename):
            close({"": value, **fields})
            raise Refusal(400, "request.not_multipart", details={"reason": "a text holds NUL"})
        if name in fields:
            known = fields[name]
            fields[name] = [*known, value] if isinstance(known, list) else [known, value]
        else:
            fields[name] = value
    return fields


def _upload(given: UploadFile) -> Upload:
    return Upload(
        given.file,
        filename=given.filename or "",
        media_type=(given.content_type or "").partition(";")[0].strip().lower(),
        size=given.size or 0,
    )


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


def _files(fields: Any) -> list[Upload]:
    found = []
    for value in fields.values() if isinstance(fields, dict) else ():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Upload):
                found.append(item)
    return found


def _without_files(fields: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return value.filename if isinstance(value, Upload) else value

    return {
        name: [plain(item) for item in value] if isinstance(value, list) else plain(value)
        for name, value in fields.items()
    }


def close(fields: Any) -> None:
    """Release the temporary files of a form."""
    for upload in _files(fields):
        upload.file.close()


def digest(fields: Any) -> bytes:
    """SHA-256 over the fields and files of a form, for idempotency fingerprints."""
    if not isinstance(fields, dict):
        return b""
    total = hashlib.sha256()
    for name, value in sorted(fields.items()):
        for item in value if isinstance(value, list) else [value]:
            total.update(name.encode() + b"\0")
            if isinstance(item, Upload):
                total.update(item.filename.encode() + b"\0")
                item.file.seek(0)
                while chunk := item.file.read(1 << 20):
                    total.update(chunk)
                item.file.seek(0)
            else:
                total.update(str(item).encode())
            total.update(b"\0")
    return total.digest()
