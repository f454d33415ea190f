"""The tools by which an agent works on the files of its workspace (domain.workspaces).

A run's workspace is that of its own agent, for the account it works for and in its session; its
sub-agents share it. Where a run has no agent, each stored sub-agent has its own. The tools have
the names and arguments that they have in sandboxes (domain.session_work), over plain files.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from fnmatch import fnmatch

import msgspec

from domain.session_work import (
    READ_MAX,
    FindFiles,
    ReadFile,
    SearchFiles,
    WriteFile,
    searched,
)
from domain.tools import Result, Run, Tool, ToolFailed
from storage.workspace_files import (
    LISTED_MAX,
    BadPath,
    Entry,
    NoSuchFile,
    Place,
    Reading,
    WorkspaceFiles,
    segments,
)

BYTES_MAX = 256 * 1024 * 1024
"""Bytes that an account's workspaces with one agent hold, in all of its sessions together."""
FOUND_MAX = 50
"""Lines that a search gives."""

_READ = "Reads a text file of the workspace."
_WRITE = "Writes a text file of the workspace, or appends to it; what is there can be downloaded."
_FIND = "Lists the files of the workspace whose path matches a pattern such as *.py."
_SEARCH = "Finds lines in the text files of the workspace that hold some words."


def file_tools(files: WorkspaceFiles, place: Place) -> list[Tool]:
    """The tools over one workspace, which is made when something is first written."""
    hands = _Hands(files, place)
    return _tools(hands.read, hands.write, hands.find, hands.search)


def _tools(read: Run, write: Run, find: Run, search: Run) -> list[Tool]:
    return [
        Tool("file_read", _READ, ReadFile, read, True, "file"),
        Tool("file_write", _WRITE, WriteFile, write, False, "file"),
        Tool("file_find", _FIND, FindFiles, find, True, "file"),
        Tool("file_search", _SEARCH, SearchFiles, search, True, "search"),
    ]


async def _nowhere(wanted: msgspec.Struct) -> str:
    del wanted
    raise ToolFailed("it works on the files of an agent, and in its turns alone")


LISTED = tuple(_tools(_nowhere, _nowhere, _nowhere, _nowhere))
"""The tools as lists show them, outside of any turn."""
NAMES = frozenset(tool.name for tool in LISTED)
REPEATABLE = frozenset(tool.name for tool in LISTED if tool.repeatable)


class _Hands:
    """What the tools over one workspace do."""

    def __init__(self, files: WorkspaceFiles, place: Place) -> None:
        self._files = files
        self._place = place

    async def read(self, wanted: ReadFile) -> Result:
        text = await self._text(wanted.path)
        return Result(text, {"content": text})

    async def write(self, wanted: WriteFile) -> Result:
        names, data = _names(wanted.path), wanted.content.encode()
        await self._make_room(len(data))
        try:
            await self._files.write(self._place, names, _once(data), append=wanted.append)
        except (BadPath, NoSuchFile, OSError) as error:
            raise ToolFailed(f"{wanted.path} cannot be written: {error or 'no file'}") from None
        return Result(f"{'/'.join(names)} is written.", {"content": wanted.content})

    async def find(self, wanted: FindFiles) -> Result:
        text = "\n".join(entry.path for entry in await self._entries(wanted.pattern))
        return Result(text or "No file matches.", {"content": text})

    async def search(self, wanted: SearchFiles) -> Result:
        return await searched(await self._entries("*"), self._text, wanted.query, FOUND_MAX)

    async def _make_room(self, size: int) -> None:
        """Make the workspace, unless the account's files with the agent are too many."""
        everything = msgspec.structs.replace(self._place, session_id="")
        try:
            await self._files.make(self._place)
            held = await self._files.list(everything)
        except (BadPath, NoSuchFile):
            raise ToolFailed("a session of this name has no workspace") from None
        if len(held) >= LISTED_MAX or sum(entry.size for entry in held) + size > BYTES_MAX:
            raise ToolFailed("the workspaces with this agent are full; files have to be deleted")

    async def _entries(self, pattern: str) -> list[Entry]:
        with suppress(BadPath):
            listed = await self._files.list(self._place)
            return [one for one in listed if not one.is_directory and fnmatch(one.path, pattern)]
        return []

    async def _text(self, path: str) -> str:
        try:
            opened = await self._files.open(self._place, _names(path))
        except (BadPath, NoSuchFile):
            raise ToolFailed(f"there is no file {path}") from None
        try:
            if not isinstance(opened, Reading):
                raise ToolFailed(f"there is no file {path}")
            if opened.size > READ_MAX:
                raise ToolFailed(f"{path} has more than {READ_MAX} bytes")
            return b"".join([chunk async for chunk in opened]).decode(errors="replace")
        finally:
            await opened.aclose()


def _names(path: str) -> tuple[str, ...]:
    try:
        return segments(path.removeprefix("./"))
    except BadPath as error:
        raise ToolFailed(f"{error}: a path is relative, such as notes/today.md") from None


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
