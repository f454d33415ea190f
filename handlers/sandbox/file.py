"""sandbox: files (document 002, "File Module")."""

from pathlib import PurePosixPath
from typing import Any

from domain.caller import Caller
from domain.files import version_of
from domain.quartet import Quartet
from generated.sandbox import models
from handlers.wire import Answer, File
from storage.files import File as StoredFile


async def upload(quartet: Quartet, caller: Caller, body: dict[str, Any]) -> models.FileInfo:
    file = body["file"]
    return info(
        await quartet.files.keep(caller, file.filename, file.media_type, file.size, file.chunks())
    )


async def get(quartet: Quartet, caller: Caller, file_id: str) -> Answer:
    file = await quartet.files.find(caller, file_id)
    return Answer(info(file), version=version_of(file))


async def download(quartet: Quartet, caller: Caller, file_id: str) -> File:
    reading = await quartet.files.read(caller, file_id)
    file = reading.file
    return File(file.name, file.media_type, reading.chunks, file.size)


async def delete(quartet: Quartet, caller: Caller, file_id: str, if_match: int | None) -> None:
    await quartet.files.delete(caller, file_id, if_match)


def info(file: StoredFile, filepath: str = "") -> models.FileInfo:
    """A file as it is described; `filepath` is where it lies in a sandbox."""
    suffix = PurePosixPath(file.name).suffix.lower()
    return models.FileInfo(
        id=file.id,
        filename=file.name,
        filepath=filepath,
        key=file.key,
        extension=suffix if suffix[1:].isalnum() else "",
        mime_type=file.media_type,
        size=file.size,
    )
