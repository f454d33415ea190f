"""Knowledge over HTTP: agents that look things up, and a server that is killed while it reads."""

import contextlib
import json
import random
import re
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import requests

from tests.serving import Server, serving

PASSWORD = "knowledge administrator 7"
SETTINGS = {
    "ADMIN_PASSWORD": PASSWORD,
    "DEFAULT_PROVIDER": "embedded/script",
    "LOG_LEVEL": "warning",
}
DOCUMENTS = 1_000
TOGETHER = 20
DONE_S = 300.0


class Account:
    """A login on a running server."""

    def __init__(self, server: Server, username: str, password: str) -> None:
        self._url = f"{server.url}/api"
        self._session = requests.Session()
        self._session.trust_env = False
        body = {"username_or_email": username, "password": password}
        token = self.post("/auth/login", body)["access_token"]
        self._session.headers["authorization"] = f"Bearer {token}"

    def post(self, path: str, body: Any) -> Any:
        return self._session.post(self._url + path, json=body, timeout=30).json()["data"]

    def get(self, path: str, **query: Any) -> Any:
        return self._session.get(self._url + path, params=query, timeout=30).json()["data"]

    def base(self, type_: str = "rag") -> str:
        made = self.post("/knowledge-base/add", {"name": "Docs", "type": type_})
        return str(made["kdb_id"])

    def upload(self, base: str, *files: tuple[str, bytes], **fields: str) -> requests.Response:
        return self._session.post(
            f"{self._url}/knowledge-base/doc/add_by_files",
            data={"kdb_id": base, **fields},
            files=[("files", file) for file in files],
            timeout=30,
        )

    def done(self, base: str, task: str) -> dict[str, Any]:
        """A task's progress once nothing of it waits or is being processed."""
        until = time.monotonic() + DONE_S
        while True:
            found = self.get("/knowledge-base/doc/task_process", kdb_id=base, task_id=task)
            if found["success"] + found["fail"] == found["total"]:
                return dict(found)
            assert time.monotonic() < until, found
            time.sleep(0.05)

    def chat(self, script: list[Any], **fields: Any) -> list[dict[str, Any]]:
        """The lines of a turn of the script model."""
        said = {"role": "user", "content": f"script:{json.dumps(script)}"}
        body = {"messages": [said], **fields}
        answer = self._session.post(f"{self._url}/stream", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines() if line.startswith("{")]


def results(lines: list[dict[str, Any]]) -> str:
    return "\n".join(str(line["content"]) for line in lines if line["type"] == "tool_call_result")


def skipped(lines: list[dict[str, Any]]) -> str:
    return "\n".join(str(line["content"]) for line in lines if line["type"] == "system")


def test_agents_look_things_up_and_say_where(tmp_path: Path) -> None:
    with serving(tmp_path / "data", given=SETTINGS) as server:
        admin = Account(server, "admin", PASSWORD)
        made = {name: f"{name} password 7" for name in ("ann", "bob")}
        for name, password in made.items():
            admin.post("/user/add", {"username": name, "password": password})
        ann, bob = (Account(server, name, password) for name, password in made.items())
        base = ann.base()
        files = [("tides.md", b"# Tides\n\nThe harbour floods at spring tide."), ("x.md", b"Cats.")]
        task = ann.upload(base, *files).json()["data"]["taskId"]
        assert ann.done(base, task)["taskProcess"] == 100

        look = [
            {"call": "knowledge_search", "args": {"query": "When does the port go under water?"}},
            {"say": "See [1]."},
        ]
        agent = ann.post(
            "/agent/create", {"name": "Pilot", "availableKnowledgeBases": [base, "no"]}
        )
        lines = ann.chat(look, agent_id=agent["agent_id"])
        assert "[1] tides.md, passage 1" in results(lines)
        assert "spring tide" in results(lines)
        assert "no" in skipped(lines)

        # Whoever may use the agent uses its bases, and cannot reach them without it.
        hidden = bob.chat(look, available_knowledge_bases=[base])
        assert "tide" not in results(hidden)
        assert base in skipped(hidden)
        users = {user["label"]: user["value"] for user in ann.get("/user/options")}
        ann.post(f"/agent/{agent['agent_id']}/auth", {"user_ids": [users["bob"]]})
        assert "spring tide" in results(bob.chat(look, agent_id=agent["agent_id"]))
        assert "spring tide" in results(ann.chat(look, available_knowledge_bases=[base]))


def test_kill_9_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Three times, each after a number of documents that the seed gives."""
    kills = sorted(random.Random(2411).sample(range(20, DOCUMENTS - 100), 3))
    data = tmp_path / "data"
    with serving(data, given=SETTINGS) as server:
        admin = Account(server, "admin", PASSWORD)
        base = admin.base()
        tasks = [
            admin.upload(base, *map(marked, range(n, n + TOGETHER))).json()["data"]["taskId"]
            for n in range(0, DOCUMENTS, TOGETHER)
        ]
        killed_after(server, admin, base, kills[0])
    for kill in kills[1:]:
        with serving(data, given=SETTINGS) as server:
            killed_after(server, Account(server, "admin", PASSWORD), base, kill)
    with serving(data, given=SETTINGS) as server:
        admin = Account(server, "admin", PASSWORD)
        for task in tasks:
            assert admin.done(base, task)["success"] == TOGETHER
    with contextlib.closing(sqlite3.connect(data / "quartet.sqlite")) as rows:
        kept = [row[0] for row in rows.execute("SELECT content FROM knowledge_chunks")]
        words = rows.execute("SELECT count(*) FROM knowledge_words").fetchone()[0]
    assert words == len(kept)
    found = Counter(marker for text in kept for marker in re.findall(r"Marker\w+", text))
    assert found == {f"Marker{n}{half}": 1 for n in range(DOCUMENTS) for half in "ab"}


def marked(number: int) -> tuple[str, bytes]:
    """A document of two chunks, each with a word that stands nowhere else."""
    text = f"# One\n\nMarker{number}a here.\n\n# Two\n\nMarker{number}b there."
    return f"{number}.md", text.encode()


def killed_after(server: Server, account: Account, base: str, documents: int) -> None:
    """Kill the server once so many documents are done, and not all of them."""
    query = {"kdb_id": base, "query_status": 2, "page_size": 1}
    until = time.monotonic() + DONE_S
    while account.get("/knowledge-base/doc/list", **query)["total"] < documents:
        assert time.monotonic() < until, "it is too slow"
        time.sleep(0.01)
    server.stop(signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(server.data / "quartet.sqlite")) as rows:
        states = dict(rows.execute("SELECT state, count(*) FROM knowledge_documents GROUP BY 1"))
    assert documents <= states["succeeded"] < DOCUMENTS


def test_uploads_are_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    with serving(tmp_path / "data", given=SETTINGS) as server:
        admin = Account(server, "admin", PASSWORD)
        base, qa = admin.base(), admin.base("qa")
        good = ("a.md", b"alpha")
        for refused in (("b.exe", b"MZ"), ("../..", b"x"), ("", b"x")):
            assert admin.upload(base, good, refused).status_code in (400, 422)
        assert admin.upload(qa, ("a.md", b"text")).status_code == 400
        assert admin.upload(qa, ("a.csv", b"one column\n")).status_code == 400
        assert admin.upload(base, good, good, override="true").status_code == 400
        assert admin.get("/knowledge-base/doc/list", kdb_id=base)["total"] == 0
        assert not list((tmp_path / "data" / "objects").rglob("*-*-*/*-*"))

        task = admin.upload(qa, ("q.csv", b"question,answer\nWhere?,Here.\n")).json()["data"]
        assert admin.done(qa, task["taskId"])["success"] == 1
        task = admin.upload(base, ("../../etc/x.md", b"alpha"), ("bad.pdf", b"%PDF-")).json()[
            "data"
        ]
        found = admin.done(base, task["taskId"])
        assert (found["success"], found["fail"], found["taskProcess"]) == (1, 1, 50)
        rows = admin.get("/knowledge-base/doc/list", kdb_id=base, query_status=["2", "3"])["list"]
        assert {row["doc_name"] for row in rows} == {"x.md", "bad.pdf"}
        failed = next(row for row in rows if row["status"] == 3)
        assert "PDF" in failed["metadata"]["reason"]
        task = admin.upload(base, ("x.md", b"omega"), override="true").json()["data"]["taskId"]
        admin.done(base, task)
        texts = admin.post("/knowledge-base/retrieve", {"kdb_id": base, "query": "alpha"})
        assert [result["content"] for result in texts["results"]] == ["omega"]
        admin.post("/knowledge-base/redo_all", {"kdb_id": base})
        assert admin.done(base, task)["success"] == 1
        admin.post("/knowledge-base/clear", {"kdb_id": base})
        assert admin.get("/knowledge-base/doc/list", kdb_id=base)["total"] == 0
