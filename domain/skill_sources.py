"""Bundles of skills, read from where they are installed from: a directory below the roots that the
operator lists, or a folder of a repository on GitHub.

A bundle is taken whole or refused whole, before anything of it is kept.
"""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gateways.archives import ArchiveRefused, check_names, check_path
from gateways.errors import OutboundError, OutboundRefused
from gateways.github import Folder, Trees

FILES_MAX = 200
FILE_MAX = 256 * 1024
BUNDLE_MAX = 10 * 1024 * 1024
"""Files of a bundle, bytes of one of them, and of all."""
GITHUB = "https://github.com/"
_LEFT_OUT = frozenset({".git"})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,100}")

Bundle = Mapping[str, bytes]
"""Files by their paths, with `/`."""


class Refused(Exception):
    """The source is not taken; the text says why, and is fit to be shown to administrators."""


def read_local(source: str, roots: Sequence[Path]) -> Bundle:
    """The files of a directory below one of the roots. No link is followed on the way, and none
    may lie in it. Blocks. Raises Refused."""
    root, names = _below(_names(source), roots)
    found: dict[str, bytes] = {}
    try:
        _read(_opened(root, names), "", found)
    except OSError as error:
        raise Refused(f"it cannot be read: {error.strerror}") from None
    return checked(found)


def _names(source: str) -> list[str]:
    """The names that an absolute path consists of. Raises Refused."""
    if not source.startswith("/") or "\x00" in source:
        raise Refused("a local source is an absolute path")
    names = [name for name in source.split("/") if name]
    if ".." in names or "." in names:
        raise Refused("the path leads elsewhere")
    return names


def _below(names: list[str], roots: Sequence[Path]) -> tuple[Path, list[str]]:
    """The root that a path begins with, and the names below it. Raises Refused."""
    for root in roots:
        above = [name for name in str(root).split("/") if name]
        if names[: len(above)] == above:
            return root, names[len(above) :]
    raise Refused("it lies below none of the directories that the operator lists")


def _opened(root: Path, names: Sequence[str]) -> int:
    """A descriptor of a directory below a root; the root itself may be reached by links."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in names:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=descriptor)
        except FileNotFoundError:
            raise Refused("there is no such directory") from None
        except OSError:
            raise Refused("it is no directory, or there is a link on the way") from None
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _read(directory: int, above: str, found: dict[str, bytes]) -> None:
    """Add what lies in a directory, whose descriptor is closed."""
    try:
        for name in sorted(os.listdir(directory)):
            path = f"{above}{name}"
            check_bounds(found, path)
            kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind):
                if name not in _LEFT_OUT:
                    _read(os.open(name, _DIRECTORY, dir_fd=directory), f"{path}/", found)
                continue
            found[path] = _content(name, directory)
            check_bounds(found, path)
    finally:
        os.close(directory)


def _content(name: str, directory: int) -> bytes:
    try:
        descriptor = os.open(name, _FILE, dir_fd=directory)
    except OSError:
        raise Refused("it holds a link or a device") from None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        told = os.fstat(file.fileno())
        if not _is_own(told):
            raise Refused("it holds a link or a device")
        return file.read(FILE_MAX + 1)


def _is_own(told: os.stat_result) -> bool:
    """A regular file that has no second name, for that may be the name of something elsewhere."""
    return stat.S_ISREG(told.st_mode) and told.st_nlink == 1


def check_bounds(found: Bundle, path: str) -> None:
    """Whether what was read so far, `path` last, is within the limits. Raises Refused."""
    if path.count("/") > 16:
        raise Refused("its directories are too deep")
    if len(found) > FILES_MAX:
        raise Refused(f"it has more than {FILES_MAX} files")
    if len(found.get(path, b"")) > FILE_MAX:
        raise Refused(f"a file has more than {FILE_MAX} bytes")
    if sum(map(len, found.values())) > BUNDLE_MAX:
        raise Refused(f"it has more than {BUNDLE_MAX} bytes")


def checked(found: Bundle) -> Bundle:
    """The bundle, if its limits and names hold. Raises Refused."""
    for path in found:
        check_bounds(found, path)
        try:
            check_path(path)
        except ArchiveRefused as refusal:
            raise Refused(str(refusal)) from None
    try:
        check_names(list(found))
    except ArchiveRefused as refusal:
        raise Refused(str(refusal)) from None
    return found


async def read_github(source: str, trees: Trees) -> Bundle:
    """The files of a folder, `https://github.com/<owner>/<repository>/tree/<ref>/<path>`; a ref may
    have slashes in it. Raises Refused."""
    owner, repository, named = _parsed(source)
    try:
        ref = await trees.ref(owner, repository, named)
        path = "/".join(named[ref.length :])
        folder = Folder(path, FILES_MAX, FILE_MAX, BUNDLE_MAX)
        found = await trees.folder(owner, repository, ref.sha, folder)
    except OutboundRefused:
        raise Refused("the server does not connect to this address") from None
    except (OutboundError, ArchiveRefused) as error:
        raise Refused(str(error)) from None
    if not found:
        raise Refused("there is no such folder in the repository")
    return checked(found)


def _parsed(source: str) -> tuple[str, str, list[str]]:
    """Owner, repository, and the names of ref and path. Raises Refused."""
    if not source.startswith(GITHUB) or any(c in source for c in "?#\\\x00"):
        raise Refused(f"a source on GitHub is an address below {GITHUB}")
    names = [unquote(name) for name in urlsplit(source).path.strip("/").split("/")]
    if len(names) < 4 or names[2] != "tree":
        raise Refused("the address names no tree: /<owner>/<repository>/tree/<ref>/<path>")
    owner, repository, _, *named = names
    if not _SEGMENT.fullmatch(owner) or not _SEGMENT.fullmatch(repository):
        raise Refused("the address names no repository")
    if any(name in ("", ".", "..") or "/" in name or not name.isprintable() for name in named):
        raise Refused("the address leads elsewhere")
    if repository in (".", "..") or owner in (".", ".."):
        raise Refused("the address leads elsewhere")
    return owner, repository, named
