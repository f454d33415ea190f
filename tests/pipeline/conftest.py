"""A small contract that keeps every rule, to be broken one rule at a time."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.pipeline.__main__ import bundles
from scripts.pipeline.bundle import Bundle, Unbundled
from scripts.pipeline.checks import Surroundings
from scripts.pipeline.source import read

FIXTURES = Path(__file__).parent / "fixtures"


class Tree(NamedTuple):
    """A copy of the fixture's tree; `root` holds openapi/ and contracts/."""

    root: Path

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace the one place where `old` stands in a file of openapi/tiny."""
        path = self.spec(file)
        text = path.read_text()
        assert text.count(old) == 1, (file, old, text.count(old))
        path.write_text(text.replace(old, new))

    def spec(self, file: str) -> Path:
        return self.root / "openapi" / "tiny" / f"{file}.yaml"

    def bundle(self) -> Bundle:
        (made,) = bundles(self.root)
        return made

    def problems(self) -> list[str]:
        """Why the folder cannot be bundled."""
        with pytest.raises(Unbundled) as caught:
            self.bundle()
        return caught.value.problems

    def around(self) -> Surroundings:
        return Surroundings(read(self.root / "openapi" / "verbs.yaml"), frozenset({"note.odd"}))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    shutil.copytree(FIXTURES / "tiny", tmp_path / "tiny")
    return Tree(tmp_path / "tiny")
