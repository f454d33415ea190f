"""Checks of single operations."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from scripts.pipeline.bundle import Bundle
from scripts.pipeline.checks.document import KIND_STATUS
from scripts.pipeline.models import is_free_map
from scripts.pipeline.operations import JSON, Operation, operations

if TYPE_CHECKING:
    from scripts.pipeline.checks import Surroundings

VERBS = {
    "get": ("get", "list", "check", "stream", "download"),
    "post": ("create",),
    "put": ("replace", "update"),
    "patch": ("update",),
    "delete": ("delete",),
}
"""The verbs that need no reason, by method."""

GONE = "410"
"""The answer of an operation that is documented to be there no more."""
_READS = ("get", "head", "options")
_FILLER = frozenset(
    {"", "todo", "tbd", "none", "n/a", "string", "description", "summary", "see above"}
)
_BOUNDS = frozenset(
    [
        "enum",
        "pattern",
        "format",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "multipleOf",
        "oneOf",
        "anyOf",
        "allOf",
    ]
)


def names(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """operationId is `<resource>_<verb>[_<qualifier>]`, the resource being the first tag."""
    for operation in operations(bundle.document):
        if not operation.rest:
            yield f"{operation}: {operation.id!r} does not begin with {operation.resource}_"
            continue
        if not operation.id.isidentifier() or operation.id != operation.id.lower():
            yield f"{operation}: {operation.id} is not snake_case"
        verb = _verb(operation)
        if verb in VERBS.get(operation.method, ()):
            continue
        entry = around.verbs.get(verb)
        if not isinstance(entry, dict) or operation.method.upper() not in entry.get("methods", ()):
            yield (
                f"{operation}: {operation.id}: {verb} is no verb of {operation.method.upper()}; "
                "openapi/verbs.yaml takes further ones, with a reason"
            )
        elif _is_filler(entry.get("reason")):
            yield f"openapi/verbs.yaml: {verb}: no reason"


def verbs(bundle: Bundle) -> Iterator[str]:
    """The verbs in use beyond those that need no reason."""
    for operation in operations(bundle.document):
        if _verb(operation) not in VERBS.get(operation.method, ()):
            yield _verb(operation)


def tags(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Tags are declared in the index, with a description, and used."""
    declared = {tag.get("name"): tag for tag in bundle.document.get("tags", ())}
    used = set()
    for operation in operations(bundle.document):
        used.update(operation.raw.get("tags", ()))
        if operation.tag not in declared:
            yield f"{operation}: the tag {operation.tag!r} is not declared"
    for name, tag in declared.items():
        if name not in used:
            yield f"the tag {name!r} has no operation"
        if _is_filler(tag.get("description")):
            yield f"the tag {name!r} has no description"


def prose(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Summaries and descriptions stand there and say something."""
    for operation in operations(bundle.document):
        summary, description = operation.raw.get("summary"), operation.raw.get("description")
        if _is_filler(summary):
            yield f"{operation}: no summary"
        elif "\n" in str(summary).strip() or str(summary).endswith("."):
            yield f"{operation}: the summary is a phrase: one line, no full stop"
        if _is_filler(description) or description == summary:
            yield f"{operation}: no description that says more than the summary"
    for where, description in _descriptions(bundle.document, ""):
        if _is_filler(description) or str(description).strip().lower().startswith("optional"):
            yield f"{where}: the description {description!r} says nothing"


def roles(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """`security` stands on every operation; `x-role` where and only where it is not public."""
    schemes = bundle.document.get("components", {}).get("securitySchemes", {})
    for operation in operations(bundle.document, aliases=False):
        security = operation.raw.get("security")
        if security is None:
            yield f"{operation}: no security (a public operation says `security: []`)"
            continue
        if security and "x-role" not in operation.raw:
            yield f"{operation}: not public, and no x-role"
        if not security and "x-role" in operation.raw:
            yield f"{operation}: public, and x-role {operation.raw['x-role']}"
        for scheme in {name for option in security for name in option} - set(schemes):
            yield f"{operation}: no security scheme {scheme}"
        if operation.method in _READS and "x-effect" in operation.raw:
            yield f"{operation}: x-effect on a {operation.method.upper()}, which reads"


def parameters(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Parameters stand on operations, fit the path and say what they are."""
    for path, item in bundle.document["paths"].items():
        if "parameters" in item:
            yield f"{path}: parameters stand on operations, where an alias finds them"
    for operation in operations(bundle.document):
        in_path = {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}
        declared = {each["name"] for each in operation.parameters if each.get("in") == "path"}
        for name in sorted(in_path ^ declared):
            yield f"{operation}: the path parameter {name} is not both in the path and declared"
        for parameter in operation.parameters:
            if _is_filler(parameter.get("description")):
                yield f"{operation}: parameter {parameter.get('name')}: no description"
            if "schema" not in parameter:
                yield f"{operation}: parameter {parameter.get('name')}: no schema"


def bodies(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """A body says whether it is required and shows itself; a JSON body has a name or is free."""
    for operation in operations(bundle.document, aliases=False):
        if not operation.body:
            continue
        if "required" not in operation.body:
            yield f"{operation}: requestBody.required is not stated"
        for media_type, media in operation.body.get("content", {}).items():
            schema = media.get("schema", {})
            if not {"example", "examples"} & set(media) | (
                {"example"} & set(operation.follow(schema))
            ):
                yield f"{operation}: {media_type}: no example of the body"
            if media_type == JSON and "$ref" not in schema and not is_free_map(schema):
                yield f"{operation}: the JSON body is neither a $ref nor a free map"


def statuses(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """The statuses that follow from the operation are declared; each 4xx gives its reasons."""
    for operation in operations(bundle.document, aliases=False):
        declared = operation.responses
        for status in sorted(implied_statuses(operation) - set(declared)):
            yield f"{operation}: {status} is not declared"
        if not any(status < "400" or status == GONE for status in declared):
            yield f"{operation}: no success is declared"
        for status, response in declared.items():
            if not status.isdigit() or status == "405":
                yield f"{operation}: {status} is not for an operation to declare"
                continue
            description = str(response.get("description", ""))
            phrase = HTTPStatus(int(status)).phrase if int(status) in set(HTTPStatus) else ""
            if status.startswith("4") and (
                _is_filler(description)
                or description.strip(" .\n").lower() == phrase.lower()
                or len(description.split()) < 3
            ):
                yield f"{operation}: {status}: the description gives no reason"


def implied_statuses(operation: Operation) -> set[str]:
    """The statuses of the table "Which statuses an operation declares" of openapi/README.md."""
    raw = operation.raw
    reads = operation.method in _READS
    private = bool(raw.get("security")) and raw.get("x-role") != "gate"
    keyed = honours_key(operation)
    implied = {"500"}
    if operation.body:
        implied |= {"400", "413", "415"}
    if keyed:
        implied |= {"400", "409", "507"}
    if private:
        implied |= {"401", "503"}
    if raw.get("x-role") == "admin" or (private and not reads):
        implied.add("403")
    success = next((status for status in operation.responses if status < "400"), "")
    if success.startswith("2") and JSON in operation.responses[success].get("content", {}):
        implied.add("406")
    if raw.get("x-etag"):
        implied.add("304" if reads else "412")
    if _can_be_invalid(operation):
        implied.add("400" if raw.get("x-shape") == "oauth2" else "422")
    if "x-rate-limit" in raw or "x-stream-limit" in raw:
        implied.add("429")
    return implied


def honours_key(operation: Operation) -> bool:
    """Whether `Idempotency-Key` makes a retry of it safe."""
    return (
        operation.method in {"post", "put", "patch", "delete"}
        and bool(operation.raw.get("security"))
        and "x-idempotency" not in operation.raw
    )


def idempotency(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """The key is a documented parameter exactly where it works; elsewhere there is a reason."""
    for operation in operations(bundle.document, aliases=False):
        raw = operation.raw
        documented = any(each.get("name") == "Idempotency-Key" for each in operation.parameters)
        if documented != honours_key(operation):
            yield (
                f"{operation}: Idempotency-Key is "
                + ("documented and does not work" if documented else "honoured and not documented")
                + " here"
            )
        if ("x-idempotency" in raw) != ("x-idempotency-reason" in raw):
            yield f"{operation}: x-idempotency and x-idempotency-reason stand together"


def soft_errors(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """`x-soft` and an alternative of the 200 with those codes stand together."""
    for operation in operations(bundle.document, aliases=False):
        soft = set(operation.raw.get("x-soft", {}).values())
        shown = _codes(operation, "200") - {200}
        if soft - shown:
            yield f"{operation}: x-soft gives {sorted(soft - shown)}, the 200 {sorted(shown)}"
        if shown and not soft:
            yield f"{operation}: the 200 shows {sorted(shown)} and there is no x-soft"


def business_codes(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """A kind of `x-code` has its HTTP status declared, with that code in the body's schema."""
    for operation in operations(bundle.document, aliases=False):
        for kind, code in operation.raw.get("x-code", {}).items():
            if kind not in KIND_STATUS:
                continue
            status = str(KIND_STATUS[kind])
            if code not in _codes(operation, status):
                yield f"{operation}: x-code {kind}: the {status} does not show code {code}"


def links(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """What makes a thing links to what reads, changes and deletes it."""
    every = {operation.id: operation for operation in operations(bundle.document)}
    addressed = {name for each in every.values() for name in _required_path(each)}
    for operation in every.values():
        for status, response in operation.responses.items():
            for name, link in response.get("links", {}).items():
                for problem in _link(every, link):
                    yield f"{operation}: {status}: link {name}: {problem}"
        made = set((operation.data or {}).get("properties", {})) & addressed
        known = {each["name"] for each in operation.parameters} | _body_names(operation)
        if (
            operation.method == "post"
            and made - known
            and not operation.responses["200"].get("links")
        ):
            yield f"{operation}: makes {', '.join(sorted(made - known))} and links to nothing"


def _link(every: dict[str, Operation], link: dict[str, Any]) -> Iterator[str]:
    target = every.get(link.get("operationId", ""))
    if target is None:
        yield f"no operation {link.get('operationId')!r}"
        return
    names = {each["name"] for each in target.parameters}
    given = {name.rpartition(".")[2] for name in link.get("parameters", {})}
    if given - names:
        yield f"{target.id} has no parameter {', '.join(sorted(given - names))}"
    if _required_path(target) - given:
        yield f"{target.id} needs {', '.join(sorted(_required_path(target) - given))}"


def _required_path(operation: Operation) -> set[str]:
    return {each["name"] for each in operation.parameters if each.get("in") == "path"}


def _body_names(operation: Operation) -> set[str]:
    media = operation.body.get("content", {}).values()
    return {
        name
        for each in media
        for name in operation.follow(each.get("schema")).get("properties", {})
    }


def _can_be_invalid(operation: Operation) -> bool:
    for media in operation.body.get("content", {}).values():
        schema = operation.follow(media.get("schema"))
        if not is_free_map(schema) or {"minProperties", "maxProperties"} & set(schema):
            return True
        if isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"]:
            return True
    for parameter in operation.parameters:
        schema = operation.follow(parameter.get("schema"))
        if parameter.get("name") == "Idempotency-Key":
            continue  # a malformed key is 400
        if parameter.get("in") != "path" and parameter.get("required"):
            return True
        if schema.get("type") != "string" or _BOUNDS & set(schema):
            return True
    return False


def _codes(operation: Operation, status: str) -> set[int]:
    """The envelope codes that the JSON of a status may carry."""
    media = operation.responses.get(status, {}).get("content", {}).get(JSON, {})
    schema = operation.follow(media.get("schema"))
    options = [schema, *map(operation.follow, schema.get("oneOf", ()))]
    return {
        code
        for option in options
        for code in option.get("properties", {}).get("code", {}).get("enum", ())
    }


def _verb(operation: Operation) -> str:
    return operation.rest.partition("_")[0]


def _is_filler(text: Any) -> bool:
    return not isinstance(text, str) or text.strip(" .\n").lower() in _FILLER


def _descriptions(node: Any, where: str, names: bool = False) -> Iterator[tuple[str, Any]]:
    """Every description of a document, leaving out data and properties of that name."""
    if isinstance(node, list):
        for position, item in enumerate(node):
            yield from _descriptions(item, f"{where}/{position}")
    elif isinstance(node, dict):
        for key, value in node.items():
            if names:
                yield from _descriptions(value, f"{where}/{key}")
            elif key == "description":
                yield where, value
            elif key not in {"example", "value", "default", "enum"}:
                inner = key in {"properties", "examples", "headers", "schemas", "responses"}
                yield from _descriptions(value, f"{where}/{key}", names=inner)
