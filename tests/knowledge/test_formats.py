"""Documents of every format, and documents made to break what reads them (security 30 to 34)."""

import asyncio
import io
import os
import select
import signal
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import xlwt

from gateways.documents.parser import DocumentUnreadable, Parser

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
ENTITY = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'


def packed(*entries: tuple[str, str | bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return made.getvalue()


def docx(*paragraphs: str, before: str = "") -> bytes:
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return packed(("word/document.xml", before + document))


def xlsx(*rows: tuple[str, ...], before: str = "") -> bytes:
    cells = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{cell}</t></is></c>' for cell in row) + "</row>"
        for row in rows
    )
    sheet = f'{before}<worksheet xmlns="{SHEET}"><sheetData>{cells}</sheetData></worksheet>'
    book = (
        f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}"><sheets>'
        '<sheet name="Prices" sheetId="1" r:id="r1"/></sheets></workbook>'
    )
    related = (
        f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1"'
        f' Type="{OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>'
    )
    root = related.replace(f"{OFFICE}/worksheet", f"{OFFICE}/officeDocument").replace(
        "worksheets/sheet1.xml", "xl/workbook.xml"
    )
    return packed(
        ("_rels/.rels", root),
        ("xl/workbook.xml", book),
        ("xl/_rels/workbook.xml.rels", related),
        ("xl/worksheets/sheet1.xml", sheet),
    )


def xls(*rows: tuple[str, ...]) -> bytes:
    book = xlwt.Workbook()
    sheet = book.add_sheet("Prices")
    for number, row in enumerate(rows):
        for place, cell in enumerate(row):
            sheet.write(number, place, cell)
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


def pdf(text: str) -> bytes:
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    made, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"%sxref\n0 6\n0000000000 65535 f \n%s" % (made, table)
    return b"%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (head, len(made))


MAIL = (
    b"From: ann@example.com\r\nTo: bob@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Content-Type: text/html; charset=utf-8\r\n\r\n"
    b"<p>The <b>tide</b> turns.</p><script>x()</script>"
)


async def read(
    content: bytes, suffix: str, kind: str = "file", parser: Parser | None = None
) -> str:
    parser = parser or Parser()
    try:
        return "\n".join(await parser.read(parts(content), suffix, kind))
    finally:
        await parser.close()


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        (".txt", "Grüße aus dem Süden".encode(), "Grüße aus dem Süden"),
        (".txt", "数据库".encode("gb18030"), "数据库"),
        (".txt", "wide".encode("utf-16"), "wide"),
        (".md", b"# One\n## Two\n```\n# no heading\n```\n", "One › Two\n```\n# no heading"),
        (".html", b"<title>T</title><p>tide</p><script>evil()</script>", "T\ntide"),
        (".csv", b"fruit;price\npear;3\n", "fruit: pear; price: 3"),
        (".docx", docx("The tide", "turns."), "The tide\nturns."),
        (".xlsx", xlsx(("fruit", "price"), ("pear", "3")), "Prices\nfruit: pear; price: 3"),
        (".xls", xls(("fruit", "price"), ("pear", "3")), "Prices\nfruit: pear; price: 3"),
        (".pdf", pdf("The tide turns."), "The tide turns."),
        (".eml", MAIL, "Subject: Grüße\nFrom: ann@example.com"),
    ],
)
async def test_every_format_gives_its_text(suffix: str, content: bytes, expected: str) -> None:
    found = await read(content, suffix)
    assert expected in found
    assert "evil" not in found
    assert "x()" not in found


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".csv", b"question,answer\nWhere?,Here.\n"),
        (".xlsx", xlsx(("question", "answer"), ("Where?", "Here."))),
        (".xls", xls(("Where?", "Here."))),
    ],
)
async def test_a_question_stays_with_its_answer(suffix: str, content: bytes) -> None:
    assert await read(content, suffix, "qa") == "Q: Where?\nA: Here."


BOMB = packed(("word/document.xml", b" " * 40_000_000))


@pytest.mark.parametrize(
    ("suffix", "content", "why"),
    [
        (".docx", BOMB, "unpacks to too much"),
        (".xlsx", BOMB, "unpacks to too much"),
        (".docx", packed(*((f"{n}.xml", b"") for n in range(2001))), "too many entries"),
        (".docx", docx("&e;", before=ENTITY), "document type"),
        (".docx", docx("a", before=" " * 5000 + ENTITY), "document type"),
        (".xlsx", xlsx(("&e;",), before=ENTITY), "document type"),
        (".xlsx", xlsx(("a",), before=" " * 5000 + ENTITY), "document type"),
        (".xlsx", xlsx(("a",), before=f"<!--{' ' * 5000}-->{ENTITY}"), "document type"),
        (".xlsx", packed(("xl/workbook.xml", "no element")), "broken XML"),
        (".docx", packed(("other.xml", b"<a/>")), "lacks its document"),
        (".docx", docx("a")[:-30], "package"),
        (".docx", b"not a package", "package"),
        (".pdf", b"%PDF-1.4 nothing more", "PDF"),
        (".xls", b"\xd0\xcf\x11\xe0" + b"\0" * 600, "workbook"),
        (".txt", b"\0\1\2\3", "not a text"),
        (".txt", b"  \n ", "no text"),
        (".eml", b"\xff\xfe", "mail"),
    ],
)
async def test_hostile_and_broken_documents_say_why(suffix: str, content: bytes, why: str) -> None:
    with pytest.raises(DocumentUnreadable, match=why):
        await read(content, suffix)


@pytest.mark.parametrize("content", [b"only one column\n", b"a,b\n,\n", b"question,answer\n"])
async def test_a_table_without_questions_is_refused(content: bytes) -> None:
    with pytest.raises(DocumentUnreadable, match=r"columns|no row|no text"):
        await read(content.replace(b"a,b\n", b""), ".csv", "qa")


async def test_a_reader_that_takes_too_long_is_killed() -> None:
    with pytest.raises(DocumentUnreadable, match="too long"):
        await read(b"text", ".txt", parser=Parser(seconds=0.001))


async def test_memory_is_limited() -> None:
    """A table of commas holds a hundred times its size in objects."""
    with pytest.raises(DocumentUnreadable, match=r"memory|breaks|too much|no text"):
        await read(b"," * 60_000_000, ".csv")


SLOW = b"," * 60_000_000
"""A table that takes seconds to read."""


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def parts(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def reading(parser: Parser) -> tuple[asyncio.Task[list[str]], int]:
    """The reading of a document that takes long, and its process."""
    task = asyncio.create_task(parser.read(parts(SLOW), ".csv", "file"))
    async with asyncio.timeout(30):
        while True:
            for forker in children(os.getpid()):
                command = Path(f"/proc/{forker}/cmdline").read_bytes()
                if b"documents.parser_process" in command and (found := children(forker)):
                    return task, found[0]
            await asyncio.sleep(0.01)


async def gone(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = await asyncio.to_thread(select.select, [process], [], [], 30)
    os.close(process)
    assert ended


async def test_a_reader_that_breaks_takes_nothing_along() -> None:
    parser = Parser(at_once=1)
    try:
        task, reader = await reading(parser)
        os.kill(reader, signal.SIGKILL)
        with pytest.raises(DocumentUnreadable, match="breaks"):
            await task
        assert await parser.read(parts(b"tide"), ".txt", "file") == ["tide"]
    finally:
        await parser.close()


@pytest.mark.parametrize("how", ["in time", "cancelled"])
async def test_a_reader_ends_with_its_reading(how: str) -> None:
    parser = Parser(at_once=1, seconds=5.0 if how == "in time" else 90.0)
    task, reader = await reading(parser)
    os.kill(reader, signal.SIGSTOP)
    if how == "cancelled":
        task.cancel()
    with pytest.raises((DocumentUnreadable, asyncio.CancelledError)):
        await task
    await gone(reader)
    await parser.close()


async def test_what_has_nothing_to_read_ends_and_comes_back() -> None:
    parser = Parser(at_once=1, idle_s=0.0)
    assert await parser.read(parts(b"tide"), ".txt", "file") == ["tide"]
    (forker,) = [each._process for each in parser._resting]
    await forker.wait()
    assert await parser.read(parts(b"turns"), ".txt", "file") == ["turns"]
    await parser.close()
