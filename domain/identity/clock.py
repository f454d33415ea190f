"""Time for deadlines of credentials."""

import time


class Clock:
    """UTC seconds that never go back: setting the machine's clock back revives no token."""

    def __init__(self) -> None:
        self._latest = 0.0

    def __call__(self) -> float:
        now = time.time()
        if now > self._latest:
            self._latest = now
        return self._latest
