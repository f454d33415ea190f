"""Pages as text, from a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateways import html_text
from gateways.errors import OutboundRefused, OutboundTooLarge, PageUnreadable
from gateways.outbound import Outbound
from gateways.webpage import MAX_BYTES, WebPages
from tests.gateways.peer import Peer, plain

HTML = """<!doctype html><html><head><title> The
 title </title><style>p{color:red}</style><script>alert("no")</script></head>
<body><h1>Heading</h1><p>One <b>bold</b> word &amp; a&nbsp;link: <a href=/x>here</a>.</p>
<ul><li>first</li><li>second</li></ul><table><tr><td>a</td><td>b</td></tr></table>
<noscript>no</noscript><template>no</template><svg><text>no</text></svg><!-- no -->
<p>line<br>break</p><iframe srcdoc="no">no</iframe></body></html>"""


@pytest.fixture
async def pages() -> AsyncIterator[WebPages]:
    outbound = Outbound(["fetch=127.0.0.1"])
    yield WebPages(outbound)
    await outbound.close()


async def test_the_visible_text_of_html(pages: WebPages, peer: Peer) -> None:
    peer.routes["/from"] = plain(302, location="/page")
    peer.routes["/page"] = plain(body=HTML, media_type="text/html; charset=utf-8")
    page = await pages.read(peer.url + "/from")
    assert page.url == peer.url + "/page"
    assert page.title == "The title"
    lines = page.text.split("\n")
    assert lines[:4] == ["Heading", "One bold word & a link: here.", "first", "second"]
    assert lines[-2:] == ["line", "break"]
    assert "no" not in page.text.split()
    assert not page.truncated


@pytest.mark.parametrize(
    ("body", "media_type", "text"),
    [
        ("<p>世界".encode("gbk"), "text/html; charset=gbk", "世界"),
        (b'<meta charset="shift_jis"><p>' + "世界".encode("shift_jis"), "text/html", "世界"),
        ("<p>世界".encode(), "text/html; charset=unknown-9", "世界"),
        (b"<p>a\xff\xfeb", "text/html", "a\ufffd\ufffdb"),
        (b"", "text/html", ""),
        (b"<" * 1000, "text/html", "<" * 1000),
        (b"<div>" * 20_000 + b"deep", "text/html", "deep"),
        ("plain\ntext é".encode(), "text/plain", "plain\ntext é"),
        (b'{"a": 1}', "application/json", '{"a": 1}'),
    ],
)
async def test_charsets_and_broken_documents(
    pages: WebPages, peer: Peer, body: bytes, media_type: str, text: str
) -> None:
    peer.routes["/"] = plain(body=body, media_type=media_type)
    assert (await pages.read(peer.url + "/")).text == text


async def test_long_pages_are_cut(pages: WebPages, peer: Peer) -> None:
    peer.routes["/"] = plain(body="word " * 1000)
    page = await pages.read(peer.url + "/", max_text=9)
    assert (page.text, page.truncated) == ("word word", True)
    peer.routes["/huge"] = plain(body=b"x" * (MAX_BYTES + 1))
    with pytest.raises(OutboundTooLarge):
        await pages.read(peer.url + "/huge")


@pytest.mark.parametrize(
    "answer",
    [
        plain(404, "<p>not here", "text/html"),
        plain(500, "x"),
        plain(200, b"\x89PNG", "image/png"),
        plain(200, b"x", "application/octet-stream"),
        plain(200, b"x", ""),
        plain(200, b"PK\x03\x04\0\0", "text/plain"),
    ],
)
async def test_what_is_no_text_is_not_shown(pages: WebPages, peer: Peer, answer: bytes) -> None:
    peer.routes["/"] = answer
    with pytest.raises(PageUnreadable):
        await pages.read(peer.url + "/")


async def test_inside_is_not_read(peer: Peer) -> None:
    outbound = Outbound()
    with pytest.raises(OutboundRefused):
        await WebPages(outbound).read(peer.url + "/")
    await outbound.close()
    assert peer.connections == 0


async def test_a_page_built_to_be_slow_holds_nobody_up(
    pages: WebPages, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_text, "TIME_S", 0.5)
    peer.routes["/"] = plain(body=b"<ul><li>" * 400_000, media_type="text/html")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(PageUnreadable):
        await pages.read(peer.url + "/")
    ticking.cancel()
    assert ticks > 5
