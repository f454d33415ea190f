"""What a client makes long, a log line does not make slow."""

import time

import pytest

from server.observing import scrubbed


@pytest.mark.parametrize("piece", ["1", "a_", "a", "eyJ-", "eyJ.", "sk-", "://", "key ", "://a:b"])
def test_scrubbing_is_linear(piece: str) -> None:
    """Counted in processor time against a short text, not by the clock on the wall."""

    def cost(length: int) -> float:
        text = (piece * length)[:length]
        begun = time.thread_time()
        for _ in range(3):
            scrubbed(text)
        return time.thread_time() - begun

    cost(1000)
    short, long = cost(4000), cost(64_000)
    # 16 times the length; squared it would be 256 times the work.
    assert long < 100 * max(short, 0.002), (short, long)
