"""Rotation of the secrets key: every sealed value is wrapped by the newest key.

Values themselves are not decrypted (gateways/secretbox.py), and a row is changed only while it
still holds what was read, so this runs beside servers that know both keys.
"""

import base64
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Table, Text, bindparam, select, type_coerce, update

from domain.platform.config import CONTEXT as LLM_CONTEXT
from domain.platform.config import LLM
from gateways.secretbox import ENVIRONMENT, KEY_BYTES, SecretBox, key_id, load_keys
from server.administration.opening import Refused, alone, present, reading
from server.settings import Settings
from server.signing import CANARY, SIGNING_KEY
from storage.database import Database, Statement, Unit
from storage.schema import Json, idempotency, mcp_servers, providers, runs
from storage.schema import settings as stored

BATCH = 200


class Place(msgspec.Struct, frozen=True):
    """Where sealed values stand. `find` gives rows that end with the value; `put` changes one."""

    name: str
    find: Statement
    put: Statement
    keys: Sequence[str]
    rewrap: Callable[[SecretBox, Sequence[Any]], Any]


def _rewrap_stored(box: SecretBox, row: Sequence[Any]) -> str:
    contexts = {CANARY: "canary", SIGNING_KEY: "deployment:signing_key"}
    return box.rotate(row[1], contexts[row[0]])


def _rewrap_llm(box: SecretBox, row: Sequence[Any]) -> dict[str, Any]:
    sealed = row[1]["api_key_sealed"]
    return {**row[1], "api_key_sealed": box.rotate(sealed, LLM_CONTEXT) if sealed else ""}


def _rewrap_run(box: SecretBox, row: Sequence[Any]) -> dict[str, Any]:
    """A run's plan (domain.turn.plan.Plan) with the keys in it, and in those of its sub-agents."""
    plan = dict(row[1])
    plan["model"] = _rewrap_sealed(box, plan["model"], "api_key_sealed")
    if plan.get("brought_mcp"):
        plan["brought_mcp"] = _rewrap_sealed(box, plan["brought_mcp"], "servers_sealed")
    if plan.get("sub_agents"):
        plan["sub_agents"] = {
            key: {**one, "model": _rewrap_sealed(box, one["model"], "api_key_sealed")}
            for key, one in plan["sub_agents"].items()
        }
    return plan


def _rewrap_sealed(box: SecretBox, holder: dict[str, Any], name: str) -> dict[str, Any]:
    if not holder.get(name):
        return holder
    return {**holder, name: box.rotate(holder[name], f"request:{holder.get('owner_id', '')}")}


_claim = (idempotency.c.user_id, idempotency.c.operation, idempotency.c.path, idempotency.c.key)


def _column(name: str, table: Table, context: str, column: str = "api_key_sealed") -> Place:
    """The place of a table's sealed column, where a row without a secret holds ""."""
    sealed = table.c[column]
    return Place(
        name,
        Statement(select(table.c.id, sealed).where(sealed != "")),
        Statement(
            update(table)
            .where(table.c.id == bindparam("row_0"), sealed == bindparam("before"))
            .values({column: bindparam("after")})
        ),
        ("row_0",),
        lambda box, row: box.rotate(row[1], f"{context}:{row[0]}"),
    )


def _setting(
    name: str, keys: Sequence[str], rewrapped: Callable[[SecretBox, Sequence[Any]], Any]
) -> Place:
    """The place of stored settings."""
    return Place(
        name,
        Statement(select(stored.c.key, stored.c.value).where(stored.c.key.in_(keys))),
        Statement(
            update(stored)
            .where(
                stored.c.key == bindparam("row_0"),
                stored.c.value == bindparam("before", type_=Json),
            )
            .values(value=bindparam("after"))
        ),
        ("row_0",),
        rewrapped,
    )


PLACES = (
    _column("keys of providers", providers, "provider"),
    _column("keys of MCP servers", mcp_servers, "mcp"),
    _column("configurations of MCP servers", mcp_servers, "mcp", "config_sealed"),
    _setting("keys of the deployment", (CANARY, SIGNING_KEY), _rewrap_stored),
    _setting("the key of the platform's model", (LLM,), _rewrap_llm),
    Place(
        "keys that requests brought along",
        Statement(
            select(runs.c.id, runs.c.request).where(
                type_coerce(runs.c.request, Text).like('%\\_sealed":"q%', escape="\\")
            )
        ),
        Statement(
            update(runs)
            .where(
                runs.c.id == bindparam("row_0"),
                runs.c.request == bindparam("before", type_=Json),
            )
            .values(request=bindparam("after"))
        ),
        ("row_0",),
        _rewrap_run,
    ),
    Place(
        "answers that showed a secret",
        Statement(
            select(*_claim, idempotency.c.body).where(
                idempotency.c.answer_until.is_not(None), idempotency.c.body.is_not(None)
            )
        ),
        Statement(
            update(idempotency)
            .where(
                *(column == bindparam(f"row_{at}") for at, column in enumerate(_claim)),
                idempotency.c.body == bindparam("before"),
            )
            .values(body=bindparam("after"))
        ),
        ("row_0", "row_1", "row_2", "row_3"),
        lambda box, row: box.rotate(row[-1], "idempotency"),
    ),
)


async def rewrap(database: Database, box: SecretBox) -> dict[str, int]:
    """Wrap every sealed value by the box's first key; how many were changed, by place.

    Raises WrongKey or SealBroken for a value that none of the keys opens, before anything of its
    batch is changed.
    """
    changed = {}
    for place in PLACES:
        rows = await database.scan(place.find())
        changes = [
            {**dict(zip(place.keys, row, strict=False)), "before": row[-1], "after": after}
            for row in rows
            if (after := place.rewrap(box, row)) != row[-1]
        ]
        for at in range(0, len(changes), BATCH):
            batch = changes[at : at + BATCH]

            def unit(put: Statement = place.put, batch: list[Any] = batch) -> Unit[None]:
                for change in batch:
                    yield put(**change)

            await database.write(unit)
        changed[place.name] = len(changes)
    return changed


async def rotate(settings: Settings, say: Callable[[str], None]) -> None:
    """With a key file of its own, the data directory gets a new key; where the operator keeps the
    keys, the first of them is taken for the new one."""
    present(settings)
    with alone(settings):
        own = settings.data / "secrets.key"
        keys = load_keys(settings.data, settings.secrets_key_file, os.environ)
        ours = settings.secrets_key_file is None and not os.environ.get(ENVIRONMENT)
        if ours and not settings.embedded:
            raise Refused(
                "several servers share the secrets key: put a new key second in the key file of"
                " each (SECRETS_KEY_FILE) and restart them, put it first and restart them, then"
                " run this"
            )
        if ours:
            keys = [secrets.token_bytes(KEY_BYTES), *keys]
            write_keys(own, keys)
        async with reading(settings) as database:
            for name, count in (await rewrap(database, SecretBox(keys))).items():
                say(f"{count:6d} {name}")
        if ours:
            for former in keys[1:]:
                write_keys(own.with_name(f"secrets.key.{key_id(former)}"), [former])
            write_keys(own, keys[:1])
            say(f"The secrets key is now {key_id(keys[0])}. Backups made before need the former")
            say(f"one, kept as {own}.{key_id(keys[1])}: delete it when none of them is needed.")
        elif len(keys) > 1:
            say(f"Everything is sealed by {key_id(keys[0])}; the other keys may go.")
        else:
            say(f"Everything is sealed by {key_id(keys[0])}, the only key there is.")


def write_keys(path: Path, keys: Sequence[bytes]) -> None:
    """Replace a key file at once and whole, readable by its owner alone."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(base64.b64encode(key) + b"\n" for key in keys)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
