"""Reading the YAML of openapi/ as the JSON it stands for.

PyYAML speaks YAML 1.1, where `no` is false, `12:30` is 750 and the last of two equal keys wins.
A contract means JSON, so scalars follow the core schema of YAML 1.2 (section 10.3), and a key
that stands twice or without a value is an error.
"""

import re
from pathlib import Path
from typing import Any

import yaml


class Unreadable(Exception):
    """A file is not the YAML of one JSON object; the message says where and why."""


class _Loader(yaml.CSafeLoader):
    """CSafeLoader with the scalars of YAML 1.2 and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            # `200:` under responses is a number to YAML and a name to OpenAPI.
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a name", key_node.start_mark
                )
            if key in mapping:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            if isinstance(value_node, yaml.ScalarNode) and not (
                value_node.value or value_node.style
            ):
                # `{description: One, two}` gives a key "two" that nobody meant.
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} has no value", key_node.start_mark
                )
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 10)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(node.value)


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""]
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Loader.add_constructor(_INT, _integer)
_Loader.add_constructor(_FLOAT, _number)


def read(path: Path) -> dict[str, Any]:
    """The JSON object that a YAML file stands for. Raises Unreadable."""
    try:
        loader = _Loader(path.read_bytes())
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Unreadable(" ".join(str(error).split())) from error
    if not isinstance(value, dict):
        raise Unreadable("not a mapping")
    return value
