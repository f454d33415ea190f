"""One contract's folder as one OpenAPI document.

Path items are inlined. Schemas, responses and parameters become components, so that recursion
works, a name means one thing, and whatever nothing refers to is found.
"""

import gzip
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import brotli

from scripts.pipeline.channels import read_channels
from scripts.pipeline.source import Unreadable, read

KINDS = ("schemas", "responses", "parameters", "headers")
"""The folders whose files become components of the same name."""

_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9]*$")
_LITERAL = frozenset({"example", "value", "default", "enum"})
"""Keys of OpenAPI whose values are data, in which `$ref` is a word like any other."""

_MAPS = frozenset({"properties", "examples", "responses", "headers", "schemas"})
"""Keys of OpenAPI whose values are maps with keys of the author's own."""

_ALIAS_OWN = ("operationId", "tags", "summary", "deprecated", "x-alias-of")
"""What an alias says for itself; all else it takes from its target."""


class Unbundled(Exception):
    """The folder is not one document; `problems` says everything that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Bundle(NamedTuple):
    """A contract in one document.

    `path_files` maps each URL to its file's name. `unused` names what nothing refers to; `shared`
    holds the `(file, key)` pairs of openapi/shared that the contract uses. `channels` is the
    AsyncAPI document of its websockets, {} where it has none.
    """

    contract: str
    document: dict[str, Any]
    path_files: dict[str, str]
    unused: tuple[str, ...]
    shared: frozenset[tuple[str, str]]
    channels: dict[str, Any]


def bundle(folder: Path) -> Bundle:
    """Bundle openapi/<contract>. Raises Unbundled with every problem found."""
    return _Bundler(folder).run()


def encoded(document: dict[str, Any], name: str = "openapi.json") -> dict[str, bytes]:
    """The files of a document by name: compact JSON, and the same bytes compressed."""
    plain = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return {
        name: plain,
        f"{name}.gz": gzip.compress(plain, 9, mtime=0),
        f"{name}.br": brotli.compress(plain),
    }


def unused_shared(root: Path, bundles: list[Bundle]) -> list[str]:
    """Schemas, responses and parameters of openapi/shared that no contract uses."""
    used = frozenset().union(*(each.shared for each in bundles))
    return [
        f"openapi/shared/{name}{key and '#/' + key}: no contract refers to it"
        for name, key in sorted(_targets(root / "shared") - used)
    ]


def component_name(stem: str) -> str:
    """The component of a response or parameter file: not_found → NotFound."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[_-]", stem))


def path_file_name(url: str) -> str:
    """The file of a path: /api/agent/{agent_id} → api_agent_{agent_id}.yaml."""
    return url.removeprefix("/").replace("/", "_") + ".yaml"


class _Bundler:
    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.shared = self.folder.parent / "shared"
        self.problems: list[str] = []
        self.components: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.owners: dict[tuple[str, str], tuple[Path, str]] = {}
        self.files: dict[Path, dict[str, Any]] = {}

    def run(self) -> Bundle:
        index = self.folder / "openapi.yaml"
        document = dict(self._read(index))
        paths = document.pop("paths", {})
        declared = document.pop("components", {})
        document = self._copy(document, index)
        document["paths"] = {url: self._path_item(url, item) for url, item in paths.items()}
        self._fill_aliases(document["paths"])
        components = {kind: self._copy(part, index) for kind, part in declared.items()}
        for kind in KINDS:
            for name, part in components.pop(kind, {}).items():
                if part != {"$ref": f"#/components/{kind}/{name}"}:
                    self._problem(index, f"components.{kind}.{name}: not a $ref to its own name")
            if self.components[kind]:
                components[kind] = dict(sorted(self.components[kind].items()))
        if components:
            document["components"] = components
        channels, problems = read_channels(self.folder)
        self.problems += problems
        if self.problems:
            raise Unbundled(sorted(set(self.problems)))
        return Bundle(
            self.folder.name,
            document,
            {url: Path(item["$ref"]).name for url, item in paths.items()},
            self._unused(paths),
            self._used(self.shared),
            channels,
        )

    def _path_item(self, url: str, item: Any) -> Any:
        index = self.folder / "openapi.yaml"
        reference = item.get("$ref") if isinstance(item, dict) else None
        if not isinstance(reference, str) or len(item) > 1:
            self._problem(index, f"{url}: a path is one $ref to its file")
            return {}
        file = (self.folder / reference).resolve()
        if file.parent != self.folder / "paths" or not file.is_file():
            self._problem(index, f"{url}: no such file under paths/: {reference}")
            return {}
        return self._copy(self._read(file), file)

    def _fill_aliases(self, paths: dict[str, Any]) -> None:
        """Give every alias what its target says, so that the two cannot part."""
        every = {
            operation["operationId"]: operation
            for item in paths.values()
            for operation in item.values()
            if isinstance(operation, dict) and "operationId" in operation
        }
        for alias in every.values():
            if "x-alias-of" not in alias:
                continue
            target = every.get(alias["x-alias-of"])
            where = self.folder / "openapi.yaml"
            if target is None or "x-alias-of" in target:
                self._problem(where, f"{alias['operationId']}: no operation {alias['x-alias-of']}")
                continue
            if others := [key for key in alias if key not in _ALIAS_OWN]:
                self._problem(
                    where, f"{alias['operationId']}: an alias says no more ({', '.join(others)})"
                )
            alias.update({key: part for key, part in target.items() if key not in _ALIAS_OWN})

    def _copy(self, value: Any, file: Path, *, names: bool = False) -> Any:
        """`value` with every reference turned into one to a component.

        `names`: the keys are names (of properties, of examples) rather than words of OpenAPI.
        """
        if isinstance(value, list):
            return [self._copy(item, file) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value and not names:
            if len(value) > 1:
                others = ", ".join(key for key in value if key != "$ref")
                self._problem(file, f"$ref {value['$ref']}: nothing may stand beside it ({others})")
            return {"$ref": self._component(value["$ref"], file)}
        return {
            key: item
            if key in _LITERAL and not names
            else self._mapping(item, file)
            if key == "mapping" and not names
            else self._copy(item, file, names=not names and key in _MAPS)
            for key, item in value.items()
        }

    def _mapping(self, mapping: Any, file: Path) -> Any:
        """The targets of a discriminator, which are references without being `$ref`s."""
        if not isinstance(mapping, dict):
            return self._copy(mapping, file)
        return {value: self._component(target, file) for value, target in mapping.items()}

    def _component(self, reference: Any, file: Path) -> str:
        """The pointer of the component that `reference` in `file` becomes; bundles it once."""
        name, _, fragment = str(reference).partition("#")
        target = (file.parent / name).resolve() if name else file
        kind, key = target.parent.name, fragment.removeprefix("/")
        if target.parent.parent not in (self.folder, self.shared) or kind not in KINDS:
            self._problem(file, f"$ref {reference}: not a file of {', '.join(KINDS)}")
            return str(reference)
        if not target.is_file():
            self._problem(file, f"$ref {reference}: no such file")
            return str(reference)
        if (kind == "schemas") != bool(key) or "/" in key:
            form = "file.yaml#/Name" if kind == "schemas" else "the whole file"
            self._problem(file, f"$ref {reference}: {kind} are referred to as {form}")
            return str(reference)
        content = self._read(target)
        if not content:
            return str(reference)  # unreadable, which is reported by itself
        if key and key not in content:
            self._problem(file, f"$ref {reference}: the file has no {key}")
            return str(reference)
        component = key or component_name(target.stem)
        if not _NAME.match(component):
            self._problem(target, f"{component}: a component's name is letters and digits")
        owner = self.owners.setdefault((kind, component), (target, key))
        if owner != (target, key):
            self._problem(target, f"{kind} {component}: {self._name(owner[0])} has that name too")
        elif component not in self.components[kind]:
            self.components[kind][component] = None  # before its content, which may refer to it
            self.components[kind][component] = self._copy(content[key] if key else content, target)
        return f"#/components/{kind}/{component}"

    def _unused(self, paths: dict[str, Any]) -> tuple[str, ...]:
        """What stands in the contract's folder and nothing refers to."""
        used = self._used(self.folder)
        used |= {(item["$ref"], "") for item in paths.values()}
        return tuple(
            f"{self._name(self.folder / name)}: {key or 'the file'}: nothing refers to it"
            for name, key in sorted(_targets(self.folder) - used)
        )

    def _used(self, folder: Path) -> frozenset[tuple[str, str]]:
        """The components in use that stand under `folder`: `(file, key)`."""
        return frozenset(
            (str(file.relative_to(folder)), key)
            for file, key in self.owners.values()
            if file.is_relative_to(folder)
        )

    def _read(self, file: Path) -> dict[str, Any]:
        if file not in self.files:
            try:
                self.files[file] = read(file)
            except Unreadable as error:
                self._problem(file, str(error))
                self.files[file] = {}
        return self.files[file]

    def _problem(self, file: Path, text: str) -> None:
        self.problems.append(f"{self._name(file)}: {text}")

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.folder.parent.parent))


def _targets(folder: Path) -> set[tuple[str, str]]:
    """Everything in a folder that a reference may name: `(file, key)`, the key "" for all of it."""
    found: set[tuple[str, str]] = set()
    for file in folder.rglob("*.yaml"):
        name = str(file.relative_to(folder))
        if name in ("openapi.yaml", "asyncapi.yaml"):
            continue
        if name.startswith("schemas/"):
            try:
                found |= {(name, key) for key in read(file)}
            except Unreadable:
                continue  # reported where it is read
        else:
            found.add((name, ""))
    return found
