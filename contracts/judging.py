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

STREAMS: dict[str, Mapping[str, str]] = {
    "sage.chat_create": {"": "StreamLine"},
    "sage.chat_stream": {"": "StreamLine"},
    "sage.chat_stream_web": {"": "StreamLine"},
    "sage.chat_resume": {"": "StreamLine"},
    "sage.chat_stream_sessions": {"": "ActiveSessions"},
    "sandbox.session_stream": {"sessions": "ListSessionResponse"},
    "sandbox.session_chat": {
        "message": "MessageData",
        "title": "TitleData",
        "plan": "PlanData",
        "step": "StepData",
        "tool": "ToolData",
        "wait": "WaitData",
        "done": "DoneData",
        "error": "ErrorData",
    },
}
"""Operation.key of a stream → the name of an event → the schema of the JSON value in it. Events of
`text/event-stream` have names; lines, and events that say none, have "". A name that is not listed
breaks the contract."""


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
        self._references: dict[str, Mapping[str, str]] = {}

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
        if media not in content and "*/*" not in content:
            yield f"{media or 'no media type'} where {', '.join(content)} is declared"
            return
        if operation.method == "HEAD":
            if body:
                yield "a body in answer to HEAD"
            return
        schema = content.get(media, {}).get("schema")
        if media == "application/json":
            try:
                value = json.loads(body)
            except ValueError as error:
                yield f"the body is no JSON: {error}"
                return
            yield from self.violations(schema, value)
        elif operation.key in STREAMS and status == operation.success:
            yield from self._stream(STREAMS[operation.key], media, body)

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

    def _stream(self, schemas: Mapping[str, str], media: str, body: bytes) -> Iterator[str]:
        """Each value of a stream against the schema of its event."""
        read = events if media == "text/event-stream" else lines
        for number, (name, text) in enumerate(read(body)):
            if name not in schemas:
                yield f"event {number} is called {name!r}, which nothing declares"
                return
            try:
                value = json.loads(text)
            except ValueError as error:
                yield f"event {number} is no JSON: {error}: {text[:200]!r}"
                return
            schema = self._named(schemas[name])
            yield from (f"event {number}: {each}" for each in self.violations(schema, value))

    def _named(self, name: str) -> Mapping[str, str]:
        """A reference to a schema, the same object each time."""
        return self._references.setdefault(name, {"$ref": f"#/components/schemas/{name}"})

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


def lines(body: bytes) -> Iterator[tuple[str, bytes]]:
    """The lines of a text stream, each with the name ""; heartbeats and blank lines are none."""
    for line in body.split(b"\n"):
        line = line.strip()
        if line and not line.startswith(b":"):
            yield "", line


def events(body: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, data) of the events in a `text/event-stream` (HTML Standard, 9.2.6), "" where none is
    given. Comments are none, and neither is what no blank line has ended."""
    name, data = "", list[bytes]()
    for line in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode()
        elif not line:
            if data:
                yield name, b"\n".join(data)
            name, data = "", []


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
