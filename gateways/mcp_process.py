"""The process around one MCP server over stdio; started by gateways.mcp_stdio alone.

    python -I mcp_process.py COMMAND [ARGUMENT…]

It runs the command with its own standard streams and environment, under limits, and ends with it.
When it is told to end (SIGTERM), or the server dies that started it, it kills every process that
came of the command: it is their reaper, so none leaves by losing its parent.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MIB = 1024 * 1024
LIMITS = (
    (resource.RLIMIT_DATA, 2048 * MIB),
    (resource.RLIMIT_CPU, 300),
    (resource.RLIMIT_FSIZE, 64 * MIB),
    (resource.RLIMIT_NOFILE, 1024),
    (resource.RLIMIT_NPROC, 4096),
    (resource.RLIMIT_CORE, 0),
)
NOT_FOUND = 127


def limit() -> None:
    """Take from this process, and so from what it starts, what an MCP server does not need."""
    for what, most in LIMITS:
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def descendants() -> list[int]:
    """Every process that came of this one, its orphans among them."""
    parents: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents.setdefault(int(fields[1]), []).append(int(each.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def kill_all() -> None:
    """Kill until nothing is left; what is born meanwhile is found in the next round."""
    while left := descendants():
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def end(*_: object) -> None:
    """Handle a signal."""
    kill_all()
    os._exit(0)


def main() -> None:
    parent = os.getppid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, end)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    limit()
    try:
        server = subprocess.Popen(sys.argv[1:])  # noqa: S603
    except OSError:
        os._exit(NOT_FOUND)
    for stream in (0, 1):
        os.close(stream)
    code = server.wait()
    kill_all()
    os._exit(max(code, 0))


main()
