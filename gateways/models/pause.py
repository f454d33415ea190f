"""Waiting that a cancel event ends at once, cheap enough for thousands of waits a second."""

import asyncio

from gateways.errors import ModelCancelled


class Pauses:
    """The waits of one call. `asyncio.wait_for(cancel.wait(), …)` would cost a task per token;
    here one task per call watches the event and each wait is a timer."""

    __slots__ = ("_cancel", "_loop", "_waiting", "_watch")

    def __init__(self, cancel: asyncio.Event | None) -> None:
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise ModelCancelled if the call was cancelled."""
        if self._cancel is not None and self._cancel.is_set():
            raise ModelCancelled("the call was cancelled")

    async def until(self, when: float) -> None:
        """Wait until the loop's clock shows `when`; raise ModelCancelled as soon as it is set."""
        self.check()
        if self._cancel is not None and self._watch is None:
            self._watch = self._loop.create_task(self._wake_on(self._cancel))
        self._waiting = self._loop.create_future()
        timer = self._loop.call_at(when, self._wake)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None
        self.check()

    def close(self) -> None:
        """End the watch. Called once the call is over."""
        if self._watch is not None:
            self._watch.cancel()

    async def _wake_on(self, cancel: asyncio.Event) -> None:
        await cancel.wait()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
