"""scripts/setup, as far as it goes without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.clone import clone
from tests.serving import environment

TOOLS = ("bash", "dirname", "id", "uname", "cat", "sha256sum", "cut", "mkdir", "rm", "flock", "cmp")


def setup(
    root: Path, *arguments: str, path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(root / "scripts/setup"), *arguments],
        env=environment({"PATH": path}),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with what every Debian has, and nothing more."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True)
        (tools / name).symlink_to(found.stdout.strip())
    return tools


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def test_a_clone_that_is_set_up_is_left_alone(tmp_path: Path) -> None:
    done = setup(clone(tmp_path / "clone"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_unknown_argument_is_refused(tmp_path: Path) -> None:
    done = setup(clone(tmp_path / "clone"), "--devel")
    assert done.returncode == 2
    assert done.stderr == "usage: scripts/setup [--dev]\n"


def test_without_python_it_says_what_to_install(tmp_path: Path, bare: Path) -> None:
    script(bare / "python3", "exit 1")
    done = setup(clone(tmp_path / "clone", ready=()), path=str(bare))
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_without_venv_it_says_what_to_install_and_leaves_nothing_half_made(
    tmp_path: Path, bare: Path
) -> None:
    root = clone(tmp_path / "clone", ready=())
    for name in ("bin", "lib", "pyvenv.cfg"):
        (root / ".venv" / name).unlink()
    script(
        bare / "python3",
        'if [ "$1" = -m ] && [ "$2" = venv ]; then\n'
        '  mkdir -p "$3/bin"; echo no ensurepip; exit 1\n'
        f'fi\nexec {sys.executable} "$@"',
    )
    done = setup(root, path=str(bare))
    assert done.returncode == 1
    assert "no ensurepip" in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert not (root / ".venv/bin").exists()


def test_as_root_on_debian_it_installs_what_is_missing(tmp_path: Path, bare: Path) -> None:
    root = clone(tmp_path / "clone", ready=())
    for name in ("bin", "lib", "pyvenv.cfg"):
        (root / ".venv" / name).unlink()
    asked = tmp_path / "asked"
    (bare / "id").unlink()
    script(bare / "id", "echo 0")
    script(bare / "apt-get", f'echo "$@" >> {asked}')
    script(
        bare / "python3",
        f'if [ "$1" = -m ] && [ "$2" = venv ]; then exit 1; fi\nexec {sys.executable} "$@"',
    )
    done = setup(root, path=str(bare))
    assert done.returncode == 1
    assert "Installing python3-venv" in done.stdout
    assert asked.read_text().splitlines() == [
        "update -qq",
        "install -y -qq --no-install-recommends python3-venv",
    ]


def test_nobody_but_root_installs(tmp_path: Path, bare: Path) -> None:
    root = clone(tmp_path / "clone", ready=())
    asked = tmp_path / "asked"
    (bare / "id").unlink()
    script(bare / "id", "echo 1000")
    script(bare / "apt-get", f'echo "$@" >> {asked}')
    script(bare / "python3", "exit 1")
    assert setup(root, path=str(bare)).returncode == 1
    assert not asked.exists()


def test_without_chromium_developers_are_told(tmp_path: Path, bare: Path) -> None:
    (bare / "python3").symlink_to(sys.executable)
    done = setup(clone(tmp_path / "clone", ready=("dev",)), "--dev", path=str(bare))
    assert done.returncode == 0
    assert "apt install chromium" in done.stdout


def test_without_a_sandbox_developers_are_told(tmp_path: Path, bare: Path) -> None:
    (bare / "python3").symlink_to(sys.executable)
    done = setup(clone(tmp_path / "clone", ready=("dev",)), "--dev", path=str(bare))
    assert done.returncode == 0
    assert "No bwrap, so agents run no commands (Debian: apt install bubblewrap)." in done.stdout
    for package in ("tigervnc-standalone-server", "x11-utils"):
        assert f"apt install {package}" in done.stdout


def test_as_root_on_debian_it_installs_a_sandbox(tmp_path: Path, bare: Path) -> None:
    asked = tmp_path / "asked"
    (bare / "id").unlink()
    script(bare / "id", "echo 0")
    script(bare / "apt-get", f'echo "$@" >> {asked}')
    (bare / "python3").symlink_to(sys.executable)
    setup(clone(tmp_path / "clone", ready=("dev",)), "--dev", path=str(bare))
    installed = [line.split()[-1] for line in asked.read_text().splitlines() if "install" in line]
    assert {"bubblewrap", "tigervnc-standalone-server", "x11-utils"} <= set(installed)
