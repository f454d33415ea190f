"""McpClient against the reference server of the Node SDK, over both protocols.

Not among the tests that run by default: `tox -e node` installs the server with npm (some 12 s, 32
MiB) and runs this.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.tool_schema import check_schema
from gateways.errors import McpError
from gateways.mcp import Endpoint, McpClient, Protocol
from gateways.outbound import Outbound

SERVER = (
    Path(__file__).parent / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
)
PATHS: dict[Protocol, tuple[str, str]] = {
    "streamable_http": ("streamableHttp", "mcp"),
    "sse": ("sse", "sse"),
}


@pytest.fixture(scope="module", params=PATHS)
def endpoint(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    """The server, once per protocol."""
    kind, path = PATHS[request.param]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        ["node", str(SERVER), kind],
        env={"PATH": os.environ["PATH"], "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "it ended"
                assert time.monotonic() < until, "it did not start"
                time.sleep(0.05)
        yield Endpoint(request.param, f"http://127.0.0.1:{port}/{path}")
        process.kill()


async def test_lists_and_calls(endpoint: Endpoint) -> None:
    door = Outbound(["mcp=127.0.0.1/32"])
    client = McpClient(door)
    tools = {tool.name: tool for tool in await client.tools(endpoint)}
    for tool in tools.values():
        check_schema(tool.parameters)
    told = await client.call(endpoint, "echo", {"message": "你好"})
    assert (told.text, told.failed) == ("Echo: 你好", False)
    summed = await client.call(endpoint, "get-sum", {"a": 2, "b": 3})
    assert "5" in summed.text
    structured = await client.call(endpoint, "get-structured-content", {"location": "Chicago"})
    assert structured.structured is not None
    assert "temperature" in structured.structured
    image = await client.call(endpoint, "get-tiny-image", {})
    assert "[image: image/png]" in image.text
    long = await client.call(
        endpoint, "trigger-long-running-operation", {"duration": 1, "steps": 2}
    )
    assert not long.failed
    try:
        assert (await client.call(endpoint, "no-such-tool", {})).failed
    except McpError as error:
        assert "no-such-tool" in str(error)  # noqa: PT017
    await door.close()
