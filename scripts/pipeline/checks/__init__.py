"""What openapi/README.md asks of a contract, as named checks over its bundle.

Each check is a generator of problems; ALL runs them in order. tests/pipeline/test_checks.py breaks
each of them once.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scripts.pipeline.bundle import Bundle
from scripts.pipeline.checks import document, operations, schemas
from scripts.pipeline.source import read


class Surroundings(NamedTuple):
    """What a spec is judged against besides itself.

    `verbs` is openapi/verbs.yaml, `messages` the keys of server/messages.
    """

    verbs: dict[str, Any]
    messages: frozenset[str]

    @classmethod
    def read(cls, root: Path) -> "Surroundings":
        return cls(read(root / "openapi" / "verbs.yaml"), message_keys())


Check = Callable[[Bundle, Surroundings], Iterator[str]]

ALL: tuple[Check, ...] = (
    document.valid_openapi,
    document.version,
    document.path_files,
    document.extensions,
    operations.names,
    operations.tags,
    operations.prose,
    operations.roles,
    operations.parameters,
    operations.bodies,
    operations.statuses,
    operations.idempotency,
    operations.soft_errors,
    operations.business_codes,
    operations.links,
    schemas.closed_responses,
    schemas.stated_requests,
    schemas.required_exist,
    schemas.nullable,
    schemas.examples,
)


def run(made: list[Bundle], around: Surroundings) -> list[str]:
    """Every problem of every contract, each once, and the verbs that no operation uses."""
    problems = [
        f"{bundle.contract}: {check.__module__.rpartition('.')[2]}.{check.__name__}: {problem}"
        for bundle in made
        for check in ALL
        for problem in check(bundle, around)
    ]
    used = {verb for bundle in made for verb in operations.verbs(bundle)}
    problems += [
        f"openapi/verbs.yaml: {verb}: no operation uses it"
        for verb in around.verbs
        if verb not in used
    ]
    return list(dict.fromkeys(problems))


def message_keys() -> frozenset[str]:
    """Every key of server/messages."""
    package = importlib.import_module("server.messages")
    modules = [
        importlib.import_module(f"server.messages.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    return frozenset(key for module in modules for key in getattr(module, "MESSAGES", {}))


__all__ = ["ALL", "Surroundings", "message_keys", "run"]
