"""Published files over a real database and a real object store, and images for models."""

import base64
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import pytest

from domain.caller import Caller
from domain.errors import NotFound, Unauthenticated
from domain.file_names import numbered
from domain.files import Files, image_type
from domain.quota import Quota
from domain.turn.images import loader
from gateways.errors import OutboundError
from gateways.outbound import Outbound
from storage.database import Database
from storage.events import EventLog
from storage.files import FileStore
from storage.objects import open_objects
from storage.wakeups import OneProcess
from tests.storage.accounts import make_accounts

ANN = Caller(user_id="ann", role="operator")
BASE = "https://ai.example.com/base"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
async def files(database: Database, data: Path) -> Files:
    await make_accounts(database, "ann", "bob")
    return Files(
        database,
        FileStore(database),
        EventLog(database, OneProcess()),
        cache(lambda: open_objects("", data)),
        base_url=BASE,
        clock=lambda: 1.5,
        quota=Quota(0),
    )


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def publish(files: Files, content: bytes = PNG, caller: Caller = ANN) -> tuple[str, str]:
    url = await files.publish(caller, "a b.png", "x/", len(content), chunks(content))
    found = files.published_at(url)
    assert found is not None
    return found


async def test_what_goes_in_comes_out(files: Files) -> None:
    parts = [PNG, b"1" * 300_000, b"2" * 300_000]
    size = sum(map(len, parts))
    url = await files.publish(ANN, "a b.png", "uploads/", size, chunks(*parts))
    assert url.startswith(f"{BASE}/oss/")
    assert url.endswith("/a%20b.png")
    reading = await files.read_published(*(files.published_at(url) or ("", "")))
    assert b"".join([chunk async for chunk in reading.chunks]) == b"".join(parts)
    assert (reading.file.folder, reading.file.size) == ("uploads", size)
    assert (reading.file.media_type, reading.is_image) == ("image/png", True)


async def test_nothing_is_kept_of_a_failed_upload(files: Files, data: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a" * 100_000
        raise OSError("the client left")

    with pytest.raises(OSError, match="left"):
        await files.publish(ANN, "a", "", 5, broken())
    with pytest.raises(Unauthenticated):
        await publish(files, caller=Caller(user_id="gone", role="operator"))
    assert [each for each in (data / "objects").rglob("*") if each.is_file()] == []


async def test_erasing_takes_the_owners_alone(files: Files, data: Path) -> None:
    mine = [await publish(files) for _ in range(3)]
    other = await publish(files, caller=Caller(user_id="bob", role="operator"))
    await files.erase_all("ann")
    for link in mine:
        with pytest.raises(NotFound):
            await files.read_published(*link)
    assert (await files.read_published(*other)).file.owner_id == "bob"
    assert len([each for each in (data / "objects").rglob("*") if each.is_file()]) == 1


async def test_a_lost_object_is_not_found(files: Files, data: Path) -> None:
    link = await publish(files)
    for each in (data / "objects").rglob("*"):
        if each.is_file():
            each.unlink()
    with pytest.raises(NotFound):
        await files.read_published(*link)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (f"{BASE}/oss/abc/a%20b.png", ("abc", "a b.png")),
        (f"{BASE}/sage/oss/abc/a", ("abc", "a")),
        ("/base/oss/abc/a", ("abc", "a")),
        (f"{BASE}/oss/abc", None),
        (f"{BASE}/oss/abc/a/b", None),
        (f"{BASE}/api/oss/abc", None),
        ("https://evil.example/base/oss/abc/a", None),
        ("http://ai.example.com/base/oss/abc/a", None),
        ("https://user@ai.example.com/base/oss/abc/a", None),
    ],
)
async def test_addresses_of_ours(url: str, found: tuple[str, str] | None, files: Files) -> None:
    assert files.published_at(url) == found


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"<svgxxxxWEBP", None),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"<svg xmlns", None),
        (b"", None),
    ],
)
def test_images_by_their_first_bytes(beginning: bytes, expected: str | None) -> None:
    assert image_type(beginning) == expected


async def test_a_model_sees_files_of_ours(files: Files) -> None:
    """Without a request to this server, which the door for the outside would refuse."""
    outbound = Outbound()
    load = loader(outbound, files)
    url = await files.publish(ANN, "a.png", "", len(PNG), chunks(PNG))
    expected = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert await load("bob", url) == expected
    text = await files.publish(ANN, "a.png", "", 4, chunks(b"text"))
    large = await files.publish(ANN, "a.png", "", 11 * 1024 * 1024, chunks(PNG))
    for refused in (text, large, f"{BASE}/oss/{'0' * 32}/a.png", "http://127.0.0.1/x.png"):
        with pytest.raises(OutboundError):
            await load("ann", refused)
    await outbound.close()


@pytest.mark.parametrize(
    ("name", "number", "made"),
    [
        ("report.csv", 1, "report.csv"),
        ("report.csv", 2, "report (2).csv"),
        ("archive.tar.gz", 3, "archive.tar (3).gz"),
        ("Makefile", 2, "Makefile (2)"),
        ("said.and then some more", 2, "said.and then some more (2)"),
        ("報" * 100 + ".txt", 1, "報" * 83 + ".txt"),
        ("報" * 100 + ".txt", 12, "報" * 82 + " (12).txt"),
        ("é" * 150, 1, "é" * 127),
    ],
)
def test_a_name_beside_others(name: str, number: int, made: str) -> None:
    assert numbered(name, number) == made
    assert len(made.encode()) <= 255
