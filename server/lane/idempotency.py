"""The lane's side of Idempotency-Key: claim, act, keep the answer (storage/idempotency.py).

Kept: successes and the refusals that a repeated request would meet again. Not kept: 5xx and 429,
which a client repeats because it hopes for another answer.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from domain.ids import uuid7
from handlers.wire import Stream
from server.lane.refusals import Refusal
from storage.database import StorageError
from storage.idempotency import (
    LEASE_S,
    Answer,
    Claim,
    ClaimLost,
    IdempotencyStore,
    InProgress,
    Mismatch,
    RunStarted,
    Scope,
    attached,
)

logger = logging.getLogger("quartet.lane")

WAIT_S = 10.0
_POLL_S = 0.05
_SWEEP_S = 600.0
_VISIBLE = re.compile(rb"[\x21-\x7e]{1,255}")

Headers = list[tuple[bytes, bytes]]


class Rendered(NamedTuple):
    """A whole answer: what is sent, and what is kept."""

    status: int
    media: bytes
    body: bytes
    headers: Headers


class Key(NamedTuple):
    """What an Idempotency-Key stands for, and the fingerprint that tells two requests apart: a
    keyed digest, for a request may hold a password, and a plain one would let whoever reads the
    rows try passwords at the speed of SHA-256."""

    scope: Scope
    fingerprint: str

    @classmethod
    def of(
        cls,
        key: bytes,
        user_id: str,
        operation_id: str,
        scope: Mapping[str, Any],
        body: bytes,
        secret: bytes,
    ) -> "Key":
        """Raises Refusal 400 when the key is not 1 to 255 visible ASCII characters."""
        if not _VISIBLE.fullmatch(key):
            raise Refusal(400, "request.idempotency_key")
        path = scope["path"].rstrip("/")
        total = hmac.new(secret, digestmod=hashlib.sha256)
        for part in (scope["method"].encode(), path.encode(), scope["query_string"], body):
            total.update(b"%d:" % len(part))
            total.update(part)
        return cls(Scope(user_id, operation_id, path, key.decode()), total.hexdigest())


class Idempotency:
    """Runs handlers at most once per key. `secret` keys the fingerprints of requests; all
    processes of a deployment have the same."""

    def __init__(self, store: IdempotencyStore, secret: bytes) -> None:
        self._store = store
        self.secret = secret

    async def once(
        self,
        key: Key,
        *,
        handle: Callable[[], Awaitable[Any]],
        render: Callable[[Any], Rendered],
        refused: Callable[[Exception], Rendered | None],
        replay_run: Callable[[str], Awaitable[Stream]] | None,
    ) -> tuple[bool, Rendered | Stream]:
        """Whether the answer is a repetition, and the answer.

        `refused` gives the answer to an exception, None for a fault. Answers that another try may
        change are not kept, and the exception is raised again. Raises Refusal 409 when the key
        belongs to another request, or is still busy after 10 s.
        """
        deadline = time.monotonic() + WAIT_S
        while True:
            outcome = await self._store.begin(
                key.scope, key.fingerprint, holder=uuid7(), now=time.time()
            )
            if isinstance(outcome, Claim):
                return False, await self._act(outcome, handle, render, refused)
            if isinstance(outcome, Answer):
                headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in outcome.headers]
                (_, media), *rest = headers
                return True, Rendered(outcome.status, media, outcome.body, rest)
            if isinstance(outcome, RunStarted) and replay_run is not None:
                return True, await replay_run(outcome.run_id)
            if isinstance(outcome, Mismatch):
                raise Refusal(409, "request.idempotency_mismatch")
            if not isinstance(outcome, InProgress):
                raise Refusal(409, "request.idempotency_lost")
            if time.monotonic() >= deadline:
                raise Refusal(409, "request.idempotency_busy", headers=[(b"retry-after", b"1")])
            await asyncio.sleep(_POLL_S)

    async def _act(
        self,
        claim: Claim,
        handle: Callable[[], Awaitable[Any]],
        render: Callable[[Any], Rendered],
        refused: Callable[[Exception], Rendered | None],
    ) -> Rendered | Stream:
        try:
            with attached(claim):
                result = await handle()
            if type(result) is Stream:
                self._store.leave(claim)
                return result
            answer = render(result)
        except Exception as error:
            kept = refused(error)
            if kept is None or kept.status >= 500 or kept.status == 429:
                await self._store.abandon(claim)
                raise
            await self._keep(claim, kept)
            return kept
        except BaseException:
            await self._store.abandon(claim)
            raise
        await self._keep(claim, answer)
        return answer

    async def _keep(self, claim: Claim, answer: Rendered) -> None:
        headers = ((b"content-type", answer.media), *answer.headers)
        try:
            await self._store.finish(
                claim,
                Answer(
                    answer.status,
                    tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in headers),
                    answer.body,
                ),
                now=time.time(),
                shows_secret=any(name == b"set-cookie" for name, _ in answer.headers),
            )
        except ClaimLost:
            logger.warning("an idempotency claim was taken over while its answer was made")

    async def keep_house(self) -> None:
        """Renew the leases of this process and sweep what has expired; runs until cancelled."""
        swept = 0.0
        while True:
            await asyncio.sleep(LEASE_S / 4)
            try:
                await self._store.renew(time.time())
                if time.monotonic() - swept > _SWEEP_S:
                    swept = time.monotonic()
                    await self._store.sweep(time.time())
            except StorageError as error:
                logger.warning("idempotency housekeeping failed: %s", error)
