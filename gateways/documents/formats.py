"""Documents as text, format by format. Runs in the parser's process alone.

Every reader takes a path and gives passages, each a text that chunks do not cross: a page, a
section, a mail. Raises Unreadable. Macros, links and external entities are never followed.
"""

import csv
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from email import message_from_binary_file, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from xml.parsers import expat

TEXT_MAX = 20_000_000
"""Characters of one document; more is refused."""
UNPACKED_MAX = 200 * 1024 * 1024
ENTRIES_MAX = 2000
RATIO_MAX = 100
RATIO_FROM = 1024 * 1024
"""Unpacked bytes below which the ratio says nothing."""
CELLS_MAX = 2_000_000

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


class Unreadable(Exception):
    """The document cannot be read; the text says why, and nothing of its content."""


def text(path: Path) -> Iterator[str]:
    yield decoded(path.read_bytes())


def markdown(path: Path) -> Iterator[str]:
    """One passage for each section, its headings before it."""
    trail: list[str] = []
    lines: list[str] = []
    fenced = False
    for line in decoded(path.read_bytes()).splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        heading = None if fenced else re.match(r"(#{1,6})\s+(.+?)\s*#*$", line)
        if heading is None:
            lines.append(line)
            continue
        if any(lines):
            yield _section(trail, lines)
        level = len(heading[1])
        trail = [*trail[: level - 1], heading[2]]
        lines = []
    if any(lines) or trail:
        yield _section(trail, lines)


def _section(trail: Sequence[str], lines: Sequence[str]) -> str:
    body = "\n".join(lines).strip()
    return f"{' › '.join(trail)}\n{body}" if trail else body


def html_page(path: Path) -> Iterator[str]:
    yield html_text(path.read_bytes())


def html_text(markup: bytes, charset: str = "") -> str:
    """A page's title and what it says, a line for each block."""
    from gateways import html_text as page

    title, said = page.html_text(markup, charset)
    return f"{title}\n{said}" if title else said


def pdf(path: Path) -> Iterator[str]:
    """One passage for each page."""
    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(path, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("the document is encrypted")
        for page in reader.pages:
            yield page.extract_text() or ""
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Unreadable(f"not a PDF that can be read ({type(error).__name__})") from None


def docx(path: Path) -> Iterator[str]:
    """The body's paragraphs, cells of a table's row side by side."""
    with checked(path) as archive:
        content = _member(archive, "word/document.xml")
    lines: list[str] = []
    pieces: list[str] = []
    inside = 0

    def begin(name: str, _attributes: Mapping[str, str]) -> None:
        nonlocal inside
        if name == _WORD + "t":
            inside += 1
        elif name in (_WORD + "tab", _WORD + "tc"):
            pieces.append("\t" if name.endswith("tab") else " ")
        elif name in (_WORD + "br", _WORD + "cr"):
            pieces.append("\n")

    def end(name: str) -> None:
        nonlocal inside
        if name == _WORD + "t":
            inside -= 1
        elif name == _WORD + "p":
            lines.append("".join(pieces).strip())
            pieces.clear()

    def said(data: str) -> None:
        if inside:
            pieces.append(data)

    parse_xml(content, begin, end, said)
    yield "\n".join(line for line in lines if line)


def table(path: Path) -> Iterator[str]:
    """CSV: rows as lines, each cell after its column's name."""
    yield from _told(rows_of_csv(path))


def workbook(path: Path) -> Iterator[str]:
    """XLSX and XLS: one passage for each sheet."""
    for name, rows in sheets(path):
        told = "\n".join(_told(iter(rows)))
        if told:
            yield f"{name}\n{told}"


def _told(rows: Iterator[list[str]]) -> Iterator[str]:
    names: list[str] | None = None
    lines: list[str] = []
    for row in rows:
        if not any(row):
            continue
        if names is None:
            names = row
            continue
        cells = [
            f"{names[i]}: {cell}" if i < len(names) and names[i] else cell
            for i, cell in enumerate(row)
            if cell
        ]
        lines.append("; ".join(cells))
    if names is not None:
        yield "\n".join(lines or ["; ".join(cell for cell in names if cell)])


def mail(path: Path) -> Iterator[str]:
    """The subject, who wrote to whom and when, and the text; attachments by name alone."""
    with path.open("rb") as file:
        message = message_from_binary_file(file, policy=policy.default)
    if not isinstance(message, EmailMessage) or not message.keys():
        raise Unreadable("not a mail")
    heads = [f"{name}: {message[name]}" for name in ("Subject", "From", "To", "Date")
             if message[name]]  # fmt: skip
    body = message.get_body(("plain", "html"))
    said = ""
    if body is not None:
        content = body.get_content()
        said = (
            html_text(content.encode(), "utf-8")
            if body.get_content_subtype() == "html"
            else content
        )
    names = [part.get_filename() for part in message.iter_attachments() if part.get_filename()]
    if names:
        heads.append(f"Attachments: {', '.join(map(str, names))}")
    yield "\n".join(heads) + "\n\n" + said.strip()


def questions(path: Path, suffix: str) -> Iterator[str]:
    """A table of questions and answers: one passage for each row, from the first two columns.

    Raises Unreadable where a row has fewer than two columns, or there is no row. A first row that
    only names the columns is left out.
    """
    tables = [rows_of_csv(path)] if suffix == ".csv" else [iter(rows) for _, rows in sheets(path)]
    found = False
    for rows in tables:
        for number, row in enumerate(rows):
            if not any(row):
                continue
            if len(row) < 2:
                raise Unreadable("a table of questions needs two columns, question and answer")
            question, answer = row[0], row[1]
            if number == 0 and question.lower() in _HEADINGS:
                continue
            if question and answer:
                found = True
                yield f"Q: {question}\nA: {answer}"
    if not found:
        raise Unreadable("there is no row with a question and an answer")


_HEADINGS = frozenset({"question", "questions", "q", "问题", "问", "提问"})


def rows_of_csv(path: Path) -> Iterator[list[str]]:
    content = decoded(path.read_bytes())
    try:
        dialect: Any = csv.Sniffer().sniff(content[:8192], ",;\t|")
    except csv.Error:
        dialect = csv.excel
    csv.field_size_limit(TEXT_MAX)
    try:
        for row in csv.reader(content.splitlines(keepends=True), dialect):
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise Unreadable(f"not a CSV that can be read: {error}") from None


def sheets(path: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """The sheets of an XLSX or XLS workbook: name, and rows of cells as text."""
    from python_calamine import CalamineError, CalamineWorkbook

    with path.open("rb") as file:
        packed = file.read(4) == b"PK\x03\x04"
    if packed:
        checked(path).close()
    cells = 0
    try:
        with CalamineWorkbook.from_path(path) as book:
            for name in book.sheet_names:
                rows = []
                for row in book.get_sheet_by_name(name).iter_rows():
                    cells += len(row)
                    if cells > CELLS_MAX:
                        raise Unreadable("the workbook has too many cells")
                    rows.append([_cell(value) for value in row])
                yield name, rows
    except (CalamineError, OSError, ValueError) as error:
        raise Unreadable(f"not a workbook that can be read ({type(error).__name__})") from None


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def decoded(content: bytes) -> str:
    """Text by its byte order mark, as UTF-8, else as GB 18030, else as Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "gb18030", "cp1252")
    if b"\0" in content[:4096] and encodings[0] != "utf-16":
        raise Unreadable("not a text")
    for encoding in encodings:
        try:
            return content.decode(encoding).replace("\0", "")
        except UnicodeDecodeError:
            continue
    raise Unreadable("not a text in an encoding that is known")


def checked(path: Path) -> zipfile.ZipFile:
    """An OOXML package within bounds (rules, "Limits"): entries, bytes, ratio, no duplicates."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise Unreadable("not a package that can be read") from None
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if len(entries) > ENTRIES_MAX or len({e.filename for e in entries}) != len(entries):
        raise Unreadable("the package has too many entries, or one twice")
    if any(entry.flag_bits & 1 for entry in entries):
        raise Unreadable("the document is encrypted")
    if total > UNPACKED_MAX or (total > RATIO_FROM and total > RATIO_MAX * max(packed, 1)):
        raise Unreadable("the package unpacks to too much")
    for entry in entries:
        if entry.filename.lower().endswith((".xml", ".rels")):
            _refuse_doctype(archive, entry)
    return archive


def _refuse_doctype(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """No part of an OOXML package may declare a document type (ECMA-376 part 2, §6.1.4). Read as
    far as the part's first element, which any declaration comes before (XML 1.0 §2.8)."""
    parser = expat.ParserCreate()
    is_begun = False

    def begin(*_: Any) -> None:
        nonlocal is_begun
        is_begun = True

    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = _declared
    try:
        with archive.open(entry) as file:
            while not is_begun and (part := file.read(4096)):
                parser.Parse(part, False)
    except expat.ExpatError as error:
        raise Unreadable(f"the package holds broken XML: {error}") from None
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError):
        raise Unreadable("the package is damaged") from None


def _declared(*_: Any) -> None:
    raise Unreadable("the package declares a document type")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as file:
            content = file.read(UNPACKED_MAX + 1)
    except KeyError:
        raise Unreadable("the package lacks its document") from None
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError):
        raise Unreadable("the package is damaged") from None
    if len(content) > UNPACKED_MAX:
        raise Unreadable("the package unpacks to too much")
    return content


def parse_xml(
    content: bytes,
    begin: Callable[[str, Mapping[str, str]], None],
    end: Callable[[str], None],
    said: Callable[[str], None],
) -> None:
    """Parse XML that declares no document type; names come as `{namespace}local`."""
    parser = expat.ParserCreate(namespace_separator="}")

    parser.StartDoctypeDeclHandler = _declared
    parser.StartElementHandler = lambda name, attributes: begin(_qualified(name), attributes)
    parser.EndElementHandler = lambda name: end(_qualified(name))
    parser.CharacterDataHandler = said
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise Unreadable(f"the package holds broken XML: {error}") from None


def _qualified(name: str) -> str:
    return "{" + name if "}" in name else name


READERS: Mapping[str, Callable[[Path], Iterator[str]]] = {
    ".pdf": pdf,
    ".docx": docx,
    ".xlsx": workbook,
    ".xls": workbook,
    ".csv": table,
    ".html": html_page,
    ".htm": html_page,
    ".md": markdown,
    ".markdown": markdown,
    ".txt": text,
    ".log": text,
    ".json": text,
    ".eml": mail,
}
