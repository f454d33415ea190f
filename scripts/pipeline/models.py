"""The schemas of a contract as msgspec Structs.

A Struct carries values that its JSON Schema has already judged. So it knows shapes and nothing
else: bounds, patterns and formats are left out of it, a field has the name it has on the wire
(`class` becomes `class_`), an absent field is `msgspec.UNSET` and a null one is None.
"""

import ast
import json
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import msgspec

from scripts.pipeline.operations import JSON, Operation, operations

OPTIONS = (
    "--input-file-type=openapi",
    "--openapi-scopes=schemas",
    "--output-model-type=msgspec.Struct",
    "--target-python-version=3.11",
    "--strict-nullable",
    "--enum-field-as-literal=all",
    "--use-msgspec-tagged-unions",
    "--keyword-only",
    "--use-union-operator",
    "--use-standard-collections",
    "--use-schema-description",
    "--disable-timestamp",
    "--formatters=builtin",
    "--additional-imports=msgspec.UNSET,msgspec.UnsetType",
)
"""What is asked of datamodel-code-generator; requirements/dev.txt pins its version."""

HEADER = '"""Models of the {contract} contract. Generated, do not edit: run `scripts/generate`."""'

_SHAPE = frozenset(
    [
        "$ref",
        "type",
        "nullable",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "oneOf",
        "anyOf",
        "allOf",
        "discriminator",
        "default",
    ]
)
"""The keywords of a schema that decide which values a field can hold."""


class NotGenerated(Exception):
    """datamodel-code-generator refused the schemas; the message is its own."""


def models(contract: str, document: dict[str, Any]) -> str:
    """The module generated/<contract>/models.py. Raises NotGenerated."""
    schemas = document.get("components", {}).get("schemas", {})
    shapes = {name: {**_shape(schema), **_description(schema)} for name, schema in schemas.items()}
    source = {
        "openapi": document["openapi"],
        "info": {"title": contract, "version": "0"},
        "paths": {},
        "components": {"schemas": shapes},
    }
    header = HEADER.format(contract=contract)
    if not shapes:
        return header + "\n"
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "datamodel_code_generator",
            *OPTIONS,
            "--custom-file-header",
            header,
        ],
        input=json.dumps(source),
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode or not run.stdout:
        raise NotGenerated(run.stderr.strip() or "no output")
    return tell_absent_from_null(run.stdout)


def body_model(operation: Operation) -> str | None:
    """The type of an operation's JSON body as routes.py writes it: "models.AgentConfig", "dict" for
    a free map, None without a JSON body."""
    schema = operation.body.get("content", {}).get(JSON, {}).get("schema")
    if schema is None:
        return None
    if is_free_map(operation.follow(schema)):
        return "dict"
    return f"models.{schema['$ref'].rpartition('/')[2]}" if "$ref" in schema else "dict"


def misfits(contract: str, document: dict[str, Any], module: str) -> Iterator[str]:
    """Bodies that msgspec cannot read into the Structs of `module` (the source of models.py): types
    it refuses, such as a union of untagged Structs, and examples that do not convert."""
    name = f"generated.{contract}.models.tried"
    tried = types.ModuleType(name)
    sys.modules[name] = tried  # msgspec looks the annotations up there
    try:
        exec(compile(module, name, "exec"), vars(tried))
        for operation in operations(document, aliases=False):
            model = body_model(operation)
            if model is None or model == "dict":
                continue
            struct = getattr(tried, model.removeprefix("models."))
            media = operation.body["content"][JSON]
            shown = [each["value"] for each in media.get("examples", {}).values()]
            shown += [media["example"]] if "example" in media else []
            try:
                msgspec.json.Decoder(struct)
                for example in shown:
                    msgspec.convert(example, struct)
            except (TypeError, NameError, msgspec.ValidationError) as error:
                yield f"{contract}: {operation}: {model}: {error}"
    finally:
        del sys.modules[name]


def is_free_map(schema: dict[str, Any]) -> bool:
    """Whether an object's keys are the client's own: they are data, so it stays a dict."""
    return (
        schema.get("type") == "object"
        and not schema.get("properties")
        and schema.get("additionalProperties", True) is not False
    )


def tell_absent_from_null(module: str) -> str:
    """Give every optional nullable field UNSET for its default.

    datamodel-code-generator writes `x: T | None = None` for it, which reads a null and an absent
    field alike; a PUT that leaves a field out must not clear it.
    """
    edits: list[tuple[int, int, int, str]] = []
    for node in ast.walk(ast.parse(module)):
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            continue
        default: ast.expr | None = node.value
        if isinstance(default, ast.Call):
            default = next((k.value for k in default.keywords if k.arg == "default"), None)
        if not isinstance(default, ast.Constant) or default.value is not None:
            continue
        annotation = node.annotation
        assert annotation.end_lineno is not None
        assert annotation.end_col_offset is not None
        edits.append((default.lineno, default.col_offset, 4, "UNSET"))
        if "UnsetType" not in ast.unparse(annotation):
            edits.append((annotation.end_lineno, annotation.end_col_offset, 0, " | UnsetType"))
    lines = module.splitlines(keepends=True)
    for line, column, length, text in sorted(edits, reverse=True):
        encoded = lines[line - 1].encode()  # ast counts bytes
        edited = encoded[:column] + text.encode() + encoded[column + length :]
        lines[line - 1] = edited.decode()
    return "".join(lines)


def _shape(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    shape: dict[str, Any] = {}
    for key, value in schema.items():
        if key not in _SHAPE:
            continue
        if key == "properties":
            shape[key] = {name: _shape(part) for name, part in value.items()}
        elif key in {"oneOf", "anyOf", "allOf"}:
            shape[key] = [_shape(part) for part in value]
        elif key in {"items", "additionalProperties"}:
            shape[key] = {} if value is True else _shape(value)
        else:
            shape[key] = value
    return shape


def _description(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": schema["description"]} if "description" in schema else {}
