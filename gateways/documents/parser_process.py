"""The process that forks a reader for each document; started by gateways.documents.parser alone.

Standard input is a socket of packets: a JSON list of path, suffix and kind, with the descriptor of
what the answer goes to, or `done`. The reader writes one JSON object there: `pieces`, the chunks of
text in their order, or `error`, why there are none. Its memory, CPU time, files and open
descriptors are limited before the first byte of the document is read: a document that breaks a
parser breaks that process, which has seen no other.
"""

import ctypes
import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from gateways.documents.formats import READERS, TEXT_MAX, Unreadable, questions

PR_SET_PDEATHSIG = 1
MEMORY = 1536 * 1024 * 1024
CPU_S = 60
CHUNK = (400, 900)
"""Characters of a chunk: the splitter fills up to the second once it has the first. MiniLM reads
256 word pieces, about a thousand characters of English."""
PIECES_MAX = 50_000


def limit() -> None:
    """Take from this process what a parser does not need."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (most, most))


def pieces(path: Path, suffix: str, kind: str) -> Iterator[str]:
    """The chunks of a document; a question with its answer stays whole."""
    if kind == "qa":
        yield from questions(path, suffix)
        return
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter(CHUNK)
    length = 0
    for passage in READERS[suffix](path):
        length += len(passage)
        if length > TEXT_MAX:
            raise Unreadable("the document has too much text")
        yield from splitter.chunks(passage)


def read(path: Path, suffix: str, kind: str) -> dict[str, object]:
    """What is written: see the module."""
    found: list[str] = []
    try:
        for piece in pieces(path, suffix, kind):
            kept = piece.replace("\0", "").encode("utf-8", "replace").decode().strip()
            if kept:
                found.append(kept)
            if len(found) > PIECES_MAX:
                raise Unreadable("the document has too much text")
    except Unreadable as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "reading it takes too much memory"}
    except Exception as error:
        return {"error": f"it cannot be read ({type(error).__name__})"}
    return {"pieces": found} if found else {"error": "it holds no text"}


def read_apart(path: str, suffix: str, kind: str, told: int) -> int:
    """Fork the reader of a document; its process id."""
    if pid := os.fork():
        os.close(told)
        return pid
    try:
        limit()
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        with os.fdopen(told, "wb") as answer:
            answer.write(json.dumps(read(Path(path), suffix, kind)).encode())
    finally:
        os._exit(0)


def end(reader: int) -> None:
    """End a reader, and what it may have started."""
    try:
        os.killpg(reader, signal.SIGKILL)
    except ProcessLookupError:  # it has not come as far as a group of its own
        os.kill(reader, signal.SIGKILL)
    os.waitpid(reader, 0)


def main() -> None:
    import semantic_text_splitter  # noqa: F401  (so that no reader has to)

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    reader = 0
    with socket.socket(fileno=0) as asked:
        while True:
            packet, told, _, _ = socket.recv_fds(asked, 65_536, 1)
            if reader:
                end(reader)
                reader = 0
            if not packet:
                return
            if told:
                reader = read_apart(*json.loads(packet), *told)


if __name__ == "__main__":
    main()
