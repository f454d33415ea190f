"""Schemas of one contract, compiled by jsonschema-rs from the raw document with `$ref` kept.

OpenAPI 3.0 is JSON Schema draft 4 with `nullable`: that keyword is rewritten once per document.
Validators are compiled on first use, against one registry per document (each expands the closure
of what it refers to, about 0.4 MB).
"""

from typing import Any

import jsonschema_rs

_URN = "urn:quartet:"
_ERRORS_SHOWN = 20
_LINEAR = jsonschema_rs.RegexOptions()


def without_nullable(node: Any) -> Any:
    """A copy of an OpenAPI 3.0 schema (or document) as plain draft 4: null joins the types."""
    if isinstance(node, list):
        return [without_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {
        key: {name: without_nullable(schema) for name, schema in value.items()}
        if key == "properties"
        else without_nullable(value)
        for key, value in node.items()
        if key != "nullable"
    }
    if node.get("nullable") is not True:
        return out
    if "type" not in out:
        return {"anyOf": [out, {"type": "null"}]}
    out["type"] = [out["type"], "null"]
    if "enum" in out and None not in out["enum"]:
        out["enum"] = [*out["enum"], None]
    return out


class Violation(Exception):
    """A value breaks its schema; `errors` is a list of {loc, msg, type}, at most 20."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


class Validator:
    """One schema: `check(value)` raises Violation, `accepts(value)` answers at once."""

    __slots__ = ("_compiled", "_location", "_schema", "_schemas")

    def __init__(self, schemas: "Schemas", schema: dict[str, Any], location: str) -> None:
        self._schemas = schemas
        self._schema = schema
        self._location = location
        self._compiled: jsonschema_rs.Draft4Validator | None = None

    def _compile(self) -> jsonschema_rs.Draft4Validator:
        self._compiled = compiled = jsonschema_rs.Draft4Validator(
            self._schemas.rooted(self._schema),
            registry=self._schemas.registry,
            validate_formats=True,
            pattern_options=_LINEAR,
            mask="value",
        )
        return compiled

    def accepts(self, value: Any) -> bool:
        return (self._compiled or self._compile()).is_valid(value)

    def check(self, value: Any) -> None:
        """Raise Violation unless the value is valid. Messages never show the value."""
        compiled = self._compiled or self._compile()
        if compiled.is_valid(value):
            return
        errors = []
        for error in compiled.iter_errors(value):
            errors.append(
                {
                    "loc": [self._location, *error.instance_path],
                    "msg": error.message[:300],
                    "type": error.kind.name,
                }
            )
            if len(errors) == _ERRORS_SHOWN:
                break
        raise Violation(errors)


class Schemas:
    """The schemas of one bundled document."""

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self._uri = f"{_URN}{name}"
        resource = {
            "components": {
                "schemas": without_nullable(document.get("components", {}).get("schemas", {}))
            }
        }
        self.registry = jsonschema_rs.Registry([(self._uri, resource)], draft=jsonschema_rs.Draft4)

    def rooted(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema with its references made absolute, in plain draft 4."""
        rooted: dict[str, Any] = self._absolute(without_nullable(schema))
        return rooted

    def _absolute(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self._absolute(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: self._uri + value
            if key == "$ref" and isinstance(value, str)
            else self._absolute(value)
            for key, value in node.items()
        }

    def validator(self, schema: dict[str, Any], location: str = "body") -> Validator:
        """A validator that compiles when it is first asked; `location` begins every `loc`."""
        return Validator(self, schema, location)
