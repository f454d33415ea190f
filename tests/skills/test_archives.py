"""Archives that are taken, and those that are refused whole (security 32)."""

import io
import random
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable

import pytest

from gateways.archives import Archive, ArchiveRefused, Bounds
from tests.skills.packing import packed

NOISE = random.Random(7).randbytes(300_000)


def read(content: bytes, bounds: Bounds | None = None) -> dict[str, bytes]:
    archive = Archive(io.BytesIO(content), bounds)
    return {entry.path: b"".join(archive.chunks(entry)) for entry in archive.entries}


def with_info(
    change: Callable[[zipfile.ZipInfo], None], name: str = "a", body: bytes = b"a"
) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o100644 << 16
        change(info)
        archive.writestr(info, body)
    return made.getvalue()


def of_kind(kind: int) -> bytes:
    return with_info(
        lambda info: setattr(info, "external_attr", (kind | 0o777) << 16), body=b"/etc"
    )


def flagged(bits: int) -> bytes:
    """The archive with flags set in both headers, as an encrypting writer sets them."""
    content = bytearray(packed({"a": b"a"}))
    for at in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
        content[at : at + 2] = struct.pack("<H", bits)
    return bytes(content)


def doubled(*names: str) -> bytes:
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w") as archive:
        warnings.simplefilter("ignore")
        for name in names:
            archive.writestr(name, name)
    return made.getvalue()


def changed(where: bytes, offset: int, value: bytes, content: bytes | None = None) -> bytes:
    """An archive with bytes overwritten, counted from the last place of a signature."""
    made = bytearray(content or packed({"a.txt": b"abc", "b.txt": b"def"}))
    at = made.rfind(where) + offset
    made[at : at + len(value)] = value
    return bytes(made)


def overlapping() -> bytes:
    """Two directory entries over the bytes of one (D. Fifield, "A better zip bomb")."""
    content = packed({"a.txt": NOISE})
    start = content.find(b"PK\x01\x02")
    end = content.rfind(b"PK\x05\x06")
    entry = content[start:end]
    second = entry[:46] + b"b.txt" + entry[51:]
    size = len(entry) * 2
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, size, start, 0)
    return content[:start] + entry + second + tail


def tarred() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return made.getvalue()


def names(*given: str) -> bytes:
    return packed(dict.fromkeys(given, b"x"))


ZERO = bytes(40 * 1024 * 1024)
CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"

CORPUS: dict[str, Callable[[], bytes]] = {
    "empty file": lambda: b"",
    "no archive": lambda: b"MZ" + NOISE,
    "text": lambda: b"---\nname: a\n---\n",
    "tar": tarred,
    "slip": lambda: names("../evil"),
    "slip within": lambda: names("a/../../evil"),
    "slip that stays within": lambda: names("a/../b"),
    "absolute": lambda: names("/etc/cron.d/evil"),
    "drive": lambda: names("C:/evil"),
    "stream of a file": lambda: names("a.txt:evil"),
    "backslashes": lambda: names("..\\evil"),
    "empty segment": lambda: names("a//b"),
    "dot": lambda: names("./a"),
    "trailing dot": lambda: names("a./b"),
    "trailing space": lambda: names("a /b"),
    "NUL": lambda: changed(
        CENTRAL, 46, b"a\0txt", changed(LOCAL, 30, b"a\0txt", packed({"a.txt": b"a"}))
    ),
    "control character": lambda: names("a\x1b[2J"),
    "right to left override": lambda: names("a\u202egpj.exe"),
    "long name": lambda: names("a" * 256),
    "long path": lambda: names("/".join(["a" * 200] * 6)),
    "deep": lambda: names("/".join("a" * 17)),
    "duplicates": lambda: doubled("SKILL.md", "SKILL.md"),
    "case clash": lambda: names("SKILL.md", "skill.md"),
    "case clash of folders": lambda: names("a/", "A"),
    "normal form clash": lambda: names("\u00e9", "e\u0301"),
    "file and folder": lambda: names("a", "a/b"),
    "file and folder by case": lambda: names("A", "a/b"),
    "symlink": lambda: of_kind(stat.S_IFLNK),
    "pipe": lambda: of_kind(stat.S_IFIFO),
    "device": lambda: of_kind(stat.S_IFBLK),
    "encrypted": lambda: flagged(0x1),
    "strongly encrypted": lambda: flagged(0x41),
    "masked directory": lambda: flagged(0x2000),
    "ratio": lambda: packed({"a": ZERO}),
    "ratio of one of many": lambda: packed({"a": bytes(2_000_000), "b": NOISE}),
    "many entries": lambda: packed({str(n): b"" for n in range(2001)}, method=zipfile.ZIP_STORED),
    "nested": lambda: packed({"a.zip": packed({"b": b"b"})}),
    "nested by another name": lambda: packed({"a.txt": packed({"b": b"b"})}),
    "nested tar": lambda: packed({"a.dat": tarred()}),
    "bzip2": lambda: packed({"a": b"a"}, method=zipfile.ZIP_BZIP2),
    "lzma": lambda: packed({"a": b"a"}, method=zipfile.ZIP_LZMA),
    "prefix": lambda: b"#!/bin/sh\n" + packed({"a": b"a"}),
    "suffix": lambda: packed({"a": b"a"}) + b"more",
    "cut": lambda: packed({"a": NOISE})[:-30],
    "count too small": lambda: changed(END, 8, struct.pack("<2H", 1, 1)),
    "count too large": lambda: changed(END, 8, struct.pack("<2H", 3, 3)),
    "several disks": lambda: changed(END, 4, struct.pack("<H", 1)),
    "64-bit": lambda: changed(END, 8, b"\xff" * 4),
    "directory elsewhere": lambda: changed(END, 16, struct.pack("<L", 3)),
    "directory of another length": lambda: changed(END, 12, struct.pack("<L", 20)),
    "size too small": lambda: changed(CENTRAL, 24, struct.pack("<L", 1)),
    "size too large": lambda: changed(CENTRAL, 24, struct.pack("<L", 1_000)),
    "packed size wrong": lambda: changed(CENTRAL, 20, struct.pack("<L", 1)),
    "other name in the entry": lambda: changed(LOCAL, 30, b"c.txt"),
    "other method in the entry": lambda: changed(LOCAL, 8, struct.pack("<H", 0)),
    "other place": lambda: changed(CENTRAL, 42, struct.pack("<L", 0)),
    "damaged checksum": lambda: changed(CENTRAL, 16, b"\0\0\0\0", changed(LOCAL, 14, b"\0\0\0\0")),
    "damaged content": lambda: changed(LOCAL, 35, b"\xff\xff"),
    "overlapping": overlapping,
}


@pytest.mark.parametrize("kind", CORPUS)
def test_refused(kind: str) -> None:
    with pytest.raises(ArchiveRefused) as refusal:
        read(CORPUS[kind]())
    assert str(refusal.value)


def test_unpacked_size_is_bounded() -> None:
    content = packed({"a": NOISE, "b": NOISE})
    assert read(content, Bounds(unpacked=600_000))
    with pytest.raises(ArchiveRefused, match="more than 599999 bytes"):
        read(content, Bounds(unpacked=599_999))


def test_every_cut_is_refused() -> None:
    content = packed({"a": b"abc", "b/c": b"def"})
    for length in range(len(content)):
        with pytest.raises(ArchiveRefused):
            read(content[:length])


def test_no_flipped_byte_gives_anything_else() -> None:
    """Whatever a byte is changed to, the archive is refused or gives names that are safe."""
    content = packed({"a": b"abc", "b/c": b"def"})
    rolls = random.Random(11)
    for at in range(len(content)):
        made = bytearray(content)
        made[at] ^= rolls.randrange(1, 256)
        try:
            found = read(bytes(made))
        except ArchiveRefused:
            continue
        assert all(".." not in path and not path.startswith("/") for path in found)
        assert set(found.values()) <= {b"abc", b"def", b""}


def streamed() -> bytes:
    """As written to a pipe: sizes follow the content."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

        def seek(self, *_: int) -> int:
            raise OSError

    made = Pipe()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", "abc")
        archive.writestr("b/c", "def")
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (packed({}), {}),
        (packed({"a": b"abc", "b/c": b"def"}), {"a": b"abc", "b/c": b"def"}),
        (packed({"b/": b"", "b/c": b""}), {"b/c": b""}),
        (packed({"说明/技能.md": "你好"}), {"说明/技能.md": "你好".encode()}),
        (packed({"a b.txt": b"x", ".hidden": b"y"}), {"a b.txt": b"x", ".hidden": b"y"}),
        (packed({"a": NOISE}, method=zipfile.ZIP_STORED), {"a": NOISE}),
        (streamed(), {"a": b"abc", "b/c": b"def"}),
    ],
    ids=["nothing", "two files", "folder", "Chinese", "spaces", "stored", "streamed"],
)
def test_taken(content: bytes, found: dict[str, bytes]) -> None:
    assert read(content) == found
