"""One process per data directory.

The lock is the kernel's (`flock`), so it ends with its holder whatever ends the holder; what the
file says is only for the message.
"""

import fcntl
import os
import socket
import time
from pathlib import Path

import msgspec


class Holder(msgspec.Struct):
    """Who holds a data directory. `since` is UTC seconds since the epoch."""

    process: int
    host: str
    since: float


class Locked(Exception):
    """Another process holds the data directory; the text says who."""


class DirectoryLock:
    """An exclusive lock on a data directory, held until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._file: int | None = None

    def acquire(self, now: float | None = None) -> None:
        """Take the lock, without waiting. Raises Locked."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(file)
            os.close(file)
            raise Locked(_message(self._path.parent, holder)) from None
        holder = Holder(os.getpid(), socket.gethostname(), time.time() if now is None else now)
        os.ftruncate(file, 0)
        os.pwrite(file, msgspec.json.encode(holder), 0)
        self._file = file

    def release(self) -> None:
        """Let the next process in."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _read(file: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(file, 4096, 0), type=Holder)
    except msgspec.DecodeError:  # taken a moment ago, not written yet
        return None


def _message(directory: Path, holder: Holder | None) -> str:
    if holder is None:
        return f"{directory} is in use by another process"
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(holder.since))
    return f"{directory} is in use by process {holder.process} on {holder.host} since {since}"
