"""Copies of folders whose files others may change meanwhile, and inventories of folders.

Every directory is opened by its parent's descriptor without following links, and what is copied is
what was opened: a regular file that has no second name. Else whoever may write into a workspace
could have a backup fetch what only the server may read (security checklist 31). Anything else is
left out and told of; nothing that an account can put there makes a copy fail.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

BLOCK = 4096
CHUNK = 256 * BLOCK
DEPTH_MAX = 100
"""Directories in directories; each holds a descriptor or two open."""
PATH_MAX = 4096
"""Bytes of a path; beyond them no program could name the file."""
_SHOWN = 300
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLE = bytes(BLOCK)
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_REASONS = {errno.ENOENT: "gone before it was copied", errno.ELOOP: "a link"}


class File(msgspec.Struct, frozen=True):
    """A file by its path; `size` in bytes, `executable` by its owner.

    `sha256` is of its content. Where 4 KiB blocks (counted from the start) hold nothing but zeros,
    `@` and the place in bytes of the next other block stand for them, so that a hole costs no time
    and a file is the same with and without its holes.
    """

    path: str
    size: int
    sha256: str
    executable: bool = False


class LeftOut(msgspec.Struct, frozen=True):
    """Something that was not copied, and why. `path` is for people: the first 300 characters, and
    what is not printable escaped."""

    path: str
    reason: str


class Copying:
    """Copies folders and collects what was in them, by paths with `/`, in the order of the names.

    `ignored` are paths of files that are no part of it. `executables` are the paths of files that
    the copies are executable of; None leaves it to the files' own mode.
    """

    def __init__(
        self,
        *,
        ignored: re.Pattern[str] | None = None,
        executables: Container[str] | None = None,
    ) -> None:
        self.files: list[File] = []
        self.folders: list[str] = []
        self.left_out: list[LeftOut] = []
        self._ignored = ignored
        self._executables = executables

    def folder(self, source: Path, target: Path | None, path: str = "") -> None:
        """Copy what is in a folder into one that is there, or only look at it where `target` is
        None. `path` is the folder's own. Raises OSError for the two folders themselves, and when
        the target cannot be written."""
        here = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if target is None:
                self._all(os.listdir(here), here, None, path)
                return
            there = os.open(target, _DIRECTORY)
            try:
                self._all(os.listdir(here), here, there, path)
            finally:
                os.close(there)
        finally:
            os.close(here)

    def _all(self, names: list[str], here: int, there: int | None, folder: str) -> None:
        for name in sorted(names):
            path = f"{folder}/{name}" if folder else name
            try:
                _check(path)
                told = _stat(name, here)
                if stat.S_ISDIR(told.st_mode):
                    self._folder(name, here, there, path)
                elif self._ignored is None or not self._ignored.fullmatch(path):
                    self._file(name, here, there, path)
            except _Unusable as unusable:
                self.left_out.append(LeftOut(printable(path[:_SHOWN]), str(unusable)))

    def _folder(self, name: str, here: int, there: int | None, path: str) -> None:
        if path.count("/") >= DEPTH_MAX:
            raise _Unusable("nested too deep")
        with _opened(name, _DIRECTORY, here) as source:
            with _reading():
                names = os.listdir(source)
            self.folders.append(path)
            if there is None:
                self._all(names, source, None, path)
                return
            os.mkdir(name, 0o700, dir_fd=there)
            target = os.open(name, _DIRECTORY, dir_fd=there)
            try:
                self._all(names, source, target, path)
                _keep_times(source, target)
            finally:
                os.close(target)

    def _file(self, name: str, here: int, there: int | None, path: str) -> None:
        with _opened(name, _FILE, here) as source:
            told = os.fstat(source)
            _check_kind(told)
            if self._executables is None:
                executable = bool(told.st_mode & stat.S_IXUSR)
            else:
                executable = path in self._executables
            if there is None:
                digest = _digest(source, None, told.st_size)
            else:
                mode = 0o700 if executable else 0o600
                target = os.open(name, _NEW, mode, dir_fd=there)
                try:
                    digest = _digest(source, target, told.st_size)
                    os.ftruncate(target, told.st_size)
                    _keep_times(source, target)
                except _Unusable:
                    os.unlink(name, dir_fd=there)
                    raise
                finally:
                    os.close(target)
        self.files.append(File(path, told.st_size, digest, executable))


def printable(text: str) -> str:
    """Text that somebody else chose, as it may stand on a terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class _Unusable(Exception):
    """An entry that is left out; the text says why."""


@contextmanager
def _reading() -> Iterator[None]:
    """What the source fails with leaves an entry out; what this process lacks does not."""
    try:
        yield
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        known = _REASONS.get(error.errno or 0)
        raise _Unusable(known or (error.strerror or "it cannot be read").lower()) from None


@contextmanager
def _opened(name: str, how: int, parent: int) -> Iterator[int]:
    with _reading():
        descriptor = os.open(name, how, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check(path: str) -> None:
    try:
        long = len(path.encode()) > PATH_MAX
    except UnicodeEncodeError:
        raise _Unusable("its name is not UTF-8") from None
    if long:
        raise _Unusable("its path is too long")


def _stat(name: str, parent: int) -> os.stat_result:
    """What an entry is, before anything of it is opened: a pipe has somebody at its other end."""
    with _reading():
        told = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(told.st_mode):
        _check_kind(told)
    return told


def _check_kind(told: os.stat_result) -> None:
    if stat.S_ISLNK(told.st_mode):
        raise _Unusable("a link")
    if not stat.S_ISREG(told.st_mode):
        raise _Unusable("no regular file")
    if told.st_nlink != 1:
        raise _Unusable("a file with a second name")


def _digest(source: int, target: int | None, size: int) -> str:
    """File.sha256 of the first `size` bytes, written to `target` with their holes. What the file
    has lost meanwhile counts as zeros."""
    digest = hashlib.sha256()
    at = expected = 0
    while at < size:
        with _reading():
            try:
                at = os.lseek(source, at, os.SEEK_DATA)
                hole = os.lseek(source, at, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    break
                raise
            at -= at % BLOCK
            end = min(at + CHUNK, hole + -hole % BLOCK, size)
            if at >= end:
                break
            data = os.pread(source, end - at, at).ljust(end - at, b"\0")
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            if block != _HOLE[: len(block)]:
                if at + start != expected:
                    digest.update(b"@%d" % (at + start))
                digest.update(block)
                expected = at + start + BLOCK
        if target is not None:
            _write(target, data, at)
        at = end
    return digest.hexdigest()


def _write(target: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(target, left, at)
        left, at = left[written:], at + written


def _keep_times(source: int, target: int) -> None:
    told = os.fstat(source)
    os.utime(target, ns=(told.st_atime_ns, told.st_mtime_ns))
