"""Every error that is raised has its texts: a key without one would answer 500."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain import errors
from server.messages import catalogue

ROOT = Path(__file__).parent.parent.parent
KINDS = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.DomainError)
}


def raised() -> Iterator[tuple[str, str]]:
    """(file, key) of every error that is made with a literal key."""
    for folder in ("domain", "handlers", "server"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                    continue
                at = {"Refusal": 1, **dict.fromkeys(KINDS, 0)}.get(node.func.id)
                if at is None or len(node.args) <= at:
                    continue
                key = node.args[at]
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", key.value


def test_every_key_that_is_raised_has_its_texts() -> None:
    found = list(raised())
    assert len(found) > 100
    assert [(where, key) for where, key in found if key not in catalogue()] == []


@pytest.mark.parametrize("key", sorted(catalogue()))
def test_both_languages_say_the_same_things(key: str) -> None:
    zh, en = (
        {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        for text in catalogue()[key]
    )
    assert zh == en
