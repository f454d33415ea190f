"""A session's screen over a websocket: a real X server, programs that show there, and viewers that
speak RFB (RFC 6143): one of ours, and noVNC in a real browser."""

import asyncio
import contextlib
import sqlite3
import struct
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.browser import browsing
from tests.serving import Server
from tests.sessions.talking import SOON_S, Account, Place, plan, said, script, served

NOVNC = Path(__file__).parent / "novnc-novnc-1.7.0.tgz"
HOME = "/home/ubuntu/workspace"
MADE_UP = ("--disable-features=LocalNetworkAccessChecks",)
"""Chromium takes a page that a test makes up for one of another network."""
PAGE = """
<!doctype html><div id="screen" style="width:800px;height:600px"></div>
<script type="module">
  import RFB from "./package/core/rfb.js";
  const rfb = new RFB(document.getElementById("screen"), WHERE, {wsProtocols: ["binary"]});
  rfb.addEventListener("connect", () => { document.title = "connected"; });
  rfb.addEventListener("disconnect", (event) => { document.title = `left ${event.detail.clean}`; });
</script>
"""


def token(account: Account) -> str:
    return account.client.headers["authorization"].removeprefix("Bearer ")


def where(place: Place, session: str, bearer: str = "") -> str:
    base = place.server.url.replace("http://", "ws://")
    return f"{base}/sandbox/api/sessions/{session}/vnc" + (f"?token={bearer}" if bearer else "")


class Viewer:
    """RFB over a websocket, whose messages end where they like."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._held = bytearray()

    async def read(self, size: int) -> bytes:
        while len(self._held) < size:
            data = await self.socket.recv()
            assert isinstance(data, bytes)
            self._held += data
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    async def shake_hands(self) -> tuple[int, int]:
        assert await self.read(12) == b"RFB 003.008\n"
        await self.socket.send(b"RFB 003")
        await self.socket.send(b".008\n")
        kinds = await self.read((await self.read(1))[0])
        assert 1 in kinds, "security type None"
        await self.socket.send(b"\x01")
        assert await self.read(4) == bytes(4)
        await self.socket.send(b"\x01")
        width, height, _, named = struct.unpack(">HH16sI", await self.read(24))
        await self.read(named)
        await self.socket.send(struct.pack(">BxHi", 2, 1, 0))  # SetEncodings: raw
        self._size = width, height
        return width, height

    async def colours(self) -> set[bytes]:
        """Every colour on the screen."""
        width, height = self._size
        await self.socket.send(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        found: set[bytes] = set()
        left = width * height
        while left > 0:
            kind, rectangles = struct.unpack(">BxH", await self.read(4))
            assert kind == 0, "FramebufferUpdate"
            for _ in range(rectangles):
                _, _, wide, high, encoding = struct.unpack(">HHHHi", await self.read(12))
                assert encoding == 0
                data = await self.read(wide * high * 4)
                found |= {data[at : at + 4] for at in range(0, len(data), 4)}
                left -= wide * high
        return found


@asynccontextmanager
async def viewing(
    place: Place, session: str, account: Account, **options: Any
) -> AsyncIterator[Viewer]:
    url = where(place, session, token(account))
    async with connect(url, proxy=None, max_size=None, **options) as socket:
        yield Viewer(socket)


async def close_code(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(SOON_S):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed:
            return socket.close_code


async def test_a_session_from_its_shell_to_its_screen(here: Place) -> None:
    """A file is written by the shell, read, listed and downloaded; a program shows its window."""
    ann = await here.account()
    session = await ann.create()
    base = f"/sandbox/api/sessions/{session}"
    async with viewing(here, session, ann, subprotocols=["binary"]) as viewer:
        assert viewer.socket.subprotocol == "binary"
        await viewer.shake_hands()
        blank = await viewer.colours()
        write = {"call": "shell_execute", "args": {"command": "echo -n hello > note.txt"}}
        show = "xmessage -geometry 400x200+50+50 -file note.txt >/dev/null 2>&1 &"
        window = {"call": "shell_execute", "args": {"command": show}}
        told = await ann.chat(session, script(plan(script(write, window, {"say": "Shown."}))))
        assert "Shown." in said(told)
        async with asyncio.timeout(SOON_S):
            while len(await viewer.colours()) <= len(blank):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    path = f"{HOME}/note.txt"
    assert (await ann.ask("POST", f"{base}/file", {"filepath": path}))["content"] == "hello"
    [file] = (await ann.ask("GET", f"{base}/files"))["files"]
    assert file["filepath"] == path
    download = await ann.client.get(f"/sandbox/api/files/{file['id']}/download")
    assert download.content == b"hello"


async def test_viewers_share_the_screen_and_administrators_see_it(here: Place) -> None:
    ann, admin = await here.account(), await here.admin()
    session = await ann.create()
    async with (
        viewing(here, session, ann) as one,
        viewing(here, session, admin, subprotocols=["chat", "binary"]) as two,
    ):
        assert one.socket.subprotocol is None
        assert two.socket.subprotocol == "binary"
        assert await one.shake_hands() == await two.shake_hands()
        assert await one.colours() == await two.colours()


async def test_base64_is_spoken_where_it_is_all_there_is(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    async with viewing(here, session, ann, subprotocols=["base64"]) as viewer:
        assert viewer.socket.subprotocol == "base64"
        assert await viewer.socket.recv() == "UkZCIDAwMy4wMDgK"
        await viewer.socket.send("not base64!")
        await viewer.socket.wait_closed()


async def test_who_may_not_look_is_told_in_the_handshake(here: Place) -> None:
    ann, stranger = await here.account(), await here.account()
    session = await ann.create()
    missing = "01a20630-0000-7000-8000-00000000dead"
    for url, status in (
        (where(here, session), 403),
        (where(here, session, "no.such.token"), 403),
        (where(here, session, token(stranger)), 403),
        (where(here, missing, token(ann)), 404),
        (where(here, f"{session}/more", token(ann)), 403),
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None)
        assert refused.value.response.status_code == status, url
    with pytest.raises(InvalidStatus) as refused:
        await connect(where(here, session, token(ann)), proxy=None, origin="http://evil.test")
    assert refused.value.response.status_code == 403
    assert token(ann) not in here.server.logged()


async def test_who_may_only_read_may_not_type(tmp_path: Path) -> None:
    """The screen takes keys and clicks; the session itself can still be looked at."""
    with served(tmp_path / "data", "sqlite") as server:
        here = Place(server)
        ann, vera = await here.account(), await here.account()
        sessions = {each.id: await each.create() for each in (ann, vera)}
        with contextlib.closing(sqlite3.connect(server.data / "quartet.sqlite")) as file:
            file.execute("UPDATE users SET role = 'viewer' WHERE id = ?", [vera.id])
            file.commit()
        vera = await here.again(vera)
        with pytest.raises(InvalidStatus) as refused:
            await connect(where(here, sessions[vera.id], token(vera)), proxy=None)
        assert refused.value.response.status_code == 403
        assert (await vera.detail(sessions[vera.id]))["events"] == []
        async with viewing(here, sessions[ann.id], ann) as viewer:
            await viewer.shake_hands()
        await here.close()


async def test_a_ban_closes_the_screen_within_a_second(here: Place) -> None:
    ann, admin = await here.account(), await here.admin()
    session = await ann.create()
    async with viewing(here, session, ann) as viewer:
        await viewer.shake_hands()
        path = f"/sandbox/api/admin/users/{ann.id}/status"
        await admin.ask("PUT", path, {"status": "banned"})
        assert await close_code(viewer.socket) == 4401
    with pytest.raises(InvalidStatus):
        await connect(where(here, session, token(ann)), proxy=None)


async def test_the_screen_ends_with_its_session(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    async with viewing(here, session, ann) as viewer:
        await viewer.shake_hands()
        await ann.ask("POST", f"/sandbox/api/sessions/{session}/delete")
        assert await close_code(viewer.socket) == 1000
    with pytest.raises(InvalidStatus) as refused:
        await connect(where(here, session, token(ann)), proxy=None)
    assert refused.value.response.status_code == 404


async def test_a_message_too_large_ends_it(here: Place) -> None:
    ann = await here.account()
    async with viewing(here, await ann.create(), ann) as viewer:
        await viewer.shake_hands()
        await viewer.socket.send(bytes(1024 * 1024 + 1))
        assert await close_code(viewer.socket) == 1009


async def test_novnc_shows_it_in_a_browser(here: Place, server: Server, tmp_path: Path) -> None:
    ann = await here.account()
    session = await ann.create()
    show = "xmessage -geometry 400x200+50+50 'seen in a browser' >/dev/null 2>&1 &"
    window = {"call": "shell_execute", "args": {"command": show}}
    picture = tmp_path / "screen.png"
    async with viewing(here, session, ann) as viewer:  # the first who looks starts the X server
        await viewer.shake_hands()
        await ann.chat(session, script(plan(script(window, {"say": "Shown."}))))
        async with asyncio.timeout(SOON_S):
            while len(await viewer.colours()) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        url = where(here, session, token(ann))
        title, colours = await asyncio.to_thread(_browsed, server.url, url, picture)
    assert title == "connected"
    assert colours > 1
    assert picture.stat().st_size > 1000


def _browsed(origin: str, url: str, picture: Path) -> tuple[str, int]:
    """The page's title, and how many colours noVNC's canvas shows once it shows a window."""
    with tarfile.open(NOVNC) as archive, browsing(flags=MADE_UP) as context:

        def answer(route: Route) -> None:
            name = route.request.url.removeprefix(f"{origin}/viewer/")
            if not name:
                body = PAGE.replace("WHERE", repr(url))
                route.fulfill(content_type="text/html", body=body)
                return
            found = archive.extractfile(name)
            assert found is not None, name
            route.fulfill(content_type="text/javascript", body=found.read())

        page = context.new_page()
        page.route(f"{origin}/viewer/**", answer)
        page.goto(f"{origin}/viewer/")
        page.wait_for_function("document.title !== ''", timeout=SOON_S * 1000)
        count = """() => {
          const canvas = document.querySelector("canvas");
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        }"""
        until, colours = time.monotonic() + SOON_S, 0
        while colours <= 1 and time.monotonic() < until:
            colours = page.evaluate(count)
            time.sleep(0.1)
        page.screenshot(path=picture)
        return page.title(), colours
