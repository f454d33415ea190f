"""Ending a stream of deltas when the cancel event of its call is set."""

import asyncio
from collections.abc import AsyncGenerator

from gateways.errors import ModelCancelled
from gateways.models.model import Delta


async def until_cancelled(
    source: AsyncGenerator[Delta, None], cancel: asyncio.Event | None
) -> AsyncGenerator[Delta, None]:
    """The deltas of `source`, which is closed when they end, however they end.

    Raises ModelCancelled as soon as `cancel` is set, also in the middle of a wait.
    """
    if cancel is None:
        try:
            async for delta in source:
                yield delta
        finally:
            await source.aclose()
        return
    stop = asyncio.create_task(cancel.wait())
    step: asyncio.Task[Delta | None] | None = None
    try:
        while True:
            step = asyncio.create_task(_next(source))
            await asyncio.wait((step, stop), return_when=asyncio.FIRST_COMPLETED)
            if cancel.is_set():
                raise ModelCancelled("the call was cancelled")
            if (got := step.result()) is None:
                return
            yield got
    finally:
        stop.cancel()
        if step is not None and not step.done():
            step.cancel()
            await asyncio.wait((step,))
        if step is not None and not step.cancelled():
            step.exception()
        await source.aclose()


async def _next(source: AsyncGenerator[Delta, None]) -> Delta | None:
    return await anext(source, None)
