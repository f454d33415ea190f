"""Our server with the events of writes left out, to show what they cost: `python -m
scripts.benchmarks.without_events serve …`. A patch of this process alone; the product has no such
switch."""

from collections.abc import Sequence
from typing import Any

from server.__main__ import main
from storage.database import Unit
from storage.events import EventLog


def _append_nothing(self: EventLog, stream: str, events: Sequence[Any]) -> Unit[int]:
    return len(events)
    yield


if __name__ == "__main__":
    EventLog.append = _append_nothing  # type: ignore[method-assign]
    main()
