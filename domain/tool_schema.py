"""Arguments held against the JSON Schema of a tool, whoever wrote it.

A schema may come from an MCP server, so from anybody: patterns run on a linear engine within
bounds, references lead nowhere but into the schema itself, and what is no schema is refused when
it comes.
"""

from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

MAX_BYTES = 64 * 1024
MAX_DEPTH = 30
MAX_WEIGHT = 20_000
"""Nodes of a schema with its references followed: what one value may be held against."""
SHOWN = 5
_REGEX_BYTES = 1024 * 1024
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES, dfa_size_limit=_REGEX_BYTES)


class Unfit(ValueError):
    """The schema cannot be used, or the arguments break it. The text says where, and repeats no
    value."""


def check_schema(schema: dict[str, Any]) -> None:
    """Raises Unfit unless the schema describes an object and can be used."""
    if schema.get("type", "object") != "object":
        raise Unfit("the parameters are no object")
    if _depth(schema) > MAX_DEPTH:
        raise Unfit(f"the schema is nested deeper than {MAX_DEPTH}")
    text = msgspec.json.encode(schema)
    if len(text) > MAX_BYTES:
        raise Unfit(f"the schema is longer than {MAX_BYTES} bytes")
    if _weight(schema, schema, {}, MAX_WEIGHT) > MAX_WEIGHT:
        raise Unfit("the schema refers to itself too often")
    _validator(text)


def check_arguments(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Raises Unfit unless the arguments fit the schema."""
    validator = _validator(msgspec.json.encode(schema))
    if validator.is_valid(arguments):
        return
    said = []
    for error in validator.iter_errors(arguments):
        where = "/".join(map(str, error.instance_path))
        said.append(f"{where or 'arguments'}: {error.message[:200]}")
        if len(said) == SHOWN:
            break
    raise Unfit("; ".join(said))


@lru_cache(maxsize=256)
def _validator(text: bytes) -> Any:
    try:
        return jsonschema_rs.validator_for(
            msgspec.json.decode(text),
            pattern_options=_PATTERNS,
            validate_formats=False,
            mask="value",
            offline=True,
        )
    except (ValueError, jsonschema_rs.ReferencingError, OSError) as error:
        raise Unfit(f"the schema cannot be used: {type(error).__name__}") from None


def _weight(node: Any, root: Any, known: dict[str, int], most: int) -> int:
    """How many nodes stand under `node`, those behind references counted as often as they are
    referred to; a reference into what is being counted is one node."""
    if isinstance(node, list):
        return 1 + sum(_weight(each, root, known, most) for each in node)
    if not isinstance(node, dict):
        return 1
    weight = 1
    for key, value in node.items():
        if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
            if value not in known:
                known[value] = 1
                known[value] = min(_weight(_target(root, value), root, known, most), most + 1)
            weight += known[value]
        elif key not in ("$defs", "definitions"):
            weight += _weight(value, root, known, most)
    return weight


def _target(root: Any, reference: str) -> Any:
    """What a reference within the schema points to; the compiler refuses those that lead out."""
    node = root
    for part in reference.removeprefix("#").split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list):
            node = node[int(part)] if part.isdigit() and int(part) < len(node) else None
        else:
            node = node.get(part) if isinstance(node, dict) else None
    return node


def _depth(node: Any, depth: int = 1) -> int:
    if depth > MAX_DEPTH:
        return depth
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return max((_depth(each, depth + 1) for each in inner), default=depth)
