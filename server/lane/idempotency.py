"""placeholder until the store lands"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from server.lane.refusals import Refusal

_VISIBLE = re.compile(rb"[\x21-\x7e]{1,255}")


class Key(NamedTuple):
    """Which effect an Idempotency-Key stands for, and the fingerprint of the request."""

    user_id: str
    operation: str
    path: str
    key: str
    fingerprint: str

    @classmethod
    def of(
        cls,
        key: bytes,
        user_id: str,
        operation_id: str,
        method: str,
        scope: Mapping[str, Any],
        body: bytes,
    ) -> "Key":
        """Raises Refusal 400 when the key is not 1 to 255 visible ASCII characters."""
        if not _VISIBLE.fullmatch(key):
            raise Refusal(400, "request.idempotency_key")
        path = scope["path"].rstrip("/")
        total = hashlib.sha256()
        for part in (method.encode(), path.encode(), scope["query_string"], body):
            total.update(b"%d:" % len(part))
            total.update(part)
        return cls(user_id, operation_id, path[-512:], key.decode(), total.hexdigest())


class Idempotency:
    pass
