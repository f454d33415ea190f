"""Handlers against operations, both ways.

A handler names what it wants (ARCHITECTURE.md, "A handler"); whatever the spec promises to read
and the handler does not name would be accepted and ignored.
"""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from scripts.pipeline.bundle import Bundle
from scripts.pipeline.channels import Channel, channels
from scripts.pipeline.operations import Operation, operations, parameter_name

FROM_LANE = frozenset({"quartet", "caller", "body", "origin", "if_match"})
"""What every handler may name; the rest of its arguments are parameters of the operation."""

READ_BY_LANE = frozenset(
    {
        "accept",
        "accept_language",
        "idempotency_key",
        "if_match",
        "if_none_match",
        "last_event_id",
    }
)
"""Header parameters that act before the handler or reach it as `origin`."""

ASKED_BY_LANE = frozenset({"chat.replay", "session.replay"})
"""Functions that the lane calls beside the operations: the stream of a run that a repeated request
began."""


def check(made: list[Bundle]) -> list[str]:
    """What handlers and operations do not agree on."""
    return [problem for bundle in made for problem in _check(bundle)]


def _check(bundle: Bundle) -> Iterator[str]:
    served = [each for each in operations(bundle.document) if not each.alias_of]
    opened = list(channels(bundle.channels))
    for resource in sorted({each.resource for each in (*served, *opened)}):
        name = f"handlers.{bundle.contract}.{resource}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            yield f"{name}: {error}"
            continue
        own = [each for each in served if each.resource == resource]
        for operation in own:
            yield from fit(operation, name, getattr(module, operation.function, None))
        sockets = [each for each in opened if each.resource == resource]
        for channel in sockets:
            yield from fit_channel(channel, name, getattr(module, channel.function, None))
        wanted = {each.function for each in (*own, *sockets)}
        for function, value in vars(module).items():
            public = inspect.iscoroutinefunction(value) and not function.startswith("_")
            asked = f"{resource}.{function}" in ASKED_BY_LANE
            if public and value.__module__ == name and function not in wanted and not asked:
                yield f"{name}.{function}: no operation {resource}_{function.rstrip('_')}"


def fit_channel(channel: Channel, module: str, handler: Any) -> Iterator[str]:
    """What is wrong with `handler` as the one of a websocket."""
    where = f"{module}.{channel.function} ({channel.id})"
    if not inspect.iscoroutinefunction(handler):
        yield f"{where}: is not a coroutine function"
        return
    named = set(inspect.signature(handler).parameters)
    if unknown := named - (FROM_LANE - {"body", "if_match"}) - channel.arguments:
        yield f"{where}: names {', '.join(sorted(unknown))}, which the channel has not"
    if ignored := channel.arguments - named:
        yield f"{where}: ignores {', '.join(sorted(ignored))}"


def fit(operation: Operation, module: str, handler: Any) -> Iterator[str]:
    """What is wrong with `handler` as the one of `operation`."""
    where = f"{module}.{operation.function} ({operation.id})"
    if handler is None:
        yield f"{where}: does not exist"
        return
    if not inspect.iscoroutinefunction(handler):
        yield f"{where}: is not a coroutine function"
        return
    signature = inspect.signature(handler).parameters
    named = set(signature)
    if any(each.kind in {each.VAR_KEYWORD, each.VAR_POSITIONAL, each.POSITIONAL_ONLY}
           for each in signature.values()):  # fmt: skip
        yield f"{where}: takes arguments that have no name"
        return
    documented = {parameter_name(each["name"].lower() if each["in"] == "header" else each["name"])
                  for each in operation.parameters}  # fmt: skip
    if unknown := named - FROM_LANE - documented:
        yield f"{where}: names {', '.join(sorted(unknown))}, which the operation has not"
    if ignored := documented - READ_BY_LANE - named:
        yield f"{where}: ignores {', '.join(sorted(ignored))}"
    if operation.body and "body" not in named:
        yield f"{where}: ignores the body"
    if not operation.body and "body" in named:
        yield f"{where}: names body, which the operation has not"
