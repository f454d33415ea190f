"""generated/<contract>/routes.py: every operation bound by name to what serves it."""

from typing import Any

from scripts.pipeline.channels import channels
from scripts.pipeline.models import body_model
from scripts.pipeline.operations import operations

HEADER = '"""Routes of the {contract} contract. Generated, do not edit: run `scripts/generate`."""'


def routes(contract: str, document: dict[str, Any], websockets: dict[str, Any]) -> str:
    """The module: HANDLERS, ALIASES, BODIES and ENVELOPED, each keyed by operationId, and CHANNELS
    by a channel's id."""
    every = sorted(operations(document), key=lambda operation: operation.id)
    served = [operation for operation in every if not operation.alias_of]
    handlers = {each.id: f"{each.resource}.{each.function}" for each in served}
    aliases = {each.id: repr(each.alias_of) for each in every if each.alias_of}
    bodies = {each.id: model for each in every if (model := body_model(each))}
    enveloped = [each.id for each in every if each.data is not None]
    opened = {each.id: f"{each.resource}.{each.function}" for each in channels(websockets)}
    resources = sorted({name.partition(".")[0] for name in (*handlers.values(), *opened.values())})
    needs_models = any(model.startswith("models.") for model in bodies.values())
    imports = [f"from generated.{contract} import models"] if needs_models else []
    if resources:
        names = "".join(f"    {name},\n" for name in resources)
        imports.append(f"from handlers.{contract} import (\n{names})")
    return "\n".join(
        [
            HEADER.format(contract=contract),
            *(["", *imports] if imports else []),
            "",
            _mapping("HANDLERS", handlers),
            _mapping("ALIASES", aliases),
            _mapping("BODIES", bodies),
            _mapping("CHANNELS", opened),
            "ENVELOPED = frozenset(\n    (\n"
            + "".join(f"        {name!r},\n" for name in enveloped).replace("'", '"')
            + "    )\n)",
            "",
        ]
    )


def _mapping(name: str, entries: dict[str, str]) -> str:
    lines = "".join(f'    "{key}": {value},\n' for key, value in entries.items())
    return f"{name} = {{\n{lines}}}".replace("'", '"')
