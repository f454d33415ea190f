"""Fixtures of the gateways: real peers."""

from collections.abc import AsyncIterator

import pytest

from tests.gateways.peer import Peer


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = await Peer().start()
    yield peer
    await peer.stop()


@pytest.fixture
async def other_peer() -> AsyncIterator[Peer]:
    peer = await Peer().start()
    yield peer
    await peer.stop()
