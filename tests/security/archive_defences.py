"""Archives and documents that people send: attacks by what is in them (checklist 32, 33)."""

import contextlib
import io
import shutil
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest import mock
from xml.parsers import expat

from gateways import archives
from gateways.archives import Bounds
from gateways.documents import formats
from tests.knowledge.test_formats import docx, xlsx
from tests.knowledge.test_formats import packed as package
from tests.security import asgi
from tests.security.defences import without
from tests.security.place import Place, unique
from tests.skills.packing import packed, skill_md
from tests.skills.test_archives import CENTRAL, LOCAL, NOISE, changed, tarred

ARCHIVES = "gateways.archives"
FORMATS = "gateways.documents.formats"


async def uploaded(place: Place, archive: bytes) -> Any:
    part = ("file", "skill.zip", archive)
    return await place.owner.ask("POST", "/api/skills/upload", **asgi.form(part))


def kept(place: Place) -> set[Path]:
    """Everything that the server has on its disk for skills, and beside the data directory."""
    return {*(place.data / "skills").rglob("*"), *place.data.parent.iterdir()}


async def refused(place: Place, *found: bytes) -> None:
    """Each archive is refused whole: no skill of it, no byte on the disk."""
    before = kept(place)
    for archive in found:
        reply = await uploaded(place, archive)
        assert kept(place) == before, "files of a refused archive are left"
        assert reply.http == 400, reply


def skill(files: dict[str, str | bytes], **options: Any) -> bytes:
    """A skill that would be taken, but for what stands beside its SKILL.md."""
    return packed({"SKILL.md": skill_md(unique("crooked")), **files}, **options)


def special(kind: int) -> bytes:
    """A skill with an entry of a kind that is no file."""
    made = io.BytesIO(skill({}))
    with zipfile.ZipFile(made, "a") as archive:
        info = zipfile.ZipInfo("a")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    return made.getvalue()


def flagged(bits: int) -> bytes:
    """A skill that is marked as encrypted, in both headers of its SKILL.md."""
    content = bytearray(packed({"SKILL.md": skill_md(unique("crooked"))}))
    for at in (content.find(LOCAL) + 6, content.find(CENTRAL) + 8):
        content[at : at + 2] = struct.pack("<H", bits)
    return bytes(content)


def gapped() -> bytes:
    """A skill with bytes between its entries and its directory that no directory tells of."""
    content = skill({})
    start = content.rfind(CENTRAL)
    hidden = b"another reader sees these"
    end = bytearray(content[start:])
    at = end.rfind(b"PK\x05\x06") + 16
    end[at : at + 4] = struct.pack("<L", start + len(hidden))
    return content[:start] + hidden + bytes(end)


@without(32, paths={f"{ARCHIVES}:check_path": lambda path: None})
async def no_entry_leads_out_of_its_skill(place: Place) -> None:
    for name in (
        "../evil", "a/../../evil", "/etc/cron.d/evil", "C:/evil", "..\\evil", "a//b", "a./b",
        "a /b", "a\x1b[2J", "a\u202egpj.exe", "x" * 256, "/".join("a" * 17),
    ):  # fmt: skip
        await refused(place, skill({name: b"x"}))


@without(32, names={f"{ARCHIVES}:check_names": lambda names: None})
async def no_two_names_are_one_file(place: Place) -> None:
    for names in (("a", "a"), ("a", "A"), ("\u00e9", "e\u0301"), ("a", "a/b"), ("A", "a/b")):
        made = io.BytesIO(skill({}))
        with warnings.catch_warnings(), zipfile.ZipFile(made, "a") as archive:
            warnings.simplefilter("ignore")
            for name in names:
                archive.writestr(name, b"x")
        await refused(place, made.getvalue())


_NO_KINDS = SimpleNamespace(S_IFMT=lambda mode: 0, S_IFDIR=stat.S_IFDIR, S_IFREG=stat.S_IFREG)


@without(31, archive={f"{ARCHIVES}:stat": _NO_KINDS})
async def an_archive_brings_no_link_and_no_device(place: Place) -> None:
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFSOCK):
        await refused(place, special(kind))


@without(
    32,
    flags={f"{ARCHIVES}:_ENCRYPTED": 0, "zipfile:_MASK_ENCRYPTED": 0},
)
async def no_encrypted_entry_is_taken(place: Place) -> None:
    await refused(place, flagged(0x1), flagged(0x2000))


@without(
    32,
    ratio={f"{ARCHIVES}:Bounds": partial(Bounds, ratio=10**9)},
)
async def what_unpacks_to_too_many_times_its_size_is_refused(place: Place) -> None:
    """A file of zeros, and one among files that are worth their size (42.zip)."""
    zeros = bytes(8 * 1024 * 1024)
    await refused(place, skill({"a": zeros}), skill({"a": zeros, "b": NOISE}))


@without(32, amount={f"{ARCHIVES}:_check_amount": lambda *_: None})
async def what_unpacks_to_too_much_is_refused(place: Place) -> None:
    with mock.patch.object(archives, "Bounds", partial(Bounds, unpacked=500_000)):
        await refused(place, skill({"a": NOISE, "b": NOISE}))


@without(32, entries={f"{ARCHIVES}:Bounds": partial(Bounds, entries=10**6)})
async def an_archive_has_so_many_entries(place: Place) -> None:
    many: dict[str, str | bytes] = {str(number): b"" for number in range(2_000)}
    await refused(place, skill(many, method=zipfile.ZIP_STORED))


@without(
    32,
    names={f"{ARCHIVES}:_ENDINGS": ()},
    content={f"{ARCHIVES}:_is_archive": lambda beginning: False},
)
async def no_archive_stands_in_an_archive(place: Place) -> None:
    inner = packed({"b": b"b"})
    await refused(place, skill({"a.zip": b"text"}), skill({"a.7z": b"text"}))
    await refused(place, skill({"a.txt": inner}), skill({"a.dat": tarred()}))


def _lax_end(file: Any, bounds: Bounds) -> tuple[int, int, int]:
    """As most readers do: what follows the archive is nobody's business."""
    content = file.seek(0) or file.read()
    at = content.rfind(b"PK\x05\x06")
    count, _, start = struct.unpack_from("<HLL", content, at + 10)
    return len(content), start, count


@without(
    32,
    end={f"{ARCHIVES}:_end_record": _lax_end},
    places={f"{ARCHIVES}:_check_places": lambda *_: None},
)
async def a_directory_tells_all_that_is_there(place: Place) -> None:
    """What could be read in two ways is refused: bytes behind the archive, or between its parts."""
    await refused(place, skill({}) + b"#!/bin/sh\n", gapped())


@without(32, checksum={"zipfile:ZipExtFile._update_crc": lambda self, data: None})
async def a_damaged_entry_is_not_taken(place: Place) -> None:
    wrong = changed(CENTRAL, 16, b"\0\0\0\0", skill({"a": b"abc"}))
    await refused(place, changed(LOCAL, 14, b"\0\0\0\0", wrong))


def _left(self: Any, skill_id: str) -> None:
    """What is on the disk stays there."""


@without(32, erasing={"storage.skill_files:SkillFiles.erase": _left})
async def what_was_unpacked_before_the_fault_is_gone(place: Place) -> None:
    before = kept(place)
    try:
        await refused(place, skill({"a": NOISE, "b": NOISE, "z.txt": packed({"b": b"b"})}))
    finally:
        for path in kept(place) - before:
            shutil.rmtree(path, ignore_errors=True)


# --- documents ----------------------------------------------------------------------------------

DECLARED = '<!DOCTYPE a [<!ENTITY e "expanded">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
LATE = " " * 5_000
"""More than what is looked at before a part is parsed."""


def _lax_xml(content: bytes, begin: Any, end: Any, said: Any) -> None:
    """As a parser does that nobody told otherwise."""
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = lambda name, attributes: begin("{" + name, attributes)
    parser.EndElementHandler = lambda name: end("{" + name)
    parser.CharacterDataHandler = said
    parser.Parse(content, True)


@contextlib.contextmanager
def written(content: bytes) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "document"
        path.write_bytes(content)
        yield path


def _unreadable(reader: Any, content: bytes) -> None:
    with written(content) as path:
        try:
            said = "".join(reader(path))
        except formats.Unreadable:
            return
    raise AssertionError(f"it was read: {said[:100]}")


@without(33, parser={f"{FORMATS}:parse_xml": _lax_xml, f"{FORMATS}:_refuse_doctype": _left})
async def a_document_declares_no_entities(place: Place) -> None:
    del place
    for declared in (DECLARED, LATE + DECLARED, OUTSIDE):
        _unreadable(formats.docx, docx("&e;", before=declared))


@without(33, parts={f"{FORMATS}:_refuse_doctype": _left})
async def no_part_of_a_package_declares_a_type(place: Place) -> None:
    """Also where what reads it would not look: nothing of it is expanded either way."""
    del place
    for declared in (DECLARED, LATE + DECLARED, OUTSIDE, f"<!--{LATE}-->{OUTSIDE}"):
        _unreadable(formats.workbook, xlsx(("told",), before=declared))


@without(33, amount={f"{FORMATS}:UNPACKED_MAX": 1 << 40, f"{FORMATS}:RATIO_MAX": 1 << 40})
async def a_package_unpacks_to_so_much(place: Place) -> None:
    del place
    _unreadable(formats.docx, docx("told", before=" " * 8_000_000))


@without(33, entries={f"{FORMATS}:ENTRIES_MAX": 10**6})
async def a_package_has_so_many_parts(place: Place) -> None:
    del place
    many = [(f"{number}.bin", b"") for number in range(2_000)]
    _unreadable(formats.docx, package(("word/document.xml", "<a/>"), *many))
