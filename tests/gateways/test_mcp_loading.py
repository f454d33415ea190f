"""The MCP SDK takes half a second to import, and the event loop does not wait for it."""

import subprocess
import sys

from tests.serving import ROOT, environment

PROGRAM = """
import asyncio, sys, threading

from gateways.errors import McpUnreachable
from gateways.mcp import Endpoint, McpClient
from gateways.outbound import Outbound

by = set()

class Watching:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mcp", "mcp_types"):
            by.add(threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Watching())

async def main():
    outbound = Outbound(["mcp=127.0.0.1"])
    client = McpClient(outbound)
    nobody = Endpoint("streamable_http", "http://127.0.0.1:9/mcp")
    assert by == set(), "imported before it is used"
    asked = await asyncio.gather(*(client.tools(nobody) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, McpUnreachable) for one in asked), asked
    await outbound.close()
    assert by == {False}, by

asyncio.run(main())
"""


def test_the_sdk_is_imported_beside_the_loop() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
