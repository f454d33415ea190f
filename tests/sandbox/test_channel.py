"""Answers from inside are a stranger's."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from gateways.sandbox.channel import Channel
from gateways.sandbox.errors import SandboxEnded, SandboxError


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    made = Channel()
    yield made
    made.close("closed")


async def _started(channel: Channel, *answers: bytes, descriptor: int) -> int:
    """The terminal of a program that a liar started."""
    asked = asyncio.ensure_future(
        channel.start(("true",), "/", {}, (), terminal=True, ended=lambda _: None)
    )
    await asyncio.sleep(0)
    for answer in answers:
        socket.send_fds(channel.theirs, [answer], [descriptor])
    async with asyncio.timeout(20):
        return (await asked)[1]


async def test_a_terminal_is_taken(channel: Channel) -> None:
    master, slave = os.openpty()
    taken = await _started(channel, b'{"id": 1, "started": true}', descriptor=master)
    assert os.path.samestat(os.fstat(taken), os.fstat(master))
    for descriptor in (master, slave, taken):
        os.close(descriptor)


async def test_a_descriptor_that_is_no_terminal_is_not(channel: Channel) -> None:
    reading, writing = os.pipe()
    with pytest.raises(SandboxError):
        await _started(channel, b'{"id": 1, "started": true}', descriptor=reading)
    os.close(reading)
    os.close(writing)


async def test_what_nobody_asked_is_nothing(channel: Channel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    master, slave = os.openpty()
    taken = await _started(
        channel,
        b"\xff",
        b"[]",
        b'{"id": "1"}',
        b'{"id": 99, "started": true}',
        b'{"id": 99, "ended": 1}',
        b'{"id": 99, "wanted": true}',
        b'{"id": 1, "started": true, "ended": null}',
        descriptor=master,
    )
    for descriptor in (master, slave, taken):
        os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors were closed"


async def test_a_connection_is_a_local_stream(channel: Channel) -> None:
    asked = asyncio.ensure_future(channel.connect("/tmp/x"))
    await asyncio.sleep(0)
    with socket.socket(socket.AF_INET) as other:
        socket.send_fds(channel.theirs, [b'{"id": 1, "connected": true}'], [other.fileno()])
        with pytest.raises(SandboxError):
            await asked


async def test_whoever_waits_is_told_of_the_end(channel: Channel) -> None:
    asked = asyncio.ensure_future(channel.connect("/tmp/x"))
    await asyncio.sleep(0)
    channel.close("memory")
    with pytest.raises(SandboxEnded, match="memory"):
        await asked
