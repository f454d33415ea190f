"""Keys that all processes of a deployment share.

What signs tokens lies in the database, sealed by the secrets key, so every process over one
database has the same; the canary beside it shows whether this process was given the right key.
"""

import secrets
import time

from domain.identity.keys import KEY_BYTES, refuse_weak
from gateways.secretbox import SecretBox
from storage.database import Database, Unit
from storage.stored_settings import StoredSettings

CANARY = "secrets_canary"
SIGNING_KEY = "signing_key"
_CONTEXT = "deployment:signing_key"


async def signing_key(database: Database, box: SecretBox) -> bytes:
    """The key that signs access tokens, drawn at random on the first start.

    Raises WrongKey when the secrets key is not the one that sealed what is stored; WeakKey.
    """
    stored = StoredSettings(database)
    await _first(database, stored, CANARY, box.canary())
    box.check(await stored.find(CANARY, None))
    drawn = box.seal(secrets.token_hex(KEY_BYTES), _CONTEXT)
    await _first(database, stored, SIGNING_KEY, drawn)
    return refuse_weak(box.open(await stored.find(SIGNING_KEY, None), _CONTEXT).encode())


async def _first(database: Database, stored: StoredSettings, name: str, value: str) -> None:
    """Store a value unless another start has: of two at once, one wins."""
    if await stored.find(name, None) is None:

        def unit() -> Unit[None]:
            yield from stored.put_first(name, value, time.time())

        await database.write(unit)
