"""The one reader of ZIP archives that people send (APPNOTE.TXT 6.3.10).

An archive is taken whole or refused whole. Everything that its directory says is checked before
the first byte is unpacked, everything else while it is; nothing here writes to the disk. Two
readers can see two things in one crooked archive, so what could be read in two ways is refused.
"""

import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from gateways.errors import GatewayError

CHUNK = 256 * 1024
NAME_MAX = 255
PATH_MAX = 1024
DEPTH_MAX = 16
SMALL = 64 * 1024
"""Bytes of an entry that may be packed at any ratio."""

_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_SIZES_FOLLOW = 0x8
_ENDINGS = (
    ".zip", ".jar", ".war", ".apk", ".whl", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz",
    ".zst", ".lz4", ".cab", ".iso",
)  # fmt: skip
_SIGNATURES = (
    b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh",
    b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"MSCF",
)  # fmt: skip
_TAR = (257, b"ustar")


class ArchiveRefused(GatewayError):
    """The archive is not taken; the text says why, and is fit to be shown."""


class Bounds(msgspec.Struct, frozen=True):
    """How much an archive may hold. `ratio` is unpacked by packed bytes, of the whole and of each
    entry."""

    unpacked: int = 200 * 1024 * 1024
    entries: int = 2000
    ratio: int = 100


class Entry(msgspec.Struct, frozen=True):
    """A file of an archive: its path with `/`, safe on every system, and its size in bytes."""

    path: str
    size: int


class Archive:
    """A ZIP archive whose directory holds. `entries` are its files in order, without folders.

    Raises ArchiveRefused. `file` stays open as long as this is used, and is the caller's.
    """

    def __init__(self, file: BinaryIO, bounds: Bounds | None = None) -> None:
        bounds = bounds or Bounds()
        try:
            length, start, count = _end_record(file, bounds)
            self._zip = zipfile.ZipFile(file)
            infos = self._zip.infolist()
            if len(infos) != count:
                raise ArchiveRefused("its directory does not hold what it says")
            _check_places(file, infos, start)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
            raise ArchiveRefused("it is no ZIP archive that can be read") from None
        files = [info for info in infos if _checked(info, bounds)]
        _check_amount(files, length, bounds)
        check_names([info.orig_filename for info in infos])
        self._infos = {info.orig_filename: info for info in files}
        self.entries: Sequence[Entry] = tuple(
            Entry(info.orig_filename, info.file_size) for info in files
        )

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """The bytes of a file, at most 256 KiB at a time. Raises ArchiveRefused where they are
        not what the directory says, or are an archive themselves."""
        read = 0
        try:
            with self._zip.open(self._infos[entry.path]) as source:
                while chunk := source.read(CHUNK):
                    if not read and _is_archive(chunk):
                        raise ArchiveRefused("it holds another archive")
                    read += len(chunk)
                    yield chunk
        except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, RuntimeError):
            raise ArchiveRefused("a file of it is damaged") from None
        if read != entry.size:
            raise ArchiveRefused("a file of it is damaged")


def _end_record(file: BinaryIO, bounds: Bounds) -> tuple[int, int, int]:
    """The archive's length, where its directory starts, and how many entries that has (APPNOTE
    §4.3.16). Nothing may stand before the archive, behind it, or between directory and end."""
    length = file.seek(0, 2)
    tail_at = file.seek(max(0, length - _END.size - 0xFFFF))
    tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        raise ArchiveRefused("it is no ZIP archive")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(tail, found)
    if disk or first_disk or here != count or 0xFFFF in (here, count):
        raise ArchiveRefused("it is in several parts, or in the 64-bit format")
    if count > bounds.entries:
        raise ArchiveRefused(f"it has more than {bounds.entries} entries")
    if found + _END.size + comment != len(tail) or start + size != tail_at + found:
        raise ArchiveRefused("its directory is not where it should be")
    return length, start, count


def _check_places(file: BinaryIO, infos: Sequence[zipfile.ZipInfo], directory: int) -> None:
    """Every entry has a place of its own, and its own header says what the directory says."""
    at = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset != at:
            raise ArchiveRefused("its entries overlap, or leave gaps")
        file.seek(at)
        (signature, _, flags, method, _, _, crc, packed, size, name, extra) = _LOCAL.unpack(
            file.read(_LOCAL.size)
        )
        told = (crc, packed, size) == (info.CRC, info.compress_size, info.file_size)
        follows = bool(flags & _SIZES_FOLLOW)
        if (
            signature != b"PK\x03\x04"
            or flags != info.flag_bits
            or method != info.compress_type
            or not (told or (follows and not (crc or packed or size)))
        ):
            raise ArchiveRefused("its directory and its entries contradict each other")
        at += _LOCAL.size + name + extra + info.compress_size
        if follows:
            at += _descriptor(file, at)
    if at != directory:
        raise ArchiveRefused("its entries overlap, or leave gaps")


def _descriptor(file: BinaryIO, at: int) -> int:
    """Bytes of the data descriptor at a place: its signature may be left out (APPNOTE §4.3.9)."""
    file.seek(at)
    return 16 if file.read(4) == b"PK\x07\x08" else 12


def _checked(info: zipfile.ZipInfo, bounds: Bounds) -> bool:
    """Whether an entry is a file and no folder. Raises ArchiveRefused."""
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveRefused("it is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveRefused("it is packed by a method other than deflate")
    name = info.orig_filename
    is_folder = name.endswith("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
        raise ArchiveRefused("it holds a link or a device")
    if is_folder and info.file_size:
        raise ArchiveRefused("a folder of it has content")
    check_path(name.removesuffix("/"))
    if not is_folder and name.lower().endswith(_ENDINGS):
        raise ArchiveRefused("it holds another archive")
    if info.file_size > max(SMALL, bounds.ratio * info.compress_size):
        raise ArchiveRefused(f"it unpacks to more than {bounds.ratio} times its size")
    return not is_folder


def check_path(path: str) -> None:
    """A path is one on every system, and leads nowhere else. Raises ArchiveRefused."""
    parts = path.split("/")
    if len(path.encode("utf-8", "surrogatepass")) > PATH_MAX or len(parts) > DEPTH_MAX:
        raise ArchiveRefused("a name in it is too long")
    for part in parts:
        if part in ("", ".", "..") or part != part.strip(" ").rstrip("."):
            raise ArchiveRefused("a name in it leads elsewhere")
        if len(part.encode("utf-8", "surrogatepass")) > NAME_MAX:
            raise ArchiveRefused("a name in it is too long")
        if any(each in '\\:*?"<>|' or unicodedata.category(each)[0] == "C" for each in part):
            raise ArchiveRefused("a name in it has characters that names do not have")


def check_names(names: Sequence[str]) -> None:
    """No two names that a file system could take for one, and no file that is a folder, too.
    Raises ArchiveRefused."""
    taken: set[str] = set()
    files: set[str] = set()
    above: set[str] = set()
    for name in names:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())
        bare = key.removesuffix("/")
        if bare in taken:
            raise ArchiveRefused("two names in it are the same, or differ in case alone")
        taken.add(bare)
        if bare == key:
            files.add(bare)
        parts = bare.split("/")
        above.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    if files & above:
        raise ArchiveRefused("a name in it is a file and a folder")


def _check_amount(files: Sequence[zipfile.ZipInfo], length: int, bounds: Bounds) -> None:
    total = sum(info.file_size for info in files)
    if total > bounds.unpacked:
        raise ArchiveRefused(f"it unpacks to more than {bounds.unpacked} bytes")
    if total > max(SMALL, bounds.ratio * length):
        raise ArchiveRefused(f"it unpacks to more than {bounds.ratio} times its size")


def _is_archive(beginning: bytes) -> bool:
    offset, mark = _TAR
    return beginning.startswith(_SIGNATURES) or beginning[offset : offset + len(mark)] == mark
