"""Spec against contracts/documented.tsv, both ways.

A documented row is built (its operation is in the spec) or listed in contracts/not_built.tsv with
a reason, never both; an operation that no row documents says so (`x-extension`). The auth column
is the oracle of `security` and `x-role`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.pipeline.bundle import Bundle
from scripts.pipeline.channels import channels
from scripts.pipeline.operations import METHODS, Operation, operations

ANY = tuple(method.upper() for method in METHODS if method != "trace")
"""The methods of a row that says ANY; all of them count as the one row."""

ROLES = {
    "public": "",
    "user": "user",
    "admin": "admin",
    "gate": "gate",
    "oauth2 token": "oauth2",
}
"""The auth column of documented.tsv → `x-role`."""


class Key(NamedTuple):
    contract: str
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.contract}: {self.method} {self.path}"


PAGES = frozenset(
    {
        Key("sandbox", "GET", "/docs"),
        Key("sandbox", "GET", "/redoc"),
        Key("sandbox", "GET", "/openapi.json"),
    }
)
"""Rows that are pages of the portal, so no operations; tests/server/test_portal.py opens them."""


class Tables(NamedTuple):
    """documented: row → its auth column; not_built: row → why not."""

    documented: dict[Key, str]
    not_built: dict[Key, str]


def check(folder: Path, made: list[Bundle]) -> list[str]:
    """What spec and tables (documented.tsv, not_built.tsv in `folder`) do not agree on."""
    tables = Tables(
        dict(_rows(folder / "documented.tsv")),
        dict(_rows(folder / "not_built.tsv")),
    )
    built = {
        Key(bundle.contract, operation.method.upper(), operation.path): operation
        for bundle in made
        for operation in operations(bundle.document)
    }
    opened = {
        Key(bundle.contract, "WS", channel.address)
        for bundle in made
        for channel in channels(bundle.channels)
    }
    contracts = {bundle.contract for bundle in made}
    other = {row for row in PAGES if row.contract in contracts} | opened
    return [
        *(f"{row}: is built; take its line out of contracts/not_built.tsv"
          for row in sorted(other & tables.not_built.keys())),
        *(f"{row}: a channel that no row of contracts/documented.tsv has"
          for row in sorted(opened - tables.documented.keys())),
        *_disagreements(
            Tables({row: auth for row, auth in tables.documented.items() if row not in other},
                   {row: why for row, why in tables.not_built.items() if row not in other}),
            built),
    ]  # fmt: skip


def _disagreements(tables: Tables, built: dict[Key, Operation]) -> Iterator[str]:
    covered: set[Key] = set()
    for row, auth in tables.documented.items():
        keys = _keys(row)
        present = [key for key in keys if key in built]
        covered.update(present)
        if present and row in tables.not_built:
            yield f"{row}: is built; take its line out of contracts/not_built.tsv"
        elif not present and row not in tables.not_built:
            yield f"{row}: is documented, and neither built nor in contracts/not_built.tsv"
        elif present and len(present) < len(keys):
            missing = ", ".join(key.method for key in keys if key not in built)
            yield f"{row}: {missing} missing"
        for key in present:
            yield from _role(key, auth, built[key])
    for row, reason in tables.not_built.items():
        if row not in tables.documented:
            yield f"{row}: in contracts/not_built.tsv, and not documented"
        if not reason:
            yield f"{row}: in contracts/not_built.tsv without a reason"
    for key, operation in built.items():
        extends = operation.raw.get("x-extension") is True
        if key in covered and extends:
            yield f"{key}: is documented, so it is no x-extension"
        elif key not in covered and not extends:
            yield f"{key}: no row of contracts/documented.tsv, and no x-extension"


def _role(key: Key, auth: str, operation: Operation) -> Iterator[str]:
    if auth not in ROLES:
        yield f"{key}: documented.tsv says {auth!r}, which the parity check does not know"
        return
    role, private = operation.raw.get("x-role", ""), bool(operation.raw.get("security"))
    if role != ROLES[auth] or private != bool(ROLES[auth]):
        said = f"x-role {role or 'absent'}, security {'stated' if private else '[]'}"
        yield f"{key}: documented as {auth}; the spec says {said}"


def _keys(row: Key) -> list[Key]:
    """The operations of a row: ANY is every method, a path that ends in `*` takes its rest."""
    row = row._replace(path=row.path.replace("*", "{rest}"))
    return [row._replace(method=method) for method in ANY] if row.method == "ANY" else [row]


def _rows(file: Path) -> Iterator[tuple[Key, str]]:
    """`(row, fourth column)` of a table of contract, method, path and more."""
    for line in file.read_text().splitlines()[1:]:
        contract, method, path, rest, *_ = [*line.split("\t"), ""]
        yield Key(contract, method, path), rest.strip()
