"""A web page as text, for a model to read."""

import re

import msgspec

from gateways.errors import PageUnreadable
from gateways.outbound import Fetched, Outbound

PURPOSE = "fetch"
MAX_BYTES = 4 * 1024 * 1024
TIMEOUT_S = 20.0
MAX_TEXT = 50_000

TEXT_TYPES = {
    "application/json",
    "application/xml",
    "application/javascript",
    "application/yaml",
    "application/x-yaml",
    "application/ld+json",
    "application/rss+xml",
    "application/atom+xml",
}
HTML_TYPES = {"text/html", "application/xhtml+xml"}

_NO_TEXT = ["script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "head"]
_BLOCKS = (
    "address, article, aside, blockquote, br, dd, div, dl, dt, figcaption, figure, footer, form, "
    "h1, h2, h3, h4, h5, h6, header, hr, li, main, nav, ol, p, pre, section, table, tr, ul"
)
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", re.IGNORECASE)
_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n[ \n]*")


class Page(msgspec.Struct, frozen=True):
    """What a page says. `truncated` when the text was longer than asked for."""

    url: str
    title: str
    text: str
    truncated: bool


class WebPages:
    """Reads pages through the outbound door."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def read(self, url: str, max_text: int = MAX_TEXT) -> Page:
        """The page at `url`, after redirects: of HTML the visible text, of other text all of it,
        cut to `max_text` characters.

        Raises OutboundRefused, OutboundFailed, OutboundTooLarge (over 4 MiB), PageUnreadable (a
        status other than 2xx, or no text).
        """
        answer = await self._outbound.fetch(
            PURPOSE,
            url,
            headers={"accept": "text/html, text/*;q=0.9, application/json;q=0.8"},
            max_bytes=MAX_BYTES,
            timeout=TIMEOUT_S,
        )
        if not 200 <= answer.status < 300:
            raise PageUnreadable(f"the page answered with status {answer.status}")
        title, text = _content(answer)
        return Page(answer.url, title, text[:max_text], len(text) > max_text)


def _content(answer: Fetched) -> tuple[str, str]:
    """Title and text. Raises PageUnreadable."""
    kind = answer.media_type
    if kind in HTML_TYPES:
        return html_text(answer.body, answer.charset)
    if not (kind.startswith("text/") or kind in TEXT_TYPES):
        raise PageUnreadable(f"the page is {kind or 'of no stated type'}, which is no text")
    if b"\0" in answer.body[:4096]:
        raise PageUnreadable("the page is not the text it claims to be")
    return "", _decode(answer.body, answer.charset)


def html_text(body: bytes, charset: str = "") -> tuple[str, str]:
    """The title and the visible text of an HTML document, one line per block."""
    from selectolax.lexbor import LexborHTMLParser

    declared = re.search(
        rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", body[:4096], re.IGNORECASE
    )
    known = charset or (declared.group(1).decode() if declared else "")
    document = LexborHTMLParser(_decode(body, known))
    title_node = document.css_first("title")
    title = _tidy(title_node.text()) if title_node is not None else ""
    document.strip_tags(_NO_TEXT, recursive=False)
    for block in document.css(_BLOCKS):
        block.insert_before("\n")
        block.insert_after("\n")
    root = document.body or document.root
    return title.replace("\n", " "), _tidy(root.text(deep=True) if root is not None else "")


def _decode(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset or "utf-8-sig", errors="replace")
    except LookupError:
        return body.decode("utf-8", errors="replace")


def _tidy(text: str) -> str:
    return _LINES.sub("\n", _SPACES.sub(" ", text.replace("\r", "\n"))).strip()
