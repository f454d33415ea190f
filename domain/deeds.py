"""Events that tell who did what. They commit with the rows they tell of."""

from typing import Any

import msgspec

from domain.caller import Caller
from storage.records import Event


def deed(kind: str, caller: Caller, **facts: Any) -> Event:
    """An event of `kind` whose payload names the actor and the facts. Never give it a secret."""
    return Event(kind, msgspec.json.encode({"actor": caller.user_id, **facts}))
