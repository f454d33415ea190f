"""The process that runs SmolLM2 with llama.cpp; started by gateways.models.smollm2 alone.

It reads one line of JSON from standard input (`socket`, `key`, `weights`, `slots`, `context`,
`threads`), loads the weights, serves llama.cpp's OpenAI-compatible HTTP API on the unix socket and
says `ready`. It ends when standard input ends, that is when its parent closes it or dies however
it dies, and takes the socket's directory with it.
"""

import ctypes
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
NICENESS = 5
"""Tokens may wait for requests, never requests for tokens."""


def end(folder: Path) -> None:
    """Leave at once: llama.cpp's threads need no farewell."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def end_with_parent(folder: Path) -> None:
    """End with standard input, and on the signals of a parent's death or of an operator."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        end(folder)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end(folder))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=watch, daemon=True).start()


def serve(options: dict[str, Any]) -> Any:
    """llama.cpp's server, answering on return."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = options["weights"]
    parameters.model_alias = ["smollm2"]
    parameters.hostnames = [options["socket"]]
    parameters.api_keys = [options["key"]]
    parameters.n_parallel = options["slots"]
    parameters.n_ctx = options["context"] * options["slots"]
    parameters.cpuparams.n_threads = options["threads"]
    parameters.cpuparams_batch.n_threads = options["threads"]
    parameters.n_batch = parameters.n_ubatch = 256
    parameters.cache_ram_mib = 0
    parameters.warmup = False
    parameters.fit_params = False
    parameters.offline = True
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.verbosity = 1
    return xllamacpp.Server(parameters)


def read_line() -> bytes:
    """The first line of standard input, unbuffered: the watcher reads what follows."""
    line = bytearray()
    while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


def main() -> None:
    options = json.loads(read_line())
    os.nice(NICENESS)
    end_with_parent(Path(options["socket"]).parent)
    server = serve(options)
    os.write(sys.stdout.fileno(), f"ready {server.listening_address}\n".encode())
    signal.pause()


if __name__ == "__main__":
    main()
