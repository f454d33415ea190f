"""Servers under measurement: started, asked for CPU and memory, stopped."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADMIN_PASSWORD = "bench-password"
BASE_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name in ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
}
"""What a measured server inherits: never settings of the operator's own server."""


def cpu_of(pid: int) -> float:
    """Seconds of user and system time of a process so far, to the nanosecond.

    `clock_getcpuclockid(3)` of another process, as glibc computes it.
    """
    return time.clock_gettime((~pid << 3) | 2)


def tree_of(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def pss_of(pid: int) -> int:
    """Bytes of proportional set size of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} tells no Pss")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, path: str) -> bool:
    """Whether a server answers 200 there."""
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Process:
    """One running server on a free port of 127.0.0.1; `started_in` is exec to first 200."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], port: int, health: str
    ) -> None:
        self.port = port
        begun = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**BASE_ENVIRONMENT, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.DEVNULL,
        )
        while not answers(port, health):
            if self._process.poll() is not None or time.perf_counter() - begun > 60:
                self.stop()
                raise RuntimeError(f"{' '.join(command)} did not start")
            time.sleep(0.005)
        self.started_in = time.perf_counter() - begun

    @property
    def cpu(self) -> float:
        """Seconds of CPU of the process tree so far."""
        return sum(cpu_of(pid) for pid in tree_of(self._process.pid))

    @property
    def pss(self) -> int:
        """Bytes of proportional set size of the process tree."""
        return sum(pss_of(pid) for pid in tree_of(self._process.pid))

    def stop(self) -> None:
        """End the server and wait for it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def quartet(
    data: Path, *, module: str = "server", settings: Mapping[str, str] | None = None
) -> Process:
    """Our server over a data directory; `settings` are environment variables."""
    port = free_port()
    command = ["-m", module, "serve", "--data", str(data)]
    command += ["--port", str(port), "--assistant-port", "0"]
    environment = {
        "ADMIN_PASSWORD": ADMIN_PASSWORD,
        "PUBLIC_URL": "http://bench.localhost",
        "LOG_LEVEL": "warning",
        **(settings or {}),
    }
    return Process(command, environment, port, "/api/health")
