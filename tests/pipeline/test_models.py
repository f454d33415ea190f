"""The Structs carry what the schemas let through."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from scripts.pipeline.__main__ import bundles
from scripts.pipeline.models import (
    NotGenerated,
    is_free_map,
    misfits,
    models,
    tell_absent_from_null,
)
from tests.pipeline.conftest import FIXTURES, Tree


@pytest.fixture(scope="module")
def source() -> str:
    (made,) = bundles(FIXTURES / "tiny")
    return models("tiny", made.document)


@pytest.fixture(scope="module")
def tiny(source: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    file: Path = tmp_path_factory.mktemp("models") / "tiny_models.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("tiny_models", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_models"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["tiny_models"]


def test_the_same_schemas_give_the_same_module(source: str) -> None:
    (made,) = bundles(FIXTURES / "tiny")
    assert models("tiny", made.document) == source
    assert source.startswith(
        '"""Models of the tiny contract. Generated, do not edit: run `scripts/'
    )


def test_absent_null_and_given_are_three_things(tiny: ModuleType) -> None:
    absent = msgspec.convert({"text": "a"}, tiny.NoteCreate)
    null = msgspec.convert({"text": "a", "parent": None, "listPrice": None}, tiny.NoteCreate)
    given = msgspec.convert({"text": "a", "parent": "p", "listPrice": 3}, tiny.NoteCreate)
    assert (absent.parent, absent.listPrice) == (msgspec.UNSET, msgspec.UNSET)
    assert (null.parent, null.listPrice) == (None, None)
    assert (given.parent, given.listPrice) == ("p", 3.0)
    assert msgspec.json.decode(msgspec.json.encode(absent)) == {"text": "a", "pinned": False}
    assert msgspec.json.decode(msgspec.json.encode(null))["parent"] is None


def test_names_are_those_of_the_wire_unless_python_has_them(tiny: ModuleType) -> None:
    note = msgspec.convert({"text": "a", "from": "shop", "listPrice": 1}, tiny.NoteCreate)
    assert note.from_ == "shop"
    assert note.listPrice == 1.0
    assert msgspec.to_builtins(note)["from"] == "shop"


def test_defaults_of_the_schema_are_the_structs(tiny: ModuleType) -> None:
    assert msgspec.convert({"text": "a"}, tiny.NoteCreate).pinned is False


def test_free_maps_keep_every_key(tiny: ModuleType) -> None:
    labels = {"any": {"thing": [1, None]}, "$ref": "x"}
    note = msgspec.convert({"text": "a", "labels": labels}, tiny.NoteCreate)
    assert note.labels == labels


def test_alternatives_are_told_apart_by_their_tag(tiny: ModuleType) -> None:
    parts = [{"type": "text", "text": "t"}, {"type": "link", "url": "u"}]
    note = msgspec.convert({"text": "a", "parts": parts}, tiny.NoteCreate)
    assert [type(part) for part in note.parts] == [tiny.TextPart, tiny.LinkPart]
    assert msgspec.to_builtins(note)["parts"] == parts


def test_schemas_may_contain_themselves(tiny: ModuleType) -> None:
    note = {"id": "1", "text": "a", "notes": [{"id": "2", "text": "b", "notes": []}]}
    assert msgspec.to_builtins(msgspec.convert(note, tiny.Note)) == note


def test_bounds_and_formats_are_left_to_the_schema(tiny: ModuleType, source: str) -> None:
    assert msgspec.convert({"text": " " * 99}, tiny.NoteCreate).text == " " * 99
    assert "Meta(" not in source


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("a: str | None = None", "a: str | None | UnsetType = UNSET"),
        (
            "a_b: int | None = field(name='a-b', default=None)",
            "a_b: int | None | UnsetType = field(name='a-b', default=UNSET)",
        ),
        ("a: Literal['中文'] | None = None", "a: Literal['中文'] | None | UnsetType = UNSET"),
        ("a: (\n        str | None\n    ) = (\n        None\n    )", "| UnsetType"),
        ("a: str | UnsetType = UNSET", "a: str | UnsetType = UNSET"),
        ("a: bool | UnsetType = False", "a: bool | UnsetType = False"),
        ("a: str | None", "a: str | None"),
    ],
)
def test_only_defaults_of_none_become_unset(field: str, expected: str) -> None:
    edited = tell_absent_from_null(f"class A(Struct):\n    {field}\n    z: int\n")
    assert expected in edited
    compile(edited, "edited", "exec")


@pytest.mark.parametrize(
    ("schema", "free"),
    [
        ({"type": "object", "additionalProperties": True}, True),
        ({"type": "object", "additionalProperties": {"type": "string"}}, True),
        ({"type": "object", "additionalProperties": False}, False),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, False),
        ({"type": "string"}, False),
    ],
)
def test_a_free_map_has_no_keys_of_its_own(schema: dict[str, Any], free: bool) -> None:
    assert is_free_map(schema) is free


def test_a_body_that_msgspec_refuses_is_found(tree: Tree) -> None:
    tree.edit(
        "schemas/note",
        "  discriminator:\n    propertyName: type\n"
        "    mapping: {text: '#/TextPart', link: 'note.yaml#/LinkPart'}\n",
        "",
    )
    document = tree.bundle().document
    told_by_type = models("tiny", document)
    assert list(misfits("tiny", document, told_by_type)) == []
    tree.edit("schemas/note", "enum: [text]", "minLength: 1")
    document = tree.bundle().document
    (problem,) = misfits("tiny", document, models("tiny", document))
    assert "POST /notes: models.NoteCreate" in problem
    assert "must be tagged" in problem


def test_a_body_whose_example_does_not_convert_is_found(tree: Tree, source: str) -> None:
    document = tree.bundle().document
    assert list(misfits("tiny", document, source)) == []
    assert list(misfits("tiny", document, source.replace("parent: str | None", "parent: int")))


def test_what_the_generator_refuses_is_told() -> None:
    broken = {"openapi": "3.0.3", "components": {"schemas": {"A": {"required": 5}}}}
    with pytest.raises(NotGenerated):
        models("tiny", broken)
