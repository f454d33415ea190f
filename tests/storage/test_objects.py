"""Files in a directory and in S3 behave alike."""

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from storage.database import StorageUnavailable
from storage.objects import (
    CHUNK,
    NoSuchObject,
    ObjectExists,
    ObjectStore,
    RangeUnsatisfiable,
    open_objects,
)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of a real HTTP server that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    httpx.put(f"{endpoint}/files").raise_for_status()
    yield endpoint
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def objects(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    if request.param == "directory":
        return open_objects("", tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    endpoint = request.getfixturevalue("s3")
    prefix = tmp_path.name.replace("[", "-").replace("]", "")
    return open_objects(f"s3://files/{prefix}?endpoint={endpoint}&region=us-east-1", tmp_path)


async def chunked(*chunks: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if then:
        raise then


async def keys(objects: ObjectStore, prefix: str = "") -> list[str]:
    return sorted([info.key async for info in objects.list(prefix)])


async def test_what_is_put_is_got(objects: ObjectStore, tmp_path: Path) -> None:
    file = tmp_path / "upload"
    file.write_bytes(b"from a file")
    await objects.put("a/bytes", b"\x00\xff", media_type="image/png")
    await objects.put("a/file", file)
    await objects.put("a/chunks", chunked(b"one ", b"", b"two"))
    await objects.put("a/empty", b"")
    assert await objects.get("a/bytes") == b"\x00\xff"
    assert await objects.get("a/file") == b"from a file"
    assert await objects.get("a/chunks") == b"one two"
    assert await objects.get("a/empty") == b""
    info = await objects.stat("a/chunks")
    assert (info.key, info.size, type(info.modified)) == ("a/chunks", 7, float)
    await objects.put("a/chunks", b"three")
    assert await objects.get("a/chunks") == b"three"
    assert (await objects.stat("a/chunks")).etag != info.etag


async def test_what_is_not_there_is_an_error_to_read_and_none_to_delete(
    objects: ObjectStore,
) -> None:
    for reading in (objects.get("none"), objects.stat("none"), objects.range("none", 0, 1)):
        with pytest.raises(NoSuchObject):
            await reading
    with pytest.raises(NoSuchObject):
        await objects.open("none")
    await objects.put("some", b"1")
    await objects.delete(["none", "some"])
    assert await keys(objects) == []


async def test_ranges_are_clamped_and_empty_ones_refused(objects: ObjectStore) -> None:
    await objects.put("digits", b"0123456789")
    assert await objects.range("digits", 0, 3) == b"012"
    assert await objects.range("digits", 8, 99) == b"89"
    for start, end in ((10, 12), (3, 3), (5, 2)):
        with pytest.raises(RangeUnsatisfiable):
            await objects.range("digits", start, end)


async def test_large_files_stream_both_ways(objects: ObjectStore) -> None:
    block = bytes(range(256)) * 1024
    await objects.put("large", chunked(*[block] * 30))
    opened = await objects.open("large")
    assert (opened.start, opened.end, opened.info.size) == (0, 30 * len(block), 30 * len(block))
    sizes = []
    async for chunk in opened.chunks:
        assert type(chunk) is bytes
        sizes.append(len(chunk))
    assert sum(sizes) == 30 * len(block)
    assert max(sizes) <= 4 * CHUNK
    opened = await objects.open("large", start=len(block), end=2 * len(block))
    assert b"".join([chunk async for chunk in opened.chunks]) == block


async def test_a_broken_upload_leaves_nothing(objects: ObjectStore) -> None:
    await objects.put("kept", b"old")
    for key in ("kept", "new"):
        with pytest.raises(LookupError):
            await objects.put(key, chunked(b"x" * 1000, then=LookupError()))
    assert await objects.get("kept") == b"old"
    assert await keys(objects) == ["kept"]


async def test_of_20_that_create_one_key_one_wins(objects: ObjectStore) -> None:
    async def create(i: int) -> bool:
        try:
            await objects.put("one", chunked(str(i).encode()), create_only=True)
        except ObjectExists:
            return False
        return True

    won = await asyncio.gather(*(create(i) for i in range(20)))
    assert sum(won) == 1
    assert await objects.get("one") == str(won.index(True)).encode()


async def test_lists_go_by_whole_segments(objects: ObjectStore) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "c"):
        await objects.put(key, b"")
    assert await keys(objects, "a") == ["a/1", "a/b/2"]
    assert await keys(objects) == ["a/1", "a/b/2", "ab/3", "c"]
    assert await keys(objects, "none") == []


HOSTILE = [
    *("", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.b", "a\\b", "a\x00"),
    *("a#1", "a%2fb", "é", "a b", "a\n", "~/a", "C:a", "a" * 129, "/".join("abcdefghi")),
]


@pytest.mark.parametrize("key", HOSTILE)
async def test_a_key_is_not_a_path(key: str, tmp_path: Path) -> None:
    objects = open_objects("", tmp_path)
    for acting in (
        objects.put(key, b""),
        objects.get(key),
        objects.stat(key),
        objects.delete([key]),
        objects.presign("GET", key, 60),
    ):
        with pytest.raises(ValueError):
            await acting
    assert list((tmp_path / "objects").iterdir()) == []


async def test_presigned_urls_serve_without_credentials(
    objects: ObjectStore, request: pytest.FixtureRequest
) -> None:
    await objects.put("a/shared", b"hello", media_type="text/plain")
    url = await objects.presign("GET", "a/shared", 60)
    if "s3" not in request.node.name:
        assert url is None
        return
    assert url is not None
    async with httpx.AsyncClient() as client:
        answer = await client.get(url)
        assert (answer.content, answer.headers["content-type"]) == (b"hello", "text/plain")
        target = await objects.presign("PUT", "a/uploaded", 60)
        assert target is not None
        (await client.put(target, content=b"world")).raise_for_status()
    assert await objects.get("a/uploaded") == b"world"


@pytest.mark.parametrize("seconds", [0, -1, 3601])
async def test_presigned_urls_are_short_lived(objects: ObjectStore, seconds: int) -> None:
    with pytest.raises(ValueError):
        await objects.presign("GET", "a", seconds)


async def test_a_signature_is_for_one_object_and_one_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS Signature 4 covers both, and the seconds."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    objects = open_objects("s3://files?endpoint=http://127.0.0.1:9&region=us-east-1", tmp_path)
    asked: list[tuple[Literal["GET", "PUT"], str, int]] = [
        ("GET", "a/one", 60), ("GET", "a/two", 60), ("PUT", "a/one", 60), ("GET", "a/one", 61)
    ]  # fmt: skip
    signatures = set()
    for method, key, seconds in asked:
        query = parse_qs(urlsplit(await objects.presign(method, key, seconds) or "").query)
        assert query["X-Amz-Expires"] == [str(seconds)]
        signatures.update(query["X-Amz-Signature"])
    assert len(signatures) == len(asked)


def test_a_full_disk_refuses_the_file_and_keeps_the_rest(tmp_path: Path) -> None:
    script = """
import asyncio, pathlib, sys
from storage.database import StorageFull
from storage.objects import open_objects

async def main():
    objects = open_objects("", pathlib.Path(sys.argv[1]))
    await objects.put("small", b"x")
    try:
        await objects.put("large", b"x" * 100_000)
    except StorageFull:
        print(await objects.get("small"), [info.key async for info in objects.list()])

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "b'x' ['small']\n", done.stderr


async def test_a_bucket_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    objects = open_objects("s3://files?endpoint=http://127.0.0.1:1&region=us-east-1", tmp_path)
    with pytest.raises(StorageUnavailable):
        await objects.get("a")


@pytest.mark.parametrize("url", ["file:///tmp", "s3://", "gs://bucket", "s3://b?secret=1"])
def test_other_stores_are_refused_at_start(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        open_objects(url, tmp_path)
