"""A real server process: its own ports, data directory and environment.

    with serving(tmp_path / "data") as server:
        urllib.request.urlopen(f"{server.url}/api/health")

Nothing of the caller's environment reaches the server but PATH, HOME and LANG, so that the
DATABASE_URL of whoever runs the tests changes none of them; what a test wants set, it gives.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
STARTS_S = 60.0
ENDS_S = 40.0


class Server(msgspec.Struct):
    """A running server. `password` is the generated one of `admin`, if there was one to show."""

    process: subprocess.Popen[bytes]
    data: Path
    output: Path
    log: Path
    url: str = ""
    assistant_url: str = ""
    password: str | None = None

    def printed(self) -> str:
        """Standard output so far."""
        return self.output.read_text()

    def logged(self) -> str:
        """The log so far."""
        return self.log.read_text()

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code, negative for a signal's."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        return self.process.wait(ENDS_S)


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a server or a script of this clone is run with."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), **(given or {})}


def spawn(data: Path, *flags: str, given: Mapping[str, str] | None = None) -> Server:
    """Start a server on free ports, without waiting for it. Its files lie beside `data`."""
    data.parent.mkdir(parents=True, exist_ok=True)
    number = len(list(data.parent.glob(f"{data.name}*.log")))
    output = data.parent / f"{data.name}{number}.out"
    log = data.parent / f"{data.name}{number}.log"
    with output.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "server", "serve", "--data", str(data)),
                *("--port", "0", "--assistant-port", "0"),
                *flags,
            ],
            cwd=data.parent,
            env=environment(given),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    return Server(process, data, output, log)


def wait_until_ready(server: Server) -> Server:
    """Wait for its first answer and read what it printed. Raises AssertionError with its log."""
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline and server.process.poll() is None:
        printed = server.printed()
        if found := re.search(r"Quartet is at +(\S+)", printed):
            server.url = found[1]
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{server.url}/active", timeout=5).close()
                server.assistant_url = re.search(r"assistant's port +(\S+)", printed)[1]
                shown = re.search(r"password +(\S+)", printed)
                server.password = shown[1] if shown else None
                return server
        time.sleep(0.02)
    code = server.process.poll()
    server.stop(signal.SIGKILL)
    raise AssertionError(f"the server did not start (exit {code}):\n{server.logged()}")


@contextlib.contextmanager
def serving(data: Path, *flags: str, given: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A ready server, ended when the block is left.

    `given` are environment variables (`{"LOG_FORMAT": "json"}`); `flags` go to scripts/serve.
    """
    server = spawn(data, *flags, given=given)
    try:
        yield wait_until_ready(server)
    finally:
        if server.process.poll() is None:
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                server.stop(signal.SIGKILL)
