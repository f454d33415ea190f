"""The visible text of an HTML document.

HTML's tree construction is quadratic in how deep elements nest (WHATWG HTML §13.2.6): 80 kB of
`<ul><li>` take over a second, 4 MiB the better part of an hour. So a document that is not small is
read by a process of its own, this file run as a script, which has CPU_S of processor time and
nothing of the server's: not its environment, its files or its memory.
"""

import asyncio
import codecs
import contextlib
import json
import re
import resource
import sys
from pathlib import Path

SMALL = 8 * 1024
"""Bytes of a document that the server reads itself: at worst 20 ms."""
CPU_S = 5
TIME_S = 15.0
MEMORY = 2 * 1024**3

_NO_TEXT = ["script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "head"]
_BLOCKS = (
    "address, article, aside, blockquote, br, dd, div, dl, dt, figcaption, figure, footer, form, "
    "h1, h2, h3, h4, h5, h6, header, hr, li, main, nav, ol, p, pre, section, table, tr, ul"
)
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", re.IGNORECASE)
_NO_CHARSETS = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}
"""Python's codecs that no page is written in; some of them make text that no store takes, or take
quadratic time."""
_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n[ \n]*")


class TooIntricate(Exception):
    """The document takes more work than a page may cost."""


async def read(body: bytes, charset: str = "") -> tuple[str, str]:
    """Title and text of a document, one line per block. Raises TooIntricate."""
    if len(body) <= SMALL:
        return html_text(body, charset)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", __file__, charset),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd=Path(__file__).anchor,
    )
    try:
        async with asyncio.timeout(TIME_S):
            answer, _ = await process.communicate(body)
    except TimeoutError:
        raise TooIntricate from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        raise TooIntricate
    title, text = json.loads(answer)
    return title, text


def html_text(body: bytes, charset: str = "") -> tuple[str, str]:
    """The same, here and now and however long it takes."""
    from selectolax.lexbor import LexborHTMLParser

    declared = _META_CHARSET.search(body[:4096])
    known = charset or (declared.group(1).decode() if declared else "")
    document = LexborHTMLParser(decoded(body, known))
    title_node = document.css_first("title")
    title = _tidy(title_node.text()) if title_node is not None else ""
    document.strip_tags(_NO_TEXT, recursive=False)
    for block in document.css(_BLOCKS):
        block.insert_before("\n")
        block.insert_after("\n")
    root = document.body or document.root
    return title.replace("\n", " "), _tidy(root.text(deep=True) if root is not None else "")


def decoded(body: bytes, charset: str) -> str:
    """Bytes as text; what does not decode is replaced, an unknown charset is UTF-8."""
    try:
        if charset and codecs.lookup(charset).name in _NO_CHARSETS:
            charset = "utf-8"
        return body.decode(charset or "utf-8-sig", errors="replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", errors="replace")


def _tidy(text: str) -> str:
    return _LINES.sub("\n", _SPACES.sub(" ", text.replace("\r", "\n"))).strip()


def main() -> None:
    """Standard input to JSON on standard output, within limits that the kernel keeps."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = html_text(sys.stdin.buffer.read(), sys.argv[1])
    # Lone surrogates cannot come out of a decoder that replaces, but JSON carries them anyway.
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
