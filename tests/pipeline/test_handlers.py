"""A handler names what its operation documents: no less, and no more."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from scripts.pipeline import handlers
from scripts.pipeline.operations import Operation, operations
from tests.pipeline.conftest import Tree


def operation(tree: Tree, name: str) -> Operation:
    (found,) = [each for each in operations(tree.bundle().document) if each.id == name]
    return found


async def read(quartet: Any, caller: Any, note_id: str) -> None: ...
async def ignores(quartet: Any) -> None: ...
async def wants_more(quartet: Any, note_id: str, colour: str) -> None: ...
async def wants_a_body(quartet: Any, note_id: str, body: Any) -> None: ...
async def takes_anything(quartet: Any, **rest: Any) -> None: ...
def waits_for_nobody(quartet: Any, note_id: str) -> None: ...


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (read, ""),
        (None, "does not exist"),
        (waits_for_nobody, "is not a coroutine function"),
        (ignores, "ignores note_id"),
        (wants_more, "names colour, which the operation has not"),
        (wants_a_body, "names body, which the operation has not"),
        (takes_anything, "takes arguments that have no name"),
    ],
)
def test_a_read(tree: Tree, handler: Callable[..., Any] | None, problem: str) -> None:
    found = list(handlers.fit(operation(tree, "big_note_get"), "handlers.tiny.big_note", handler))
    assert len(found) == bool(problem)
    assert all(each.endswith(problem) for each in found)


async def make(quartet: Any, caller: Any, body: Any, origin: Any) -> None: ...
async def make_nothing(quartet: Any) -> None: ...


def test_a_write_reads_its_body_and_leaves_the_key_to_the_lane(tree: Tree) -> None:
    create = operation(tree, "big_note_create")
    assert list(handlers.fit(create, "m", make)) == []
    assert list(handlers.fit(create, "m", make_nothing)) == [
        "m.create (big_note_create): ignores the body"
    ]


async def list_notes(quartet: Any, type: str) -> None: ...
async def keep(quartet: Any, note_id: str, body: Any) -> None: ...
async def forgotten(quartet: Any) -> None: ...
async def _private(quartet: Any) -> None: ...


def test_operations_and_functions_match_both_ways(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tree.bundle()
    assert handlers.check([made]) == ["handlers.tiny.big_note: No module named 'handlers.tiny'"]
    package, module = ModuleType("handlers.tiny"), ModuleType("handlers.tiny.big_note")
    for name, function in {
        "get": read,
        "create": make,
        "list_": list_notes,
        "archive": keep,
        "_private": _private,
    }.items():
        setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "handlers.tiny", package)
    monkeypatch.setitem(sys.modules, "handlers.tiny.big_note", module)
    assert handlers.check([made]) == []
    module.imported = forgotten  # type: ignore[attr-defined]
    assert handlers.check([made]) == []
    monkeypatch.setattr(forgotten, "__module__", "handlers.tiny.big_note")
    assert handlers.check([made]) == [
        "handlers.tiny.big_note.imported: no operation big_note_imported"
    ]
    del module.archive
    assert "handlers.tiny.big_note.archive (big_note_archive): does not exist" in handlers.check(
        [made]
    )
