"""What a sandbox uses, measured from outside it.

Memory: the share of every process in it (Pss, proc(5)), found by its PID namespace, which nothing
inside can leave. Disk: the blocks of the workspace, and of files that are open and have no name
any more.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex

DEPTH_MAX = 100
TOO_MANY = 1 << 40
_PAGE = os.sysconf("SC_PAGESIZE")


def processes() -> dict[str, list[int]]:
    """PID namespace (`pid:[4026532008]`) → its processes, for every one that may be looked at."""
    found: dict[str, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                found.setdefault(os.readlink(f"/proc/{name}/ns/pid"), []).append(int(name))
    return found


def standing(process: int) -> str:
    """Where a process and those below it stand, for whoever looks for what holds them up: `name
    (state) in the system call that it waits in`, proc(5)."""
    told: list[str] = []
    with suppress(OSError):
        name = Path(f"/proc/{process}/comm").read_text().strip()
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        waits = Path(f"/proc/{process}/wchan").read_text() or "0"
        call = Path(f"/proc/{process}/syscall").read_text().split()[0]
        told.append(f"{name} ({state}) in {waits}, system call {call}")
    with suppress(OSError):
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        told += [standing(int(child)) for child in below]
    return "; ".join(told)


def memory(pids: Iterable[int], enough: int) -> int:
    """Bytes that processes hold. Up to `enough`, what is shared is counted for each of them; only
    beyond it the kernel is asked to divide, which costs a walk through their pages."""
    pids = list(pids)
    resident = sum(_resident(pid) for pid in pids)
    return resident if resident <= enough else sum(_share(pid) for pid in pids)


def _resident(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return 0


def _share(pid: int) -> int:
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def disk(workspace: Path, pids: Iterable[int]) -> tuple[int, int]:
    """Bytes and names in a workspace; links are not followed. Files without a name that a process
    holds open count as well. Directories nested too deep count as more names than any limit."""
    with open_directory(workspace, None) as descriptor:
        size, names = _below(descriptor, DEPTH_MAX)
    return size + sum(_nameless(pids).values()), names


@contextmanager
def open_directory(
    name: str | Path, parent: int | None, needed: int = stat.S_IRUSR | stat.S_IXUSR
) -> Iterator[int]:
    """A directory's descriptor, no link followed. Where its mode keeps out its owner, who this
    process is unless it is root, it is given the bits that are needed. Raises OSError."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        here = f"/proc/self/fd/{place}"
        mode = stat.S_IMODE(os.fstat(place).st_mode)
        if mode & needed != needed and os.geteuid() != 0:
            os.chmod(here, mode | needed)
        descriptor = os.open(here, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _below(directory: int, depth: int) -> tuple[int, int]:
    if depth == 0:
        return 0, TOO_MANY
    size = names = 0
    for name in os.listdir(directory):
        names += 1
        with suppress(OSError):
            told = os.stat(name, dir_fd=directory, follow_symlinks=False)
            size += told.st_blocks * 512
            if stat.S_ISDIR(told.st_mode):
                with open_directory(name, directory) as descriptor:
                    more, further = _below(descriptor, depth - 1)
                size, names = size + more, names + further
    return size, names


def _nameless(pids: Iterable[int]) -> dict[tuple[int, int], int]:
    found = {}
    for pid in pids:
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    told = os.stat(f"/proc/{pid}/fd/{name}")
                    if stat.S_ISREG(told.st_mode) and told.st_nlink == 0:
                        found[told.st_dev, told.st_ino] = told.st_blocks * 512
    return found


def give(workspace: Path, owner: int) -> None:
    """Make everything in a workspace a user's own, links themselves included. Raises OSError."""
    with open_directory(workspace, None) as directory:
        _give(directory, owner, DEPTH_MAX)


def _give(directory: int, owner: int, depth: int) -> None:
    if os.fstat(directory).st_uid != owner:
        os.fchown(directory, owner, owner)
    for name in os.listdir(directory):
        with suppress(OSError):
            told = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(told.st_mode) and depth > 0:
                with open_directory(name, directory) as descriptor:
                    _give(descriptor, owner, depth - 1)
            elif told.st_uid != owner:
                os.chown(name, owner, owner, dir_fd=directory, follow_symlinks=False)


def remove(root: Path, names: Sequence[str]) -> None:
    """Remove a directory below `root` with all that is in it, whatever its modes, however deep;
    links in it are removed, not followed. Raises OSError."""
    with ExitStack() as stack:
        parent = stack.enter_context(open_directory(root, None))
        for name in names[:-1]:
            parent = stack.enter_context(open_directory(name, parent))
        _remove(names[-1], parent)


def _remove(name: str, parent: int) -> None:
    """Goes down by one descriptor at a time: a nested directory is moved up before it is removed,
    so that depth costs neither stack nor descriptors."""
    with open_directory(name, parent, stat.S_IRWXU) as directory:
        aside = token_hex(8)
        moved = 0
        waiting = [""]
        while waiting:
            here = waiting.pop()
            with ExitStack() as stack:
                below = (
                    directory
                    if not here
                    else stack.enter_context(open_directory(here, directory, stat.S_IRWXU))
                )
                for each in os.listdir(below):
                    told = os.stat(each, dir_fd=below, follow_symlinks=False)
                    if not stat.S_ISDIR(told.st_mode):
                        os.unlink(each, dir_fd=below)
                        continue
                    moved += 1
                    with open_directory(each, below, stat.S_IRWXU):
                        pass  # it may be moved only by who may write to it
                    os.rename(each, f"{aside}-{moved}", src_dir_fd=below, dst_dir_fd=directory)
                    waiting.append(f"{aside}-{moved}")
            if here:
                os.rmdir(here, dir_fd=directory)
    os.rmdir(name, dir_fd=parent)
