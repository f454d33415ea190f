"""sage: files that are uploaded and shown by their public address (document, "oss")."""

from typing import Any

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage.models import PublishedFile
from handlers.wire import File


async def create(quartet: Quartet, caller: Caller, body: dict[str, Any]) -> PublishedFile:
    file = body["file"]
    url = await quartet.files.publish(caller, file.filename, body["path"], file.size, file.chunks())
    return PublishedFile(url=url)


async def download(quartet: Quartet, link: str, file_name: str) -> File:
    reading = await quartet.files.read_published(link, file_name)
    file = reading.file
    return File(file.name, file.media_type, reading.chunks, file.size, inline=reading.is_image)
