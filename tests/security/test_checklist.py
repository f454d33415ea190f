"""The table names what exists, and the document is the table."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.security.checklist import DOCUMENT, LINES, ROOT, document
from tests.security.every_defence import DEFENCES
from tests.security.test_defences_matter import owner_of


@cache
def functions_of(file: Path) -> frozenset[str]:
    """Names of the functions at the top of a file."""
    tree = ast.parse(file.read_text())
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in found)


def test_every_line_stands_once() -> None:
    assert list(LINES) == list(range(1, 65))


@pytest.mark.parametrize("number", LINES)
def test_a_line_is_shown_or_waits(number: int) -> None:
    line = LINES[number]
    for test in line.tests:
        file, _, name = test.partition("::")
        assert name in functions_of(ROOT / file), test
    if line.where:
        owner_of(line.where)
    defences = [defence for defence in DEFENCES if defence.line == number]
    assert line.waits or line.tests or defences
    if not line.waits:
        assert defences or line.where, "covered, and no defence is named"


def test_every_patched_attribute_exists() -> None:
    for defence in DEFENCES:
        assert defence.line in LINES
        for where in defence.removed:
            owner_of(where)


def test_names_are_given_once() -> None:
    names = [(defence.line, defence.name) for defence in DEFENCES]
    assert len(set(names)) == len(names)


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == document(), "run python -m tests.security.checklist"


@pytest.mark.parametrize("name", ["bootstrap", "runtime", "dev"])
def test_every_requirement_is_pinned_by_hash(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pinned = re.findall(r"^[A-Za-z0-9._-]+(?:\[[^\]]*\])?==\S+", text, re.MULTILINE)
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(pinned) == len(entries) > 0
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
