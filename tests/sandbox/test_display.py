"""The display: a real X server, a real X program, and a client of RFC 6143 that looks at it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateways.sandbox.confining import SandboxLimits
from gateways.sandbox.errors import SandboxUnavailable
from gateways.sandbox.sandboxes import DISPLAY, Sandbox, Sandboxes

WIDTH, HEIGHT = map(int, DISPLAY.split("x"))


@pytest.fixture
async def sandboxes(tmp_path: Path) -> AsyncIterator[Sandboxes]:
    """With room for an X server."""
    made = Sandboxes(tmp_path, SandboxLimits(memory_bytes=1 << 30, scratch_bytes=8 << 20))
    yield made
    await made.close_all()


class Screen:
    """One viewer: the handshake, and the framebuffer as raw pixels."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def shake_hands(self) -> tuple[int, int]:
        assert await self._reader.readexactly(12) == b"RFB 003.008\n"
        self._writer.write(b"RFB 003.008\n")
        kinds = await self._reader.readexactly((await self._reader.readexactly(1))[0])
        assert 1 in kinds, "security type None"
        self._writer.write(b"\x01")
        assert await self._reader.readexactly(4) == bytes(4)
        self._writer.write(b"\x01")
        width, height, _, named = struct.unpack(">HH16sI", await self._reader.readexactly(24))
        await self._reader.readexactly(named)
        self._writer.write(struct.pack(">BxHi", 2, 1, 0))  # SetEncodings: raw
        return width, height

    async def colours(self) -> set[bytes]:
        """Every colour on the screen."""
        self._writer.write(struct.pack(">BBHHHH", 3, 0, 0, 0, WIDTH, HEIGHT))
        found: set[bytes] = set()
        left = WIDTH * HEIGHT
        while left > 0:
            kind, rectangles = struct.unpack(">BxH", await self._reader.readexactly(4))
            assert kind == 0, "FramebufferUpdate"
            for _ in range(rectangles):
                _, _, width, height, encoding = struct.unpack(
                    ">HHHHi", await self._reader.readexactly(12)
                )
                assert encoding == 0
                data = await self._reader.readexactly(width * height * 4)
                found |= {data[at : at + 4] for at in range(0, len(data), 4)}
                left -= width * height
        return found

    def close(self) -> None:
        self._writer.close()


async def test_a_program_shows_on_the_display(sandbox: Sandbox) -> None:
    screen = Screen(*await sandbox.display())
    assert await screen.shake_hands() == (WIDTH, HEIGHT)
    blank = await screen.colours()
    assert len(blank) == 1
    await sandbox.shell("a", "xmessage -geometry 400x200+50+50 'hello there'", timeout_s=0)
    async with asyncio.timeout(60):
        while len(await screen.colours()) <= len(blank):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert sandbox.view_shell("a").running
    screen.close()


async def test_a_program_needs_no_viewer(sandbox: Sandbox) -> None:
    """The X server starts for the first program that looks for it, and again after its end."""
    for _ in range(2):
        shown = await sandbox.shell("a", "xdpyinfo | grep dimensions", timeout_s=60)
        assert f"{WIDTH}x{HEIGHT} pixels" in shown.output
        killed = "pkill -9 Xtigervnc; while pgrep Xtigervnc; do sleep 0.05; done"
        await sandbox.shell("a", killed)


async def test_a_program_that_came_first_is_seen(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "xmessage -geometry 400x200+50+50 'hello there'", timeout_s=0)
    screen = Screen(*await sandbox.display())
    await screen.shake_hands()
    async with asyncio.timeout(60):
        while len(await screen.colours()) <= 1:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    screen.close()


async def test_a_display_that_does_not_start_turns_programs_away(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.sandbox.sandboxes.DISPLAY", "no size")
    for _ in range(2):
        shown = await sandbox.shell("a", "xdpyinfo; echo $?", timeout_s=60)
        assert "unable to open display" in shown.output
        assert shown.output.endswith("\n1\n")
    monkeypatch.undo()
    assert "pixels" in (await sandbox.shell("a", "xdpyinfo", timeout_s=60)).output


async def test_viewers_share_one_display(sandbox: Sandbox) -> None:
    screens = [Screen(*each) for each in await asyncio.gather(sandbox.display(), sandbox.display())]
    for screen in screens:
        assert await screen.shake_hands() == (WIDTH, HEIGHT)
    count = await sandbox.shell("a", "ps ax -o comm= | grep -c Xtigervnc")
    assert count.output == "1\n"
    for screen in screens:
        screen.close()


async def test_handshakes_that_break_off_shut_nobody_out(sandbox: Sandbox) -> None:
    for _ in range(12):
        reader, writer = await sandbox.display()
        assert await reader.readexactly(12) == b"RFB 003.008\n"
        writer.write(b"RFB 003.008\n")
        await reader.readexactly((await reader.readexactly(1))[0])
        writer.close()
    screen = Screen(*await sandbox.display())
    assert await screen.shake_hands() == (WIDTH, HEIGHT)
    screen.close()


async def test_the_display_listens_on_no_port(sandbox: Sandbox) -> None:
    _, writer = await sandbox.display()
    assert (await sandbox.shell("a", "tail -n +2 -q /proc/net/tcp /proc/net/tcp6")).output == ""
    writer.close()


async def test_a_display_that_was_killed_is_started_again(sandbox: Sandbox) -> None:
    _, writer = await sandbox.display()
    await sandbox.shell("a", "pkill -9 Xtigervnc; while pgrep Xtigervnc; do sleep 0.05; done")
    writer.close()
    screen = Screen(*await sandbox.display())
    assert await screen.shake_hands() == (WIDTH, HEIGHT)
    screen.close()


async def test_viewers_are_cut_off_with_the_sandbox(sandboxes: Sandboxes) -> None:
    sandbox = await sandboxes.open("session")
    reader, _ = await sandbox.display()
    await reader.readexactly(12)
    await sandboxes.close("session")
    async with asyncio.timeout(20):
        assert await reader.read() == b""


async def test_without_an_x_server_it_says_so(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(SandboxUnavailable, match="tigervnc-standalone-server"):
        await sandbox.display()
    shown = await sandbox.shell("a", "xdpyinfo; echo $?", timeout_s=60)
    assert "unable to open display" in shown.output
