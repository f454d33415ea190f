"""Real MCP servers beside the tests, each a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateways.mcp import Endpoint, Protocol

SERVER = Path(__file__).parent / "everything.py"
COMMAND = f"{sys.executable} {SERVER}"
"""How it is started, as MCP_STDIO_COMMANDS has it; `stdio` follows."""


class Running(NamedTuple):
    """A server; `stop` ends it, and may be called twice."""

    endpoint: Endpoint
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def everything(protocol: Protocol, key: str = "", port: int = 0) -> Iterator[Running]:
    """tests/tools/everything.py over a protocol; with a key, it answers to that alone."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    command = [sys.executable, str(SERVER), protocol, key, str(port)]
    with subprocess.Popen(
        command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        path = "sse" if protocol == "sse" else "mcp"
        running = Running(Endpoint(protocol, f"http://127.0.0.1:{port}/{path}", key), process)
        try:
            yield running
        finally:
            running.stop()
