"""Real A2A agents beside the tests, each a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

AGENT = Path(__file__).parent / "agent.py"


@contextlib.contextmanager
def agent(kind: str, named: str = "", port: int = 0) -> Iterator[str]:
    """tests/tools/agent.py; its address. Its card names `named` (host:port) in place of that."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    command = [sys.executable, str(AGENT), kind, named, str(port)]
    with subprocess.Popen(
        command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.kill()
            process.wait(10)
