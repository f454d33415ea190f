"""What a session's agent does in its sandbox, and what of it can be read from outside."""

from pathlib import Path
from typing import Any

from tests.sessions.talking import Account, Place, plan, said, script, served

HOME = "/home/ubuntu/workspace"


def call(tool: str, **args: object) -> dict[str, object]:
    return {"call": tool, "args": args}


def outputs(told: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """What each command of a chat wrote."""
    return [
        data["content"]["console"][0]["output"]
        for name, data in told
        if name == "tool" and data["status"] == "called" and data["name"] == "shell"
    ]


async def test_a_file_from_the_shell_to_the_download(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    base = f"/sandbox/api/sessions/{session}"
    assert await ann.ask("GET", f"{base}/files") == {"files": []}
    assert (await ann.client.post(f"{base}/shell", json={"session_id": "main"})).status_code == 404
    step = script(
        call("shell_execute", command="mkdir -p out && echo -n grüße > out/a.txt && pwd && id -u"),
        call("file_read", path="out/a.txt"),
        call("file_write", path=f"{HOME}/notes/b.md", content="one\nthe needle\n"),
        call("file_find", pattern="*.md"),
        call("file_search", query="NEEDLE"),
        {"say": "Done."},
    )
    told = await ann.chat(session, script(plan(step)))
    called = {d["function"]: d for n, d in told if n == "tool" and d["status"] == "called"}
    [record] = called["shell_execute"]["content"]["console"]
    assert record["command"].startswith("mkdir -p out")
    assert record["output"] == f"{HOME}\n1000\n"
    assert record["ps1"]
    assert called["shell_execute"]["name"] == "shell"
    assert called["file_read"]["content"] == {"content": "grüße"}
    assert called["file_write"]["content"] == {"content": "one\nthe needle\n"}
    assert called["file_find"]["content"] == {"content": f"{HOME}/notes/b.md"}
    assert called["file_search"]["name"] == "search"
    assert called["file_search"]["content"]["results"] == [
        {"title": "notes/b.md", "link": f"{HOME}/notes/b.md:2", "snippet": "the needle"}
    ]
    assert said(told)[-2:] == ["Done.", "All is done."]

    files = (await ann.ask("GET", f"{base}/files"))["files"]
    assert [file["filepath"] for file in files] == [f"{HOME}/notes/b.md", f"{HOME}/out/a.txt"]
    assert (files[1]["filename"], files[1]["extension"], files[1]["size"]) == ("a.txt", ".txt", 7)
    assert (await ann.ask("GET", f"{base}/files"))["files"] == files
    for path in ("out/a.txt", f"{HOME}/out/a.txt"):
        read = await ann.ask("POST", f"{base}/file", {"filepath": path})
        assert read == {"filepath": path, "content": "grüße"}
    download = await ann.client.get(f"/sandbox/api/files/{files[1]['id']}/download")
    assert (download.status_code, download.content) == (200, "grüße".encode())
    console = await ann.ask("POST", f"{base}/shell", {"session_id": "main"})
    assert (console["session_id"], console["output"]) == ("main", f"{HOME}\n1000\n")
    assert [one["command"] for one in console["console_records"]] == [record["command"]]

    await ann.chat(session, script(call("shell_execute", command="echo more >> out/a.txt")))
    changed = (await ann.ask("GET", f"{base}/files"))["files"][1]
    assert (changed["id"], changed["size"]) == (files[1]["id"], 12)
    assert await ann.ask("DELETE", f"/sandbox/api/files/{files[1]['id']}") is None
    [left] = (await ann.ask("GET", f"{base}/files"))["files"]
    assert left["id"] == files[0]["id"]


async def test_what_a_workspace_does_not_give(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    base = f"/sandbox/api/sessions/{session}"
    out = "ln -s /etc/passwd link; ln -s / root; truncate -s 2M large; mkdir folder; ls"
    told = await ann.chat(session, script(call("shell_execute", command=out)))
    assert said(told) == [] or said(told)[-1]
    for path, status in [
        ("link", 404),
        ("root/etc/passwd", 404),
        ("folder", 404),
        ("missing", 404),
        ("large", 413),
        ("../x", 400),
        (f"{HOME}/../.bashrc", 400),
        ("/etc/shadow", 404),
        ("/proc/self/mem", 404),
        ("/dev/urandom", 404),
        ("/home/ubuntu", 404),
        ("%2e%2e/x", 400),
    ]:
        answer = await ann.client.post(f"{base}/file", json={"filepath": path})
        assert answer.status_code == status, (path, answer.text)
    files = (await ann.ask("GET", f"{base}/files"))["files"]
    assert [file["filename"] for file in files] == ["large"]
    console = await ann.client.post(f"{base}/shell", json={"session_id": "other"})
    assert console.status_code == 404


async def test_an_attachment_lies_in_the_sandbox(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    kept = await ann.client.post("/sandbox/api/files", files={"file": ("a b.txt", b"of ann")})
    file = kept.json()["data"]
    reads = script(call("shell_execute", command="cat 'upload/a b.txt'"), {"say": "Read."})
    told = await ann.chat(session, reads, attachments=[file["id"]])
    assert told[0][1]["attachments"] == [{**file, "filepath": f"{HOME}/upload/a b.txt"}]
    called = next(d for n, d in told if n == "tool" and d["status"] == "called")
    assert called["content"]["console"][0]["output"] == "of ann"


async def test_a_file_outside_the_workspace_is_the_sandboxs(here: Place, tmp_path: Path) -> None:
    """It is read inside, never on the host, and only while the sandbox runs."""
    ann, bob, admin = await here.account(), await here.account(), await here.admin()
    session = await ann.create()
    path = f"/sandbox/api/sessions/{session}/file"
    mark = tmp_path / "mark"
    mark.write_text("of the host")

    async def status(account: Account, filepath: str) -> int:
        return (await account.client.post(path, json={"filepath": filepath})).status_code

    assert await status(ann, "/etc/passwd") == 404
    makes = (
        "echo -n grüße > /tmp/x; echo alias > ~/.bashrc; mkfifo /tmp/p; truncate -s 2M /tmp/large"
    )
    told = await ann.chat(
        session,
        script(
            call("shell_execute", command=f"{makes}; ln -s {mark} /tmp/link; ln -s /tmp/x here"),
            call("file_read", path="/tmp/x"),
            call("file_read", path="/tmp/none"),
        ),
    )
    read, missing = [d["content"] for n, d in told if n == "tool" and d["status"] == "called"][1:]
    assert read == {"content": "grüße"}
    assert missing["error"] == "file_read failed: there is no file /tmp/none"
    assert await ann.content(session, "/tmp/x") == "grüße"
    assert await ann.content(session, "/home/ubuntu/.bashrc") == "alias\n"
    passwd = await ann.content(session, "/etc/passwd")
    assert "ubuntu:x:1000" in passwd
    assert passwd != Path("/etc/passwd").read_text()
    assert await admin.content(session, "/tmp/x") == "grüße"
    assert await status(bob, "/tmp/x") == 403
    assert await status(ann, "/tmp/large") == 413
    for missed in ("/tmp/link", str(mark), "/tmp/p", "/tmp", "here", "/tmp/x; cat /tmp/x", "-n"):
        assert await status(ann, missed) == 404, missed


async def upload(ann: Account, name: str, content: bytes) -> str:
    kept = await ann.client.post("/sandbox/api/files", files={"file": (name, content)})
    made: str = kept.json()["data"]["id"]
    return made


async def test_an_attachment_takes_a_free_name(here: Place) -> None:
    """Neither one that came before it nor what the agent wrote is lost."""
    ann = await here.account()
    session = await ann.create()
    own = "mkdir upload; cd upload; echo -n own > 'report (2).csv'; ln -s /no 'report (3).csv'"
    await ann.chat(session, script(call("shell_execute", command=own)))
    files = [await upload(ann, "report.csv", content) for content in (b"1", b"2", b"3")]
    told = await ann.chat(session, "one", attachments=files[:1])
    told += await ann.chat(session, "two more", attachments=files[1:])
    paths = [
        file["filepath"] for name, data in told if name == "message" for file in data["attachments"]
    ]
    names = ("report.csv", "report (4).csv", "report (5).csv")
    assert paths == [f"{HOME}/upload/{name}" for name in names]
    for path, content in zip([*paths, "upload/report (2).csv"], [*"123", "own"], strict=True):
        assert await ann.content(session, path) == content


async def test_an_attachment_needs_no_words(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    file = await upload(ann, "figures.csv", b"1")
    told = await ann.chat(session, attachments=[file])
    assert told[0][1]["message"] == ""
    assert [each["filename"] for each in told[0][1]["attachments"]] == ["figures.csv"]
    assert said(told) == ["[attached: figures.csv]"], "what a model is told of it, echoed"
    assert told[-1][0] == "done"
    assert (await ann.detail(session))["title"] == "figures.csv"
    asked = await ann.chat(session, script({"ask": "Which?"}, {"say": "Thank you."}))
    assert asked[-1][0] == "wait"
    told = await ann.chat(session, " ", attachments=[file])
    assert said(told) == ["Thank you."]
    assert told[0][1]["attachments"][0]["filepath"] == f"{HOME}/upload/figures (2).csv"
    told = await ann.chat(session, " ", attachments=[file])
    assert said(told) == ["[attached: figures.csv]"]
    blank = await ann.client.post(f"/sandbox/api/sessions/{session}/chat", json={"message": " "})
    assert blank.status_code == 400


async def test_a_message_that_is_refused_attaches_nothing(dialect: str, tmp_path: Path) -> None:
    with served(tmp_path / "data", dialect, {"RUNS_PER_USER": "1"}) as server:
        here = Place(server)
        ann = await here.account()
        session, file = await ann.create(), await upload(ann, "a.txt", b"of ann")
        busy = [await ann.create() for _ in range(4)]
        for each in busy:
            async with ann.chatting(each, script({"tokens": 50_000, "every_ms": 10})) as events:
                await events.next()
        base = f"/sandbox/api/sessions/{session}"
        body = {"message": "read it", "attachments": [file]}
        assert (await ann.client.post(f"{base}/chat", json=body)).status_code == 429
        assert (await ann.ask("GET", f"{base}/files"))["files"] == []
        for each in busy:
            await ann.ask("POST", f"/sandbox/api/sessions/{each}/stop")
        told = await ann.chat(session, "read it", attachments=[file])
        assert told[0][1]["attachments"][0]["filepath"] == f"{HOME}/upload/a.txt"
        await here.close()


async def test_stopping_interrupts_what_runs_in_the_sandbox(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    base = f"/sandbox/api/sessions/{session}"
    command = "echo on > begun; sleep 600; echo over"
    waits = script(call("shell_execute", command=command, timeout_s=600))
    async with ann.chatting(session, waits) as events:
        await events.until("tool", status="calling")
        await ann.content(session, "begun")
        await ann.ask("POST", f"{base}/stop")
        *_, (name, cut), (last, _) = await events.rest()
        assert (name, cut["status"], cut["args"]["command"], last) == (
            *("tool", "called", command, "done"),
        )
        assert "cut off" in cut["content"]["error"]
    after = script(call("shell_execute", command="pgrep -a sleep; echo free"), {"say": "Done."})
    assert outputs(await ann.chat(session, after)) == ["free\n"]
    records = (await ann.ask("POST", f"{base}/shell", {"session_id": "main"}))["console_records"]
    assert records[0]["command"] == command
    assert "over" not in records[0]["output"]


async def test_stopping_kills_what_takes_no_interrupt(here: Place) -> None:
    """And what runs in the background; another session's commands go on."""
    ann = await here.account()
    session, other = await ann.create(), await ann.create()
    begins = "sleep 1201 & until pgrep sleep >/dev/null; do :; done; echo on"
    for each in (session, other):
        runs = script(call("shell_execute", command=begins))
        assert outputs(await ann.chat(each, runs)) == ["on\n"]
    deaf = "trap '' INT; echo deaf > ready; sleep 1202; sleep 1203"
    waits = script(call("shell_execute", command=deaf, shell="deaf", timeout_s=600))
    async with ann.chatting(session, waits) as events:
        await events.until("tool", status="calling")
        await ann.content(session, "ready")
        await ann.ask("POST", f"/sandbox/api/sessions/{session}/stop")
        assert (await events.rest())[-1][0] == "done"
    look = script(call("shell_execute", command="pgrep -a sleep; true"))
    assert outputs(await ann.chat(session, look)) == [""]
    assert "sleep 1201" in outputs(await ann.chat(other, look))[0]


async def test_sage_deletes_a_session_as_well(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    await ann.chat(session, script(call("file_write", path="a", content="1")))
    place = here.server.data / "workspaces" / "sessions" / ann.id / session
    assert place.exists()
    gone = await ann.client.delete(f"/sage/api/conversations/{session}")
    assert gone.status_code == 200
    assert not place.exists()


async def test_deleting_a_session_takes_its_workspace(here: Place) -> None:
    ann = await here.account()
    session = await ann.create()
    base = f"/sandbox/api/sessions/{session}"
    await ann.chat(session, script(call("shell_execute", command="echo 1 > a; sleep 600 &")))
    [file] = (await ann.ask("GET", f"{base}/files"))["files"]
    place = here.server.data / "workspaces" / "sessions" / ann.id / session
    assert place.exists()
    assert await ann.ask("POST", f"{base}/delete") is None
    assert not place.exists()
    assert (await ann.client.get(base)).status_code == 404
    assert (await ann.client.get(f"/sandbox/api/files/{file['id']}")).status_code == 404
    assert await ann.sessions() == []
