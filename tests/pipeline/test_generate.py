"""scripts/generate writes what follows from openapi/; --check writes nothing and finds drift."""

import gzip
import os
import subprocess
import zlib
from pathlib import Path

import pytest

from scripts.pipeline.__main__ import ROOT, bundles, drift, generate, main, write
from scripts.pipeline.bundle import Unbundled
from tests.pipeline.conftest import FIXTURES, Tree


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return generate(bundles(FIXTURES / "tiny"))


def test_everything_is_generated_and_nothing_drifts(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    assert set(files) == {"__init__.py"} | {
        f"tiny/{name}"
        for name in (
            "__init__.py",
            "models.py",
            "routes.py",
            "openapi.json",
            "openapi.json.gz",
            "openapi.json.br",
        )
    }
    write(files, tmp_path)
    assert drift(files, tmp_path) == []
    assert generate(bundles(FIXTURES / "tiny")) == files


def test_writing_again_touches_nothing_and_removes_strays(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    write(files, tmp_path)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "routes.py").write_text("")
    (tmp_path / "tiny" / "routes.py").write_text("edited by hand")
    untouched = tmp_path / "tiny" / "models.py"
    os.utime(untouched, (1, 1))
    write(files, tmp_path)
    assert untouched.stat().st_mtime == 1
    assert not (tmp_path / "gone" / "routes.py").exists()
    assert drift(files, tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tiny/routes.py", b"HANDLERS = {}\n", "generated/tiny/routes.py: stale"),
        ("tiny/openapi.json.gz", b"junk", "generated/tiny/openapi.json.gz: stale"),
        (
            "tiny/openapi.json.gz",
            gzip.compress(b"{}", mtime=0),
            "generated/tiny/openapi.json.gz: stale",
        ),
        ("tiny/openapi.json.br", b"", "generated/tiny/openapi.json.br: stale"),
        ("tiny/openapi.json", None, "generated/tiny/openapi.json: missing"),
        ("tiny/extra.py", b"", "generated/tiny/extra.py: not generated"),
    ],
)
def test_drift_is_found(
    files: dict[str, bytes], tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    write(files, tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    (found,) = drift(files, tmp_path)
    assert found.startswith(problem)


def test_another_compressor_is_no_drift(files: dict[str, bytes], tmp_path: Path) -> None:
    write(files, tmp_path)
    packed = gzip.compress(files["tiny/openapi.json"], 1, mtime=7)
    assert packed != files["tiny/openapi.json.gz"]
    (tmp_path / "tiny" / "openapi.json.gz").write_bytes(packed)
    assert drift(files, tmp_path) == []
    assert zlib.decompress(files["tiny/openapi.json.gz"], 31) == files["tiny/openapi.json"]


def test_the_command_writes_then_judges_then_checks(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], tree.root) == 0
    assert (tree.root / "generated" / "tiny" / "routes.py").exists()
    assert main(["--check"], tree.root) == 1
    said = capsys.readouterr()
    assert said.err == "handlers.tiny.big_note: No module named 'handlers.tiny'\n"
    tree.edit("paths/notes", "summary: List notes", "summary: ''")
    assert main([], tree.root) == 1
    assert "operations.prose: GET /notes: no summary" in capsys.readouterr().err


def test_check_writes_nothing(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"], tree.root) == 1
    assert not (tree.root / "generated").exists()
    assert "generated/tiny/models.py: missing; run scripts/generate" in capsys.readouterr().err


def test_what_cannot_be_bundled_leaves_generated_alone(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], tree.root) == 0
    held = (tree.root / "generated" / "tiny" / "openapi.json").read_bytes()
    tree.edit("openapi", "paths/notes.yaml", "paths/nope.yaml")
    assert main([], tree.root) == 1
    assert "no such file under paths/" in capsys.readouterr().err
    assert (tree.root / "generated" / "tiny" / "openapi.json").read_bytes() == held


def test_the_contracts_of_the_repository_can_be_bundled() -> None:
    try:
        made = bundles(ROOT)
    except Unbundled as error:
        pytest.fail(str(error))
    assert "sage" in {each.contract for each in made}


def test_the_script_explains_itself() -> None:
    run = subprocess.run(
        [ROOT / "scripts" / "generate", "--help"], capture_output=True, text=True, check=True
    )
    assert "--check" in run.stdout
