"""The process that reads one document; started by gateways.documents.parser alone.

    python -m gateways.documents.parser_process PATH SUFFIX KIND

Writes one JSON object to standard output: `pieces`, the chunks of text in their order, or `error`,
why there are none. Its memory, CPU time, files and open descriptors are limited before the first
byte of the document is read: a document that breaks a parser breaks this process.
"""

import ctypes
import json
import resource
import signal
import sys
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


def main() -> None:
    limit()
    _, path, suffix, kind = sys.argv
    sys.stdout.buffer.write(json.dumps(read(Path(path), suffix, kind)).encode())


if __name__ == "__main__":
    main()
