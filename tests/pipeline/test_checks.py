"""Every check passes the contract that keeps the rules, and names the one rule that is broken."""

from typing import NamedTuple

import pytest

from domain.errors import DomainError
from scripts.pipeline import checks
from scripts.pipeline.checks.document import KIND_STATUS
from scripts.pipeline.checks.operations import VERBS
from tests.pipeline.conftest import Tree

NOTES, READ, NOTE = "paths/notes", "paths/notes_{note_id}", "schemas/note"
ARCHIVE, INDEX, OLD = "paths/notes_{note_id}_archive", "openapi", "paths/old_{note_id}"


class Break(NamedTuple):
    """In `file`, `old` becomes `new`; then `check` says `problem`."""

    check: str
    file: str
    old: str
    new: str
    problem: str


BREAKS = [
    Break("valid_openapi", INDEX, "title: tiny, ", "", '"title" is a required property'),
    Break("valid_openapi", READ, "description: The note.", "descriptoin: It.", "get/responses/200"),
    Break("version", INDEX, "3.0.3", "3.0.2", "not '3.0.3'"),
    Break("path_files", INDEX, "/notes/{note_id}/archive:", "/notes/{note_id}/hide:", "_hide.yaml"),
    Break("extensions", NOTES, "x-rate-limit: chat", "x-rate-limt: chat", "x-rate-limt is not"),
    Break("extensions", NOTES, "x-rate-limit: chat", "x-rate-limit: often", "'often', not one of"),
    Break("extensions", READ, "x-role: user", "x-role: root", "x-role is 'root'"),
    Break("extensions", READ, "x-role: user", "x-role: user\n  x-etag: yes", "x-etag is 'yes'"),
    Break("extensions", READ, "x-role: user", "x-role: user\n  x-effect: all", "x-effect is 'all'"),
    Break("extensions", NOTES, "{not_found: 500}", "{not_fund: 500}", "not_fund is neither"),
    Break("extensions", NOTES, "{not_found: 500}", "{note.even: 500}", "note.even is neither"),
    Break("extensions", NOTES, "{not_found: 500}", "{not_found: 200}", "200 is not an error code"),
    Break("extensions", NOTES, "{not_found: 500}", "soon", "not a mapping"),
    Break("extensions", ARCHIVE, "x-idempotency: none", "x-idempotency: some", "'some', not one"),
    Break(
        "extensions",
        NOTE,
        "    text: {type: string}\n    notes",
        "    text: {x-a: 1}\n    notes",
        "x-a is not known here",
    ),
    Break(
        "extensions", NOTES, "      in: query", "      in: query\n      x-tale: true", "x-tale is"
    ),
    Break("extensions", INDEX, "title: tiny", "title: tiny, x-logo: a", "x-logo is not known here"),
    Break(
        "names", ARCHIVE, "operationId: big_note_archive", "operationId: note_archive", "not begin"
    ),
    Break(
        "names",
        NOTES,
        "operationId: big_note_list",
        "operationId: big_note_create_all",
        "create is no verb of GET",
    ),
    Break(
        "names", NOTES, "operationId: big_note_list", "operationId: big_note_listAll", "snake_case"
    ),
    Break("tags", INDEX, "- name: Big Note", "- name: Note", "the tag 'Big Note' is not declared"),
    Break(
        "tags",
        INDEX,
        "- name: Big Note",
        "- {name: A, description: B}\n  - name: Big Note",
        "the tag 'A' has no operation",
    ),
    Break("tags", INDEX, "Notes and the notes in them", "todo", "has no description"),
    Break("prose", READ, "summary: Read a note", "summary: ''", "no summary"),
    Break("prose", READ, "summary: Read a note", "summary: Read a note.", "a phrase"),
    Break("prose", READ, "Reads one note of the caller.", "Read a note", "says more than the summ"),
    Break("prose", NOTES, "Only notes of this type.", "Optional type.", "says nothing"),
    Break(
        "prose",
        NOTE,
        "description: A note and the notes in it.",
        "description: string",
        "says nothing",
    ),
    Break("roles", NOTES, "  security: []\n", "", "no security"),
    Break("roles", READ, "  x-role: user\n", "", "not public, and no x-role"),
    Break("roles", NOTES, "  security: []\n", "  security: []\n  x-role: user\n", "public, and"),
    Break("roles", READ, "[{bearer: []}]", "[{basic: []}]", "no security scheme basic"),
    Break("roles", READ, "x-role: user", "x-role: user\n  x-effect: read", "which reads"),
    Break(
        "parameters", READ, "    - {$ref: ../parameters/note_id.yaml}", "    []", "note_id is not"
    ),
    Break(
        "parameters", INDEX, "/old/{note_id}:", "/old/{id}:", "path parameter note_id is not both"
    ),
    Break("parameters", NOTES, "get:", "parameters: []\nget:", "parameters stand on operations"),
    Break(
        "parameters", NOTES, "      description: Only notes of this type.\n", "", "no description"
    ),
    Break("bodies", ARCHIVE, "    required: false\n", "", "requestBody.required is not stated"),
    Break("bodies", ARCHIVE, "        example: {why: done}\n", "", "no example of the body"),
    Break(
        "bodies",
        ARCHIVE,
        "additionalProperties: true",
        "additionalProperties: false",
        "neither a $ref nor a free map",
    ),
    Break(
        "statuses", READ, "    '401': {$ref: ../responses/unauthorized.yaml}\n", "", "401 is not"
    ),
    Break(
        "statuses", ARCHIVE, "    '403': {$ref: ../responses/forbidden.yaml}\n", "", "403 is not"
    ),
    Break("statuses", ARCHIVE, "    '413': {$ref: ../responses/bad_request.yaml}\n", "", "413 is"),
    Break("statuses", NOTES, "    '409': {$ref: ../responses/conflict.yaml}\n", "", "409 is not"),
    Break("statuses", NOTES, "    '429': {$ref: ../responses/conflict.yaml}\n", "", "429 is not"),
    Break("statuses", NOTES, "    '507': {$ref: ../responses/fault.yaml}\n", "", "507 is not"),
    Break("statuses", READ, "x-role: user", "x-role: user\n  x-etag: true", "304 is not declared"),
    Break("statuses", READ, "'404': {", "default: {", "default is not for an operation"),
    Break("statuses", READ, "'404': {", "'405': {", "405 is not for an operation"),
    Break("statuses", ARCHIVE, "    '204': {description: It is archived.}\n", "", "no success"),
    Break("statuses", "responses/not_found", "There is no such note.", "Not found.", "no reason"),
    Break("statuses", "responses/not_found", "There is no such note.", "Gone away", "no reason"),
    Break(
        "idempotency",
        NOTES,
        "    - $ref: ../../shared/parameters/idempotency_key.yaml\n",
        "    []\n",
        "honoured and not documented",
    ),
    Break(
        "idempotency",
        ARCHIVE,
        "    - {$ref: ../parameters/note_id.yaml}",
        "    - {$ref: ../parameters/note_id.yaml}\n"
        "    - {$ref: ../../shared/parameters/idempotency_key.yaml}",
        "documented and does not work",
    ),
    Break(
        "idempotency",
        ARCHIVE,
        "  x-idempotency-reason: Archiving twice is archiving once.\n",
        "",
        "stand together",
    ),
    Break("soft_errors", NOTES, "{not_found: 500}", "{not_found: 403}", "x-soft gives [403]"),
    Break("soft_errors", NOTES, "  x-soft: {not_found: 500}\n", "", "there is no x-soft"),
    Break("business_codes", NOTES, "{conflict: 500}", "{conflict: 501}", "does not show code 501"),
    Break("business_codes", NOTES, "{conflict: 500}", "{precondition: 500}", "the 412 does not"),
    Break("links", NOTES, "operationId: big_note_get", "operationId: big_note_got", "no operation"),
    Break("links", NOTES, "{note_id: '$resp", "{nota_id: '$resp", "has no parameter nota_id"),
    Break(
        "links",
        NOTES,
        "          parameters: {note_id: '$response.body#/data/note_id'}\n",
        "",
        "big_note_get needs note_id",
    ),
    Break(
        "links",
        NOTES,
        """      links:
        read:
          operationId: big_note_get
          parameters: {note_id: '$response.body#/data/note_id'}
""",
        "",
        "makes note_id and links to nothing",
    ),
    Break(
        "closed_responses",
        NOTE,
        "  required: [note_id]\n  additionalProperties: false\n",
        "  required: [note_id]\n",
        "states additionalProperties",
    ),
    Break("closed_responses", NOTE, "  required: [note_id]\n", "", "states required"),
    Break(
        "closed_responses", NOTE, "  description: The client's own words.\n", "", "a free map has"
    ),
    Break(
        "stated_requests",
        NOTE,
        "  required: [type, url]\n  additionalProperties: false\n",
        "  required: [type, url]\n",
        "states additionalProperties",
    ),
    Break(
        "stated_requests",
        NOTE,
        "  required: [type, url]\n  additionalProperties: false\n",
        "  required: [type, url]\n  additionalProperties: {type: string}\n",
        "a Struct loses those",
    ),
    Break("required_exist", NOTE, "required: [id, text]", "required: [id, txt]", "requires txt"),
    Break(
        "nullable", NOTE, "enum: [plain, rich, null]", "enum: [plain, rich]", "does not list null"
    ),
    Break(
        "nullable",
        NOTE,
        "parent: {type: string, nullable: true}",
        "parent: {type: string, nullable: true, default: null}",
        "default null",
    ),
    Break(
        "nullable",
        NOTE,
        "parent: {type: string, nullable: true}",
        "parent: {type: string, nullable: true, anyOf: [{minLength: 1}, {enum: [a]}]}",
        "say null in one place",
    ),
    Break(
        "examples", NOTES, "value: {text: Milk,", "value: {text: ' Milk',", "plain: example.text"
    ),
    Break("examples", NOTES, "parent: null", "pinned: null", "linked: example.pinned"),
    Break("examples", READ, "{id: '2', text: Fresh}", "{id: '2'}", "200: example.notes.0"),
    Break(
        "examples", NOTES, "      example: plain", "      example: poor", "parameter type: example"
    ),
    Break(
        "examples",
        NOTE,
        "    url: {type: string, format: uri}",
        "    url: {type: string, format: uri, example: '::'}",
        "LinkPart.url: example",
    ),
    Break(
        "examples", "headers/total", "schema:", "example: many\nschema:", "header X-Total: example"
    ),
]


def found(tree: Tree, name: str) -> list[str]:
    (check,) = [each for each in checks.ALL if each.__name__ == name]
    return list(check(tree.bundle(), tree.around()))


def test_a_contract_that_keeps_the_rules_passes(tree: Tree) -> None:
    assert checks.run([tree.bundle()], tree.around()) == []


@pytest.mark.parametrize("broken", BREAKS, ids=lambda each: f"{each.check}: {each.problem}")
def test_each_check_names_the_rule_that_is_broken(tree: Tree, broken: Break) -> None:
    assert found(tree, broken.check) == []
    tree.edit(broken.file, broken.old, broken.new)
    problems = found(tree, broken.check)
    assert any(broken.problem in each for each in problems), problems


def test_every_check_is_broken_at_least_once() -> None:
    assert {each.check for each in BREAKS} == {check.__name__ for check in checks.ALL}


def test_an_action_needs_a_method_a_reason_and_a_use(tree: Tree) -> None:
    verbs = tree.root / "openapi" / "verbs.yaml"
    written = verbs.read_text()
    verbs.write_text(written.replace("methods: [POST]", "methods: [PUT]"))
    assert "archive is no verb of POST" in found(tree, "names")[0]
    verbs.write_text(written.replace("It hides a note without deleting it.", "todo"))
    assert found(tree, "names") == ["openapi/verbs.yaml: archive: no reason"]
    verbs.write_text(written + "hide: {methods: [POST], reason: Nobody uses it.}\n")
    assert checks.run([tree.bundle()], tree.around()) == [
        "openapi/verbs.yaml: hide: no operation uses it"
    ]


def test_a_message_key_stands_where_a_kind_does(tree: Tree) -> None:
    tree.edit(NOTES, "{not_found: 500}", "{note.odd: 500}")
    assert found(tree, "extensions") == []


def test_the_kinds_are_those_of_the_domain() -> None:
    kinds = {DomainError.kind} | {each.kind for each in DomainError.__subclasses__()}
    assert set(KIND_STATUS) == kinds


def test_the_keys_of_the_messages_are_found() -> None:
    assert "request.invalid" in checks.message_keys()


def test_no_verb_of_an_alias_or_a_method_is_forgotten(tree: Tree) -> None:
    tree.edit(OLD, "operationId: big_note_get_compat", "operationId: big_note_fetch_compat")
    assert "fetch is no verb of GET" in found(tree, "names")[0]
    assert set(VERBS) == {"get", "post", "put", "patch", "delete"}
