"""A web page as text, for a model to read."""

import asyncio

import msgspec

from gateways import html_text
from gateways.errors import PageUnreadable
from gateways.outbound import Fetched, Outbound

PURPOSE = "fetch"
MAX_BYTES = 4 * 1024 * 1024
TIMEOUT_S = 20.0
MAX_TEXT = 50_000
READERS = 2
"""Pages that are made into text at the same time; each large one has a process of its own."""

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
        self._readers = asyncio.Semaphore(READERS)

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
        async with self._readers:
            title, text = await _content(answer)
        return Page(answer.url, title, text[:max_text], len(text) > max_text)


async def _content(answer: Fetched) -> tuple[str, str]:
    """Title and text. Raises PageUnreadable."""
    kind = answer.media_type
    if kind in HTML_TYPES:
        try:
            return await html_text.read(answer.body, answer.charset)
        except html_text.TooIntricate:
            raise PageUnreadable("the page takes too much work to read") from None
    if not (kind.startswith("text/") or kind in TEXT_TYPES):
        raise PageUnreadable(f"the page is {kind or 'of no stated type'}, which is no text")
    if b"\0" in answer.body[:4096]:
        raise PageUnreadable("the page is not the text it claims to be")
    return "", html_text.decoded(answer.body, answer.charset)
