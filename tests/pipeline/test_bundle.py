"""One folder becomes one document, or says everything that keeps it from that."""

import gzip
import json

import brotli
import pytest

from scripts.pipeline.bundle import bundle, component_name, encoded, path_file_name, unused_shared
from tests.pipeline.conftest import Tree


def test_references_become_components(tree: Tree) -> None:
    document = tree.bundle().document
    assert set(document["components"]) == {
        "schemas",
        "responses",
        "parameters",
        "headers",
        "securitySchemes",
    }
    note = document["components"]["schemas"]["Note"]
    assert note["properties"]["notes"]["items"] == {"$ref": "#/components/schemas/Note"}
    read = document["paths"]["/notes/{note_id}"]["get"]
    assert read["parameters"] == [{"$ref": "#/components/parameters/NoteId"}]
    assert read["responses"]["404"] == {"$ref": "#/components/responses/NotFound"}
    assert document["components"]["headers"]["Total"]["schema"] == {"type": "integer"}
    assert document["components"]["parameters"]["IdempotencyKey"]["in"] == "header"
    mapping = document["components"]["schemas"]["Part"]["discriminator"]["mapping"]
    assert mapping == {
        "text": "#/components/schemas/TextPart",
        "link": "#/components/schemas/LinkPart",
    }


def test_data_that_looks_like_a_reference_is_kept(tree: Tree) -> None:
    body = tree.bundle().document["paths"]["/notes"]["post"]["requestBody"]
    value = body["content"]["application/json"]["examples"]["linked"]["value"]
    assert value["labels"] == {"$ref": "kept as it is"}


def test_a_property_may_have_any_name(tree: Tree) -> None:
    tree.edit(
        "schemas/note",
        "    id: {type: string}\n",
        "    id: {type: string}\n    $ref: {type: string}\n    example: {$ref: '#/Labels'}\n",
    )
    properties = tree.bundle().document["components"]["schemas"]["Note"]["properties"]
    assert properties["$ref"] == {"type": "string"}
    assert properties["example"] == {"$ref": "#/components/schemas/Labels"}


def test_an_alias_is_its_target_under_another_name(tree: Tree) -> None:
    paths = tree.bundle().document["paths"]
    alias, target = paths["/old/{note_id}"]["get"], paths["/notes/{note_id}"]["get"]
    own = {"operationId", "tags", "summary", "deprecated", "x-alias-of"}
    assert alias["x-alias-of"] == target["operationId"]
    assert {k: v for k, v in alias.items() if k not in own} == {
        k: v for k, v in target.items() if k not in own
    }


def test_the_same_folder_gives_the_same_bytes_in_the_authors_order(tree: Tree) -> None:
    first, second = (encoded(tree.bundle().document) for _ in range(2))
    assert first == second
    plain = first["openapi.json"]
    assert gzip.decompress(first["openapi.json.gz"]) == plain
    assert first["openapi.json.gz"][4:8] == bytes(4)  # no time stamp
    assert brotli.decompress(first["openapi.json.br"]) == plain
    document = json.loads(plain)
    assert list(document)[:2] == ["openapi", "info"]
    assert list(document["paths"])[:2] == ["/notes", "/notes/{note_id}"]
    assert b'", "' not in plain


def test_a_schema_that_the_index_names_is_kept(tree: Tree) -> None:
    (tree.root / "openapi/tiny/schemas/line.yaml").write_text("Line: {type: string}\n")
    assert tree.bundle().unused
    tree.edit(
        "openapi",
        "components:\n",
        "components:\n  schemas: {Line: {$ref: schemas/line.yaml#/Line}}\n",
    )
    made = tree.bundle()
    assert made.unused == ()
    assert made.document["components"]["schemas"]["Line"] == {"type": "string"}


READ = "paths/notes_{note_id}"
BROKEN = {
    "sibling": (
        READ,
        "{$ref: '../schemas/note.yaml#/Note'}",
        "{$ref: '../schemas/note.yaml#/Note', nullable: true}",
        "nothing may stand beside it (nullable)",
    ),
    "no such key": (READ, "note.yaml#/Note'", "note.yaml#/Nota'", "the file has no Nota"),
    "no such file": (READ, "note.yaml#/Note'", "nota.yaml#/Note'", "no such file"),
    "whole schema file": (READ, "note.yaml#/Note'", "note.yaml'", "schemas are referred to as"),
    "deep pointer": (READ, "yaml#/Note'", "yaml#/Note/properties'", "schemas are referred to as"),
    "key of a response": (
        READ,
        "../responses/not_found.yaml",
        "../responses/not_found.yaml#/content",
        "responses are referred to as the whole file",
    ),
    "outside": (READ, "../schemas/note.yaml#", "../../../../x.yaml#", "not a file of schemas,"),
    "path to path": (READ, "../responses/not_found.yaml", "notes.yaml", "not a file of schemas,"),
    "missing path file": ("openapi", "paths/notes.yaml", "paths/nope.yaml", "no such file under"),
    "inlined path": ("openapi", "{$ref: paths/notes.yaml}", "{get: {}}", "a path is one $ref"),
    "inlined component": (
        "openapi",
        "components:\n",
        "components:\n  schemas: {Odd: {type: string}}\n",
        "components.schemas.Odd: not a $ref to its own name",
    ),
    "alias of nothing": (
        "paths/old_{note_id}",
        "x-alias-of: big_note_get",
        "x-alias-of: big_note_got",
        "no operation big_note_got",
    ),
    "alias that says more": (
        "paths/old_{note_id}",
        "  deprecated: true",
        "  deprecated: true\n  security: []",
        "an alias says no more (security)",
    ),
    "unreadable": (
        READ,
        "  x-role: user",
        "  x-role: user\n  x-role: user",
        "the key 'x-role' stands",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_one_document_is_refused(tree: Tree, name: str) -> None:
    file, old, new, problem = BROKEN[name]
    tree.edit(file, old, new)
    found = tree.problems()
    assert any(problem in each for each in found), found


def test_every_problem_is_told_at_once(tree: Tree) -> None:
    tree.edit(READ, "note.yaml#/Note'", "note.yaml#/Nota'")
    tree.edit("openapi", "paths/notes.yaml", "paths/nope.yaml")
    assert len(tree.problems()) == 2


def test_two_things_of_one_name_are_refused(tree: Tree) -> None:
    (tree.root / "openapi/tiny/schemas/other.yaml").write_text("Note: {type: string}\n")
    tree.edit("schemas/error", "[500]}", "[500]}\n    note: {$ref: 'other.yaml#/Note'}")
    assert any("has that name too" in each for each in tree.problems())


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("schemas/note.yaml", "\nDead: {type: string}\n", "note.yaml: Dead: nothing refers"),
        ("responses/dead.yaml", "description: Never.\n", "dead.yaml: the file: nothing refers"),
        ("paths/dead.yaml", "get: {}\n", "paths/dead.yaml: the file: nothing refers"),
        ("oddly.yaml", "a: 1\n", "oddly.yaml: the file: nothing refers"),
    ],
)
def test_what_nothing_refers_to_is_reported(tree: Tree, file: str, text: str, problem: str) -> None:
    assert tree.bundle().unused == ()
    with (tree.root / "openapi/tiny" / file).open("a") as out:
        out.write(text)
    (found,) = tree.bundle().unused
    assert problem in found


def test_what_is_shared_is_used_by_somebody(tree: Tree) -> None:
    openapi = tree.root / "openapi"
    made = bundle(openapi / "tiny")
    assert unused_shared(openapi, [made]) == []
    (openapi / "shared/parameters/page.yaml").write_text("name: page\nin: query\n")
    assert unused_shared(openapi, [made]) == [
        "openapi/shared/parameters/page.yaml: no contract refers to it"
    ]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/active", "active.yaml"),
        ("/api/agent/{agent_id}", "api_agent_{agent_id}.yaml"),
        ("/.well-known/oauth-authorization-server", ".well-known_oauth-authorization-server.yaml"),
    ],
)
def test_a_path_names_its_file(url: str, name: str) -> None:
    assert path_file_name(url) == name


def test_a_file_names_its_component() -> None:
    assert component_name("not_found") == "NotFound"
    assert component_name("retry-after") == "RetryAfter"
