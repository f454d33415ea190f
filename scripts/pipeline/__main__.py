"""`python -m scripts.pipeline`: generate, or (`--check`) prove that nothing has drifted."""

import argparse
import gzip
import sys
import zlib
from pathlib import Path

import brotli

from scripts.pipeline import checks, handlers, parity
from scripts.pipeline.bundle import Bundle, Unbundled, bundle, encoded, unused_shared
from scripts.pipeline.models import NotGenerated, misfits, models
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


def generate(made: list[Bundle]) -> dict[str, bytes]:
    """All files of generated/ by name, and nothing else. Raises NotGenerated."""
    files: dict[str, bytes] = {"__init__.py": b""}
    for bundled in made:
        contract, document = bundled.contract, bundled.document
        files[f"{contract}/__init__.py"] = b""
        files[f"{contract}/models.py"] = models(contract, document).encode()
        files[f"{contract}/routes.py"] = routes(contract, document, bundled.channels).encode()
        for name, content in encoded(document).items():
            files[f"{contract}/{name}"] = content
        if bundled.channels:
            for name, content in encoded(bundled.channels, "asyncapi.json").items():
                files[f"{contract}/{name}"] = content
    return files


def write(files: dict[str, bytes], target: Path) -> None:
    """Make `target` hold exactly `files`; what is the same already is not touched."""
    held = _contents(target)
    for stray in held.keys() - files.keys():
        (target / stray).unlink()
    for name, content in files.items():
        if held.get(name) != content:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)


def drift(files: dict[str, bytes], committed: Path) -> list[str]:
    """What differs between `committed` and what would be written, file by file."""
    held = _contents(committed)
    return [
        f"generated/{name}: "
        + ("missing" if name not in held else "stale" if name in files else "not generated")
        + "; run scripts/generate"
        for name in sorted(files.keys() | held.keys())
        if name not in files or name not in held or _plain(name, files) != _plain(name, held)
    ]


def judge(root: Path, made: list[Bundle], files: dict[str, bytes]) -> list[str]:
    """Everything that the specs and the tables next to them do wrong."""
    problems = [problem for each in made for problem in each.unused]
    problems += unused_shared(root / "openapi", made)
    try:
        problems += checks.run(made, checks.Surroundings.read(root))
    except Unreadable as error:
        problems.append(f"openapi/verbs.yaml: {error}")
    for each in made:
        module = files[f"{each.contract}/models.py"].decode()
        problems += misfits(each.contract, each.document, module)
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
        files = generate(made)
    except Unbundled as error:
        problems = error.problems
    except NotGenerated as error:
        problems = [str(error)]
    else:
        problems = judge(root, made, files)
        if check:
            problems += drift(files, root / "generated") + handlers.check(made)
        else:
            write(files, root / "generated")
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(problems)} problems" if problems else "generated/ is true to openapi/")
    return 1 if problems else 0


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def _plain(name: str, files: dict[str, bytes]) -> bytes:
    """A file's bytes; of a compressed one, what it holds: another zlib packs differently."""
    unpack = {".gz": gzip.decompress, ".br": brotli.decompress}.get(Path(name).suffix, bytes)
    try:
        return unpack(files[name])
    except (OSError, EOFError, zlib.error, brotli.error):
        return b"not what it claims to be"


if __name__ == "__main__":
    sys.exit(main())
