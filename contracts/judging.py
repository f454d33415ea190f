"""Whether a response is one that the document allows: status, media type, schema, headers.

OpenAPI 3.0 is JSON Schema draft 4 with `nullable`, which is rewritten once per document.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jsonschema_rs

from contracts.document import Contract, Operation

URI = "urn:contract"
UNDECLARED = frozenset({405})
"""Statuses that belong to no operation (openapi/README.md, "Which statuses")."""

LINES = {"text/plain": "StreamLine", "text/event-stream": "ActiveSessions"}
"""Media type of a stream → the schema of the JSON values in it."""


class BrokenContract(AssertionError):
    """A response that its document does not allow."""


class Verdict(NamedTuple):
    """`status` is the effective one: HTTP 200 with another envelope code counts as that code.

    `success` is the documented success: the declared status, and code 200 in an envelope.
    """

    status: int
    success: bool
    value: Any


class Judge:
    """Judges the responses of one contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        schemas = contract.document.get("components", {}).get("schemas", {})
        resource = {"components": {"schemas": plain(schemas)}}
        self._registry = jsonschema_rs.Registry([(URI, resource)], draft=jsonschema_rs.Draft4)
        self._validators: dict[int, jsonschema_rs.Draft4Validator] = {}
        self._kept: list[Any] = []

    def judge(
        self, operation: Operation, status: int, headers: Mapping[str, str], body: bytes
    ) -> Verdict:
        """What a response amounts to. Raises BrokenContract with everything wrong with it."""
        if status in UNDECLARED:
            return Verdict(status, False, None)
        wrong = list(self._wrong(operation, status, headers, body))
        if wrong:
            shown = body[:2000].decode("utf-8", "replace")
            raise BrokenContract(
                f"{operation.id} ({operation.label}) answered {status}:\n  "
                + "\n  ".join(wrong)
                + f"\n{shown}"
            )
        media = media_type(headers)
        value = json.loads(body) if media == "application/json" and body else body
        effective = effective_status(status, value)
        return Verdict(effective, effective == operation.success, value)

    def _wrong(
        self, operation: Operation, status: int, headers: Mapping[str, str], body: bytes
    ) -> Iterator[str]:
        declared = operation.statuses.get(status)
        if declared is None:
            yield f"the status is not declared ({', '.join(map(str, operation.statuses))} are)"
            return
        if not headers.get("x-request-id"):
            yield "no X-Request-ID"
        for name, header in declared.get("headers", {}).items():
            yield from self._header(name, self._contract.followed(header), headers)
        content = declared.get("content")
        if not content:
            if body:
                yield "a body where none is declared"
            return
        media = media_type(headers)
        if media not in content:
            yield f"{media or 'no media type'} where {', '.join(content)} is declared"
            return
        schema = content[media].get("schema")
        if media == "application/json":
            try:
                value = json.loads(body)
            except ValueError as error:
                yield f"the body is no JSON: {error}"
                return
            yield from self.violations(schema, value)
        elif operation.streams() and status == operation.success:
            yield from self._lines(media, body)

    def _header(
        self, name: str, header: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Iterator[str]:
        value = headers.get(name.lower())
        if value is None:
            if header.get("required"):
                yield f"the header {name} is missing"
            return
        schema = self._contract.followed(header["schema"])
        sent: Any = value
        if schema.get("type") == "integer":
            if not value.lstrip("-").isdigit():
                yield f"the header {name} is {value!r}, which is no integer"
                return
            sent = int(value)
        elif schema.get("type") == "boolean":
            sent = {"true": True, "false": False}.get(value, value)
        for problem in self.violations(schema, sent):
            yield f"the header {name}: {problem}"

    def _lines(self, media: str, body: bytes) -> Iterator[str]:
        """Each whole line of a stream; a heartbeat is no line."""
        schema = {"$ref": f"#/components/schemas/{LINES[media]}"}
        for number, line in enumerate(body.split(b"\n")):
            line = line.strip(b"\r")
            if media == "text/event-stream":
                if not line.startswith(b"data:"):
                    continue
                line = line[5:].strip()
            if not line or line.startswith(b":"):
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                yield f"line {number} is no JSON: {error}: {line[:200]!r}"
                return
            yield from (f"line {number}: {each}" for each in self.violations(schema, value))

    def violations(self, schema: Any, value: Any) -> Iterator[str]:
        """What a value breaks of a schema, at most five."""
        if schema is None:
            return
        validator = self._validator(schema)
        if validator.is_valid(value):
            return
        for found, error in enumerate(validator.iter_errors(value)):
            if found == 5:
                return
            where = "/".join(map(str, error.instance_path))
            yield f"at {where or 'the top'}: {error.message[:400]}"

    def _validator(self, schema: Any) -> jsonschema_rs.Draft4Validator:
        made = self._validators.get(id(schema))
        if made is None:
            made = jsonschema_rs.Draft4Validator(
                absolute(plain(schema)), registry=self._registry, validate_formats=True
            )
            self._validators[id(schema)] = made
            self._kept.append(schema)
        return made


def media_type(headers: Mapping[str, str]) -> str:
    """The media type of a response without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def effective_status(status: int, value: Any) -> int:
    """The envelope's code where HTTP 200 carries another (rules, "Measuring and checking")."""
    if status == 200 and isinstance(value, dict) and {"code", "data"} <= value.keys():
        code = value["code"]
        if isinstance(code, int) and 100 <= code < 600:
            return code
    return status


def plain(node: Any) -> Any:
    """A copy of an OpenAPI 3.0 schema in plain draft 4: null joins the types."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: plain(value) for key, value in node.items()}
    if made.get("nullable") is not True:
        return made
    del made["nullable"]
    if "type" not in made:
        return {"anyOf": [made, {"type": "null"}]}
    made["type"] = [made["type"], "null"]
    return made


def absolute(node: Any) -> Any:
    """A copy whose references name the registry's resource."""
    if isinstance(node, list):
        return [absolute(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: f"{URI}{value}" if key == "$ref" and isinstance(value, str) else absolute(value)
        for key, value in node.items()
    }
