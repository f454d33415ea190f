"""Workspaces on a real file system: nothing outside of one is ever read or removed."""

import asyncio
import io
import os
import socket
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.database import StorageError
from storage.workspace_files import (
    Archiving,
    BadPath,
    NoSuchFile,
    Place,
    Reading,
    WorkspaceFiles,
    segments,
)

PLACE = Place("agent", "ann", "sess")
TRAVERSAL = [
    "",
    ".",
    "..",
    "../secret",
    "a/../../secret",
    "a/..",
    "./a",
    "/etc/passwd",
    "//etc/passwd",
    "a//b",
    "a/",
    "..\\secret",
    "a\\..\\..\\secret",
    "\\\\host\\share",
    "C:\\Windows",
    "C:/Windows",
    "c:x",
    "%2e%2e/secret",
    "%2e%2e%2fsecret",
    "..%2fsecret",
    "%252e%252e%252fsecret",
    "..%c0%afsecret",
    "..%5csecret",
    "a%00.txt",
    "a\0.txt",
    "a\n",
    "a\x7f",
    "a.",
    "a ",
    "a. ",
    "\uff0e\uff0e/secret",
    "\u2024\u2024/secret",
    "..\uff0fsecret",
    "a\uff3c..\uff3csecret",
    ".hidden",
    "a/.hidden",
    "\ud800",
    "x" * 256,
    "ü" * 128,
    "a/" * 3000 + "a",
    "....//secret",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one workspace, and a secret beside it."""
    here = tmp_path / "workspaces" / "agent" / "ann" / "sess"
    here.mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (here / "a.txt").write_text("a")
    (here / "folder" / "deep").mkdir(parents=True)
    (here / "folder" / "deep" / "b – ü.bin").write_bytes(os.urandom(700_000))
    (here / "folder" / "empty").mkdir()
    (here / ".hidden").write_text("secret")
    return tmp_path


@pytest.fixture
def here(root: Path) -> Path:
    return root / "workspaces" / "agent" / "ann" / "sess"


@pytest.fixture
def files(root: Path) -> WorkspaceFiles:
    return WorkspaceFiles(root / "workspaces")


async def read(files: WorkspaceFiles, path: str, place: Place = PLACE) -> bytes:
    opened = await files.open(place, segments(path))
    try:
        return b"".join([chunk async for chunk in opened])
    finally:
        await opened.aclose()


@pytest.mark.parametrize("path", TRAVERSAL)
async def test_paths_that_lead_elsewhere(path: str, files: WorkspaceFiles, root: Path) -> None:
    """For reading and for removing (security 30)."""
    with pytest.raises(BadPath):
        await read(files, path)
    with pytest.raises(BadPath):
        await files.delete(PLACE, segments(path))
    assert (root / "secret").read_text() == "secret"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "%2e%2e", "x" * 300, "a\0"])
async def test_sessions_that_lead_elsewhere(name: str, files: WorkspaceFiles) -> None:
    for place in (Place("agent", "ann", name), Place("agent", name), Place(name, "ann")):
        with pytest.raises(BadPath):
            await files.list(place)
        with pytest.raises(BadPath):
            await files.delete(place, ("a.txt",))


async def test_what_is_there_is_listed_and_read(files: WorkspaceFiles, here: Path) -> None:
    found = await files.list(PLACE)
    assert [(each.path, each.name, each.is_directory, each.size) for each in found] == [
        ("a.txt", "a.txt", False, 1),
        ("folder", "folder", True, 0),
        ("folder/deep", "deep", True, 0),
        ("folder/deep/b – ü.bin", "b – ü.bin", False, 700_000),
        ("folder/empty", "empty", True, 0),
    ]
    assert await read(files, "a.txt") == b"a"
    whole = await read(files, "folder/deep/b – ü.bin")
    assert whole == (here / "folder" / "deep" / "b – ü.bin").read_bytes()
    assert [each.path for each in await files.list(Place("agent", "ann"))][:2] == [
        "sess",
        "sess/a.txt",
    ]


async def test_what_is_not_there(files: WorkspaceFiles) -> None:
    assert await files.list(Place("agent", "ann", "other")) == []
    assert await files.list(Place("agent", "bob")) == []
    for path in ("none", "folder/none", "a.txt/b", "none/a"):
        with pytest.raises(NoSuchFile):
            await read(files, path)
        with pytest.raises(NoSuchFile):
            await files.delete(PLACE, segments(path))


async def test_links_are_not_there(files: WorkspaceFiles, here: Path, root: Path) -> None:
    """Security 31: symbolic links as the file and on the way, hard links, pipes, sockets."""
    (root / "outside").mkdir()
    (root / "outside" / "x").write_text("secret")
    (here / "file").symlink_to(root / "secret")
    (here / "way").symlink_to(root / "outside")
    (here / "inside").symlink_to("a.txt")
    os.link(root / "secret", here / "hard")
    os.mkfifo(here / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(here)
        listening.bind("socket")
        os.chdir(before)
    for path in ("file", "way", "way/x", "inside", "hard", "pipe", "socket"):
        with pytest.raises(NoSuchFile):
            await asyncio.wait_for(read(files, path), 5)
        with pytest.raises(NoSuchFile):
            await files.delete(PLACE, segments(path))
    assert [each.path for each in await files.list(PLACE) if "/" not in each.path] == [
        "a.txt",
        "folder",
    ]
    assert (root / "secret").read_text() == (root / "outside" / "x").read_text() == "secret"


async def test_a_link_in_the_place_of_the_workspace(root: Path, files: WorkspaceFiles) -> None:
    (root / "outside").mkdir()
    (root / "outside" / "x").write_text("secret")
    (root / "workspaces" / "agent" / "ann" / "linked").symlink_to(root / "outside")
    place = Place("agent", "ann", "linked")
    assert await files.list(place) == []
    with pytest.raises(NoSuchFile):
        await read(files, "x", place)


async def test_a_directory_is_a_zip(files: WorkspaceFiles, here: Path, root: Path) -> None:
    (here / "folder" / "link").symlink_to(root / "secret")
    (here / "folder" / ".hidden").write_text("secret")
    (here / "folder" / "back\\slash").write_text("secret")
    opened = await files.open(PLACE, ("folder",))
    assert isinstance(opened, Archiving)
    pieces = [piece async for piece in opened]
    await opened.aclose()
    assert len(pieces) > 1
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["deep/", "empty/", "deep/b – ü.bin"]
        kept = (here / "folder" / "deep" / "b – ü.bin").read_bytes()
        assert archive.read("deep/b – ü.bin") == kept


async def test_removing(files: WorkspaceFiles, here: Path, root: Path) -> None:
    (here / "folder" / "deep" / "link").symlink_to(root)
    await files.delete(PLACE, ("a.txt",))
    await files.delete(PLACE, ("folder",))
    assert await files.list(PLACE) == []
    assert (root / "secret").exists()
    assert here.exists()


async def test_erasing_agents_and_users(files: WorkspaceFiles, root: Path) -> None:
    (root / "workspaces" / "agent" / "bob").mkdir()
    (root / "workspaces" / "other" / "ann").mkdir(parents=True)
    await files.erase_user("ann")
    left = sorted(str(each.relative_to(root)) for each in (root / "workspaces").rglob("*"))
    assert left == ["workspaces/agent", "workspaces/agent/bob", "workspaces/other"]
    await files.erase_agent("agent")
    await files.erase_agent("agent")
    assert [each.name for each in (root / "workspaces").iterdir()] == ["other"]
    await WorkspaceFiles(root / "nowhere").erase_user("ann")


async def test_a_file_that_shrinks_never_looks_whole(files: WorkspaceFiles, here: Path) -> None:
    (here / "log").write_bytes(b"x" * 600_000)
    opened = await files.open(PLACE, ("log",))
    assert isinstance(opened, Reading)
    assert opened.size == 600_000
    await anext(opened)
    os.truncate(here / "log", 10)
    with pytest.raises(StorageError):
        async for _ in opened:
            pass
    await opened.aclose()


async def test_leaving_early_closes_everything(files: WorkspaceFiles) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("folder", "folder/deep/b – ü.bin"):
        for begin in (False, True):
            opened = await files.open(PLACE, segments(path))
            if begin:
                task = asyncio.ensure_future(anext(opened))
                await asyncio.sleep(0)
                task.cancel()
            await opened.aclose()
    assert len(os.listdir("/proc/self/fd")) == before


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def test_what_is_written_is_read(files: WorkspaceFiles, here: Path) -> None:
    await files.write(PLACE, ("new", "deep", "a.txt"), pieces(b"one ", b"two"))
    assert (here / "new" / "deep" / "a.txt").read_bytes() == b"one two"
    with pytest.raises(FileExistsError):
        await files.write(PLACE, ("new", "deep", "a.txt"), pieces(b"?"), fresh=True)
    await files.write(PLACE, ("new", "deep", "a.txt"), pieces(b"!"), append=True)
    assert (here / "new" / "deep" / "a.txt").read_bytes() == b"one two!"
    await files.write(PLACE, ("new", "deep", "a.txt"), pieces(b"less"))
    assert await read(files, "new/deep/a.txt") == b"less"
    with pytest.raises(NoSuchFile):
        await files.write(Place("agent", "ann", "none"), ("a.txt",), pieces(b"x"))


async def test_nothing_is_written_through_a_link(
    files: WorkspaceFiles, here: Path, root: Path
) -> None:
    (here / "link").symlink_to(root / "secret")
    (here / "out").symlink_to(root)
    os.link(root / "secret", here / "second")
    os.mkfifo(here / "pipe")
    for path in (("link",), ("out", "secret"), ("out", "new"), ("second",), ("pipe",), ("folder",)):
        with pytest.raises(NoSuchFile):
            await files.write(PLACE, path, pieces(b"written"))
    assert (root / "secret").read_text() == "secret"
    assert not (root / "new").exists()


async def test_a_workspace_is_made_once(tmp_path: Path) -> None:
    files = WorkspaceFiles(tmp_path / "new" / "root")

    async def one() -> AsyncIterator[bytes]:
        yield b"x"

    with pytest.raises(NoSuchFile):
        await files.write(PLACE, ("a.txt",), one())
    await asyncio.gather(*(files.make(PLACE) for _ in range(8)))
    await files.write(PLACE, ("a.txt",), one())
    await files.make(PLACE)
    assert [entry.path for entry in await files.list(PLACE)] == ["a.txt"]
    assert (tmp_path / "new" / "root" / "agent").stat().st_mode & 0o777 == 0o700


async def test_no_workspace_is_made_behind_a_link(tmp_path: Path) -> None:
    files, outside = WorkspaceFiles(tmp_path / "root"), tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "root" / "agent").mkdir(parents=True)
    (tmp_path / "root" / "agent" / "ann").symlink_to(outside)
    with pytest.raises(NoSuchFile):
        await files.make(PLACE)
    with pytest.raises(BadPath):
        await files.make(Place("agent", "..", "sess"))
    assert list(outside.iterdir()) == []
