"""One MCP server for each protocol and process of the run."""

from collections.abc import AsyncIterator, Iterator

import pytest

from gateways.mcp import Protocol
from gateways.outbound import Outbound
from tests.tools.servers import Running, everything

PROTOCOLS: tuple[Protocol, ...] = ("streamable_http", "sse")


@pytest.fixture(scope="session", params=PROTOCOLS)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A server, once per protocol."""
    with everything(request.param) as running:
        yield running


@pytest.fixture(scope="session")
def streamable() -> Iterator[Running]:
    """A server over streamable HTTP."""
    with everything("streamable_http") as running:
        yield running


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    """A door that opens to this machine, for MCP alone."""
    door = Outbound(["mcp=127.0.0.1/32"])
    yield door
    await door.close()
