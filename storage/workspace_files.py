"""Files that agents work on: one directory for each agent, account and session.

    <root>/<agent id>/<user id>/[<session id>/]…

Every path goes through `segments`, and every directory on the way is opened by its parent's
descriptor without following links (O_NOFOLLOW): what was checked is what is opened, whatever an
agent's tools put there meanwhile. Links, devices, pipes, and files with a second name are not
there for anybody (security checklist 30, 31). Only `make` makes workspaces, and only `write`
directories, inside a workspace that is there.
"""

import asyncio
import errno
import os
import re
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote

import msgspec

from storage.database import StorageError

CHUNK = 256 * 1024
LISTED_MAX = 10_000
PATH_MAX = 4096
NAME_MAX = 255
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITTEN = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DRIVE = re.compile(r"[A-Za-z]:")
_OLDEST = (1980, 1, 1, 0, 0, 0)


class BadPath(ValueError):
    """The text is no path inside a workspace."""


class NoSuchFile(StorageError):
    """There is no such file or directory, or it is nothing that may be read."""


class Place(msgspec.Struct, frozen=True):
    """One workspace. `session_id` "" is all of the account's work with the agent."""

    agent_id: str
    user_id: str
    session_id: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The directories that lead to it. Raises BadPath."""
        names = (self.agent_id, self.user_id, *([self.session_id] if self.session_id else ()))
        for name in names:
            _check(name)
        return names


class Entry(msgspec.Struct, frozen=True):
    """A file or directory. `path` is relative to the workspace, `size` in bytes (0 for a
    directory), `modified` in UTC seconds since the epoch."""

    name: str
    path: str
    size: int
    modified: float
    is_directory: bool


def segments(path: str) -> tuple[str, ...]:
    """The names that a path of a request consists of. Raises BadPath.

    One form of a path is taken: relative, `/` between names, no name that is empty, begins with a
    dot or ends with a dot or a space. What only becomes another path once it is decoded again or
    normalised (`%2e%2e`, full-width dots) is refused as well.
    """
    if not path or len(path) > PATH_MAX:
        raise BadPath("the path is empty or too long")
    names = tuple(path.split("/"))
    for name in names:
        _check(name)
        if _DRIVE.match(name):
            raise BadPath("the path holds a drive")
    return names


def _check(name: str) -> None:
    for form in {name, unquote(name), unquote(unquote(name)), unicodedata.normalize("NFKC", name)}:
        if (
            not form
            or form[0] == "."
            or form[-1] in ". "
            or any(unicodedata.category(each) in ("Cc", "Cs") for each in form)
            or not {"/", "\\"}.isdisjoint(form)
        ):
            raise BadPath("the path holds a name that is none")
    if len(name.encode()) > NAME_MAX:
        raise BadPath("the path holds a name that is too long")


class _Source:
    """Bytes that a worker thread fetches, piece by piece; closed once that thread is done, also
    when whoever waited for it has gone."""

    def __init__(self, fetch: Callable[[], bytes], close: Callable[[], None]) -> None:
        self._fetch = fetch
        self._close = close
        self._fetching: asyncio.Future[bytes] | None = None

    def __aiter__(self) -> "_Source":
        return self

    async def __anext__(self) -> bytes:
        self._fetching = asyncio.ensure_future(asyncio.to_thread(self._fetch))
        piece = await asyncio.shield(self._fetching)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        if self._fetching is not None:
            await asyncio.wait((self._fetching,))
        await asyncio.to_thread(self._close)


class Reading(_Source):
    """A regular file being read, `size` bytes from its first. Its pieces raise StorageError when
    the file has become shorter."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(self._read, file.close)
        self._file = file
        self._left = size
        self.size = size

    def _read(self) -> bytes:
        chunk = self._file.read(min(CHUNK, self._left))
        if self._left and not chunk:
            raise StorageError("the file became shorter while it was read")
        self._left -= len(chunk)
        return chunk


class Archiving(_Source):
    """A directory being sent as a ZIP, made as it is read: neither a whole file nor the archive is
    ever in memory or on the disk. What `segments` would refuse, and what is no regular file, is
    left out."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        super().__init__(partial(next, pieces, b""), pieces.close)


class WorkspaceFiles:
    """The workspaces below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def list(self, place: Place) -> Sequence[Entry]:
        """Everything in a workspace but names that begin with a dot, by path; at most 10,000
        entries. Nothing where there is no workspace yet. Raises BadPath."""
        return await asyncio.to_thread(self._list, place)

    async def make(self, place: Place) -> None:
        """Make a workspace, unless it is there. Raises BadPath; NoSuchFile where a link or a file
        stands in its place."""
        await asyncio.to_thread(self._make, place)

    async def open(self, place: Place, path: tuple[str, ...]) -> Reading | Archiving:
        """A file, or a directory as a ZIP. Raises BadPath, NoSuchFile."""
        return await asyncio.to_thread(self._open, place, path)

    async def write(
        self,
        place: Place,
        path: tuple[str, ...],
        chunks: AsyncIterator[bytes],
        *,
        append: bool = False,
        fresh: bool = False,
        owner: int | None = None,
        executable: bool = False,
    ) -> None:
        """Write a file in a workspace that is there, and the directories that lead to it; as
        `owner` (uid and gid) where one is given. Raises BadPath, NoSuchFile; where it has to be
        `fresh`, FileExistsError if anything has its name, with no chunk taken."""
        mode = 0o755 if executable else 0o644
        how = _WRITTEN | (os.O_EXCL if fresh else 0)
        file = await asyncio.to_thread(self._create, place, path, how, append, owner, mode)
        try:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
        finally:
            await asyncio.to_thread(file.close)

    async def delete(self, place: Place, path: tuple[str, ...]) -> None:
        """Remove a file, or a directory with all that is in it; links in it are removed, not
        followed. Raises BadPath, NoSuchFile."""
        await asyncio.to_thread(self._delete, place, path)

    async def erase_agent(self, agent_id: str) -> None:
        """Remove every workspace of an agent. Raises BadPath."""
        with suppress(NoSuchFile):
            await asyncio.to_thread(self._remove, (agent_id,))

    async def erase_user(self, user_id: str) -> None:
        """Remove every workspace of an account. Raises BadPath."""
        await asyncio.to_thread(self._erase_user, user_id)

    def _erase_user(self, user_id: str) -> None:
        with suppress(FileNotFoundError):
            for agent_id in os.listdir(self._root):
                with suppress(NoSuchFile, BadPath):
                    _check(agent_id)
                    self._remove((agent_id, user_id))

    def _make(self, place: Place) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = place.names
        for depth, name in enumerate(names):
            with self._directory(names[:depth]) as parent, suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
        with self._directory(names):
            pass

    def _list(self, place: Place) -> Sequence[Entry]:
        found = []
        with suppress(NoSuchFile), self._directory(place.names) as directory:
            for path, name, parent, told in _walk(directory):
                is_directory = stat.S_ISDIR(told.st_mode)
                size = 0 if is_directory else told.st_size
                found.append(Entry(name, path, size, told.st_mtime, is_directory))
                if len(found) == LISTED_MAX:
                    break
                del parent
        return sorted(found, key=lambda entry: entry.path)

    def _open(self, place: Place, path: tuple[str, ...]) -> Reading | Archiving:
        with self._directory((*place.names, *path[:-1])) as parent:
            told = _stat(path[-1], parent)
            if stat.S_ISDIR(told.st_mode):
                return Archiving(self._pieces((*place.names, *path)))
            file, told = _open_file(path[-1], parent)
            return Reading(file, told.st_size)

    def _create(
        self,
        place: Place,
        path: tuple[str, ...],
        how: int,
        append: bool,
        owner: int | None,
        mode: int,
    ) -> BinaryIO:
        names = place.names
        for name in path[:-1]:
            with self._directory(names) as parent, suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
                if owner is not None:
                    os.chown(name, owner, owner, dir_fd=parent, follow_symlinks=False)
            names = (*names, name)
        with self._directory(names) as parent:
            with _missing():
                try:
                    descriptor = os.open(path[-1], how, mode, dir_fd=parent)
                except IsADirectoryError:
                    raise NoSuchFile from None
            file = os.fdopen(descriptor, "wb", buffering=0)
            told = os.fstat(descriptor)
            if not stat.S_ISREG(told.st_mode) or told.st_nlink != 1:
                file.close()
                raise NoSuchFile
            if owner is not None:
                os.fchown(descriptor, owner, owner)
            if append:
                os.lseek(descriptor, 0, os.SEEK_END)
            else:
                os.ftruncate(descriptor, 0)
            return cast(BinaryIO, file)

    def _delete(self, place: Place, path: tuple[str, ...]) -> None:
        self._remove((*place.names, *path))

    def _remove(self, names: tuple[str, ...]) -> None:
        with self._directory(names[:-1]) as parent, _missing():
            if stat.S_ISDIR(_stat(names[-1], parent).st_mode):
                shutil.rmtree(names[-1], dir_fd=parent)
            else:
                os.unlink(names[-1], dir_fd=parent)

    def _pieces(self, names: tuple[str, ...]) -> Generator[bytes, None, None]:
        made = _Sink()
        sink = cast(BinaryIO, made)
        with (
            self._directory(names) as directory,
            zipfile.ZipFile(sink, "w", compresslevel=1) as archive,
        ):
            for path, name, parent, told in _walk(directory):
                info = zipfile.ZipInfo(path, max(_OLDEST, _when(told.st_mtime)))
                if stat.S_ISDIR(told.st_mode):
                    info.filename += "/"
                    archive.writestr(info, b"")
                else:
                    info.compress_type = zipfile.ZIP_DEFLATED
                    try:
                        file, _ = _open_file(name, parent)
                    except NoSuchFile:
                        continue
                    with file, archive.open(info, "w", force_zip64=True) as entry:
                        while chunk := file.read(CHUNK):
                            entry.write(chunk)
                            if len(made.kept) >= CHUNK:
                                yield made.take()
                if len(made.kept) >= CHUNK:
                    yield made.take()
        yield made.take()

    @contextmanager
    def _directory(self, names: tuple[str, ...]) -> Iterator[int]:
        """The descriptor of a directory beneath the root, no link followed on the way."""
        with _missing():
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                with _missing():
                    below = os.open(name, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


class _Sink:
    """What a ZIP is written to; it cannot be sought, so sizes follow each entry (APPNOTE 4.3.9)."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def write(self, data: bytes) -> int:
        self.kept += data
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        taken = bytes(self.kept)
        self.kept.clear()
        return taken


@contextmanager
def _missing() -> Iterator[None]:
    """Not there, a link, or no directory where one is needed: all the same to whoever asks."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoSuchFile from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise NoSuchFile from error
        raise


def _stat(name: str, parent: int) -> os.stat_result:
    with _missing():
        told = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not _usable(told):
        raise NoSuchFile
    return told


def _usable(told: os.stat_result) -> bool:
    """A directory, or a regular file that has no second name elsewhere."""
    return stat.S_ISDIR(told.st_mode) or (stat.S_ISREG(told.st_mode) and told.st_nlink == 1)


def _open_file(name: str, parent: int) -> tuple[BinaryIO, os.stat_result]:
    with _missing():
        descriptor = os.open(name, _FILE, dir_fd=parent)
    file = os.fdopen(descriptor, "rb", buffering=0)
    told = os.fstat(descriptor)
    if not stat.S_ISREG(told.st_mode) or told.st_nlink != 1:
        file.close()
        raise NoSuchFile
    return cast(BinaryIO, file), told


def _walk(directory: int) -> Iterator[tuple[str, str, int, os.stat_result]]:
    """Path, name, the parent's descriptor and what is known of everything below that may be used;
    a directory comes before what is in it."""
    for where, directories, files, parent in os.fwalk(".", dir_fd=directory):
        kept = []
        for name in sorted((*directories, *files)):
            with suppress(BadPath, NoSuchFile, OSError):
                _check(name)
                told = _stat(name, parent)
                path = os.path.normpath(os.path.join(where, name))
                if stat.S_ISDIR(told.st_mode):
                    kept.append(name)
                yield path, name, parent, told
        directories[:] = kept


def _when(at: float) -> tuple[int, int, int, int, int, int]:
    when = datetime.fromtimestamp(at, UTC)
    return (when.year, when.month, when.day, when.hour, when.minute, when.second)
