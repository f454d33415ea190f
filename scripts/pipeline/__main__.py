"""`python -m scripts.pipeline`: generate, or (`--check`) prove that nothing has drifted."""

import argparse
import gzip
import sys
import tempfile
from pathlib import Path

import brotli

from scripts.pipeline import checks, handlers, parity
from scripts.pipeline.bundle import Bundle, Unbundled, bundle, encoded, unused_shared
from scripts.pipeline.models import NotGenerated, models
from scripts.pipeline.routes import routes
from scripts.pipeline.source import Unreadable

ROOT = Path(__file__).resolve().parents[2]


def contracts(root: Path) -> list[Path]:
    """The folders of openapi/ that hold a contract."""
    return sorted(index.parent for index in (root / "openapi").glob("*/openapi.yaml"))


def bundles(root: Path) -> list[Bundle]:
    """Every contract, bundled. Raises Unbundled with the problems of all of them."""
    made: list[Bundle] = []
    problems: list[str] = []
    for folder in contracts(root):
        try:
            made.append(bundle(folder))
        except Unbundled as error:
            problems += error.problems
    if problems:
        raise Unbundled(problems)
    return made


def generate(made: list[Bundle], target: Path) -> None:
    """Write `target` anew: all that is generated from the bundles, and nothing else.

    Everything is made before anything is written. Raises NotGenerated.
    """
    files: dict[str, bytes] = {"__init__.py": b""}
    for contract, document, *_ in made:
        files[f"{contract}/__init__.py"] = b""
        files[f"{contract}/models.py"] = models(contract, document).encode()
        files[f"{contract}/routes.py"] = routes(contract, document).encode()
        for name, content in encoded(document).items():
            files[f"{contract}/{name}"] = content
    for stray in _contents(target).keys() - files.keys():
        (target / stray).unlink()
    for name, content in files.items():
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)


def drift(made: list[Bundle], committed: Path) -> list[str]:
    """What differs between `committed` and what the bundles give, file by file."""
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory) / "generated"
        generate(made, fresh)
        ours, theirs = _contents(fresh), _contents(committed)
    return [
        f"generated/{name}: "
        + ("missing" if name not in theirs else "stale" if name in ours else "no longer generated")
        + "; run scripts/generate"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def judge(root: Path, made: list[Bundle]) -> list[str]:
    """Everything that the specs and the tables next to them do wrong."""
    problems = [problem for each in made for problem in each.unused]
    problems += unused_shared(root / "openapi", made)
    try:
        problems += checks.run(made, checks.Surroundings.read(root))
    except Unreadable as error:
        problems.append(f"openapi/verbs.yaml: {error}")
    problems += parity.check(root / "contracts", made)
    return problems


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """0 when all is well; 1 after writing every problem to stderr."""
    parser = argparse.ArgumentParser(prog="scripts/generate", description=__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail when generated/ is stale or a handler does not fit its operation",
    )
    check = parser.parse_args(arguments).check
    try:
        made = bundles(root)
        if check:
            problems = drift(made, root / "generated")
        else:
            problems = []
            generate(made, root / "generated")
    except Unbundled as error:
        problems = error.problems
    except NotGenerated as error:
        problems = [str(error)]
    else:
        problems += judge(root, made)
        if check:
            problems += handlers.check(made)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(problems)} problems" if problems else "generated/ is true to openapi/")
    return 1 if problems else 0


def _contents(folder: Path) -> dict[str, bytes]:
    """Files by name. Compressed ones count as what they hold: another zlib packs differently."""
    unpack = {".gz": gzip.decompress, ".br": brotli.decompress}
    return {
        str(file.relative_to(folder)): unpack.get(file.suffix, bytes)(file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


if __name__ == "__main__":
    sys.exit(main())
