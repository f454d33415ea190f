"""Every operation is bound by name."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from scripts.pipeline.operations import operations, parameter_name, python_name
from scripts.pipeline.routes import routes
from tests.pipeline.conftest import Tree


def run(source: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the generated module holds, with stand-ins for what it imports."""
    generated, handlers = ModuleType("generated.tiny"), ModuleType("handlers.tiny")
    generated.models = SimpleNamespace(NoteCreate="NoteCreate")  # type: ignore[attr-defined]
    handlers.big_note = SimpleNamespace(  # type: ignore[attr-defined]
        archive="archive", create="create", get="get", list_="list_"
    )
    monkeypatch.setitem(sys.modules, "generated.tiny", generated)
    monkeypatch.setitem(sys.modules, "handlers.tiny", handlers)
    scope: dict[str, Any] = {}
    exec(source, scope)
    return scope


def test_the_module_binds_every_operation(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tree.bundle().document
    source = routes("tiny", document, {})
    assert source.startswith('"""Routes of the tiny contract. Generated, do not edit: run')
    module = run(source, monkeypatch)
    assert module["HANDLERS"] == {
        "big_note_archive": "archive",
        "big_note_create": "create",
        "big_note_get": "get",
        "big_note_list": "list_",
    }
    assert module["ALIASES"] == {"big_note_get_compat": "big_note_get"}
    assert module["BODIES"] == {"big_note_archive": dict, "big_note_create": "NoteCreate"}
    assert module["ENVELOPED"] == {"big_note_create"}
    bound = set(module["HANDLERS"]) | set(module["ALIASES"])
    assert bound == {operation.id for operation in operations(document)}


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("list", "list_"),
        ("import", "import_"),
        ("exec", "exec_"),
        ("type", "type_"),
        ("get", "get"),
        ("delete", "delete"),
        ("list_options", "list_options"),
    ],
)
def test_functions_do_not_hide_what_python_has(rest: str, name: str) -> None:
    assert python_name(rest) == name


def test_parameters_keep_their_names() -> None:
    assert parameter_name("page_size") == "page_size"
    assert parameter_name("type") == "type"
    assert parameter_name("Idempotency-Key") == "Idempotency_Key"


@pytest.mark.parametrize(
    ("old", "new", "enveloped"),
    [
        ("enum: [200]", "enum: [200, 201]", False),
        ("message: {type: string}", "msg: {type: string}", False),
        ("message: {type: string}", "message: {type: string, minLength: 1}", True),
    ],
)
def test_the_envelope_is_known_by_its_keys(tree: Tree, old: str, new: str, enveloped: bool) -> None:
    tree.edit("paths/notes", old, new)
    made = {each.id: each for each in operations(tree.bundle().document)}
    assert (made["big_note_create"].data is not None) is enveloped
