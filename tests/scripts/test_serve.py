"""scripts/serve and scripts/admin as a newcomer runs them."""

import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.scripts.clone import clone
from tests.serving import environment

READY_S = 60


def test_serve_prints_where_it_is_and_ends_on_a_signal(tmp_path: Path) -> None:
    root = clone(tmp_path / "clone")
    output = (tmp_path / "output").open("w+")
    process = subprocess.Popen(
        [str(root / "scripts/serve"), "--port", "0", "--assistant-port", "0"],
        cwd=root,
        env=environment(),
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + READY_S
        while not (found := re.search(r"Quartet is at +(\S+)", Path(output.name).read_text())):
            assert process.poll() is None, Path(output.name).read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with urllib.request.urlopen(f"{found[1]}/ready", timeout=10) as answer:
            assert answer.read() == b"ready\n"
        listed = subprocess.run(
            [str(root / "scripts/admin"), "list-users"],
            cwd=root,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert "\tadmin\t" in listed.stdout, listed.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()
        output.close()
    printed = Path(output.name).read_text()
    assert len(re.findall(r"^ +password +\S+ +\(shown this once\)$", printed, re.MULTILINE)) == 1
    assert (root / "data/quartet.sqlite").exists()


def test_help_lists_the_flags_without_starting_anything(tmp_path: Path) -> None:
    root = clone(tmp_path / "clone")
    shown = subprocess.run(
        [str(root / "scripts/serve"), "--help"],
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for flag in ("--port", "--assistant-port", "--host", "--data"):
        assert flag in shown
    assert ".env.example" in shown
    assert not (root / "data").exists()


def test_a_setting_that_cannot_be_read_is_named_without_its_value(tmp_path: Path) -> None:
    root = clone(tmp_path / "clone")
    for script, said in (
        (["scripts/serve"], "quartet: "),
        (["scripts/admin", "list-users"], "admin: "),
    ):
        done = subprocess.run(
            [str(root / script[0]), *script[1:]],
            cwd=root,
            env=environment({"DRAIN_S": "S3CRET"}),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"{said}DRAIN_S: ")
        assert "S3CRET" not in done.stderr
        assert "Traceback" not in done.stderr


def test_test_runs_the_named_environment_and_passes_its_verdict_on(tmp_path: Path) -> None:
    root = clone(tmp_path / "clone", ready=("dev",))
    (root / "tox.ini").unlink()
    (root / "tox.ini").write_text(
        "[tox]\nno_package = true\n"
        "[testenv]\npackage = skip\nallowlist_externals = *\n"
        "[testenv:good]\ncommands = true\n[testenv:bad]\ncommands = false\n"
    )
    for name, verdict in (("good", 0), ("bad", 1)):
        done = subprocess.run(
            [str(root / "scripts/test"), name],
            cwd=root,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (done.returncode == 0) == (verdict == 0), done.stdout + done.stderr
        assert re.search(r"Setup took \d+ s, tests \d+ s\.", done.stdout)
