"""Web search through a provider the operator names.

`WEB_SEARCH_URL` is a URL with `{query}` in it, asked with GET; it answers JSON in this shape:

    {"results": [{"title": "…", "url": "https://…", "content": "…"}, …]}

which is what SearXNG answers at `https://searx.example/search?q={query}&format=json`. `snippet`
and `description` are read for `content`, `link` and `href` for `url`, and a list alone is taken
for `results`. `WEB_SEARCH_KEY`, where set, is sent as a bearer token.
"""

import re
from typing import Any
from urllib.parse import quote

import msgspec

from gateways.errors import OutboundError, SearchFailed, SearchUnavailable
from gateways.outbound import Outbound

PURPOSE = "search"
MAX_BYTES = 2 * 1024 * 1024
TIMEOUT_S = 15.0
MAX_QUERY = 1000
MAX_CONTENT = 1000

_SPACE = re.compile(r"\s+")


class Found(msgspec.Struct, frozen=True):
    """One result; texts are on one line, `content` has at most 1000 characters."""

    title: str
    url: str
    content: str


class WebSearch:
    """Asks the configured provider."""

    def __init__(self, outbound: Outbound, url: str = "", key: str = "") -> None:
        """`url` is the template, "" when no provider is configured. Raises ValueError for a
        template without `{query}`."""
        if url and "{query}" not in url:
            raise ValueError("WEB_SEARCH_URL holds no {query}")
        self._outbound = outbound
        self._url = url
        self._key = key

    @property
    def configured(self) -> bool:
        return bool(self._url)

    async def search(self, query: str, limit: int = 10) -> list[Found]:
        """The first `limit` results with an http or https address, in the provider's order.

        Raises SearchUnavailable (none is configured) and SearchFailed.
        """
        if not self._url:
            raise SearchUnavailable("no search provider is configured")
        headers = {"accept": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            answer = await self._outbound.fetch(
                PURPOSE,
                self._url.replace("{query}", quote(query[:MAX_QUERY], safe="", errors="replace")),
                headers=headers,
                max_bytes=MAX_BYTES,
                timeout=TIMEOUT_S,
            )
        except OutboundError as error:
            raise SearchFailed(f"the search provider cannot be asked: {error}") from None
        if answer.status != 200:
            raise SearchFailed(f"the search provider answered with status {answer.status}")
        return list(_results(answer.body))[:limit]


def _results(body: bytes) -> list[Found]:
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise SearchFailed("the search provider did not answer with JSON") from None
    items = data.get("results") if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise SearchFailed("the search provider answered without a list of results")
    found = (_found(item) for item in items if isinstance(item, dict))
    return [result for result in found if result.url.startswith(("http://", "https://"))]


def _found(item: dict[str, Any]) -> Found:
    url = _first(item, "url", "link", "href")
    content = _first(item, "content", "snippet", "description")[:MAX_CONTENT].rstrip()
    return Found(_first(item, "title") or url, url, content)


def _first(item: dict[str, Any], *names: str) -> str:
    for name in names:
        if isinstance(value := item.get(name), str) and value:
            return _SPACE.sub(" ", value).strip()
    return ""
