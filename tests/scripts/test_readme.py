"""The README's lines, run as a reader would: pasted into bash."""

import json
import re
import subprocess
from pathlib import Path

from tests.serving import ROOT, environment, serving

README = (ROOT / "README.md").read_text()
(LINES,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_the_main_job_takes_ten_lines_and_works(tmp_path: Path) -> None:
    assert len(LINES.splitlines()) <= 10
    with serving(tmp_path / "data") as server:
        pasted = LINES.replace("http://127.0.0.1:8000", server.url)
        assert pasted != LINES
        run = subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", pasted],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert run.returncode == 0, run.stderr + server.logged()
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    sent, registered, *stream, listed = answers
    assert sent["data"]["expires_in"] == 300
    assert registered["data"]["user_id"]
    assert stream[-1]["type"] == "stream_end"
    tokens = [line for line in stream if line.get("type") == "assistant_text"]
    assert len(tokens) > 5, "not token by token"
    assert "".join(token["content"] for token in tokens).strip()
    (conversation,) = listed["data"]["list"]
    assert conversation["session_id"] == "first"
    assert conversation["message_count"] >= 2


def test_the_portal_shows_the_same_lines() -> None:
    assert (ROOT / "server/portal_assets/quickstart.sh").read_text() == LINES


def test_every_linked_file_exists() -> None:
    for document in ("README.md", "ARCHITECTURE.md", "TESTING.md", "SECURITY.md"):
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{document}: {target}"
