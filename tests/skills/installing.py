"""Skills of the platform for the tests: directories to install from, and a server that speaks the
part of GitHub's API that installing needs."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote

SHA = "1d0c5a7e9b3f4a6c8e2d1f0b9a8c7d6e5f4a3b2c"


def skill_md(
    name: str = "market-research", text: str = "Ask three people.", **front: object
) -> str:
    """A SKILL.md; what front matter has beside the name is JSON, which YAML reads."""
    keys = {"description": f"Does {name}.", **front}
    lines = "\n".join(f"{key}: {json.dumps(value)}" for key, value in keys.items())
    return f"---\nname: {name}\n{lines}\n---\n{text}\n"


def laid(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """A directory with these files."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def tarball(files: Mapping[str, str | bytes | tarfile.TarInfo], top: str = "o-r-1d0c5a7") -> bytes:
    """A repository as GitHub sends it; a TarInfo stands for a member that is no file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for path, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = f"{top}/{path}"
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(f"{top}/{path}")
            data = content.encode() if isinstance(content, str) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


class GitHub:
    """The repository owner/repo: branches and tags, and what lies in it. Where `status` is not 200,
    or there is a `body`, every answer is that; none is given before `answers` is set."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.branches: list[str] = ["main"]
        self.tags: list[str] = []
        self.content: bytes = tarball({})
        self.status = 200
        self.body = b""
        self.asked: list[str] = []
        self.was_asked = Event()
        self.answers = Event()
        self.answers.set()

    def answer(self, path: str) -> tuple[int, bytes, str]:
        """Status, body, and where a redirect leads."""
        self.asked.append(path)
        self.was_asked.set()
        self.answers.wait(30)
        home = "/repos/owner/repo"
        if self.status != 200 or self.body:
            return self.status, self.body, ""
        for kind, names in (("heads", self.branches), ("tags", self.tags)):
            first = f"{home}/git/matching-refs/{kind}/"
            if path.startswith(first):
                wanted = unquote(path.removeprefix(first))
                found = [name for name in names if name.startswith(wanted)]
                told = [
                    {"ref": f"refs/{kind}/{name}", "object": {"sha": SHA, "type": "commit"}}
                    for name in found
                ]
                return 200, json.dumps(told).encode(), ""
        if path == f"{home}/tarball/{SHA}":
            return 302, b"", f"{self.url}/codeload/{SHA}"
        if path == f"/codeload/{SHA}":
            return 200, self.content, ""
        return 404, b"{}", ""


@contextmanager
def github() -> Iterator[GitHub]:
    """A server that speaks GitHub's API."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, location = told.answer(self.path)
            self.send_response(status)
            if location:
                self.send_header("location", location)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = GitHub(server.server_address[1])
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
