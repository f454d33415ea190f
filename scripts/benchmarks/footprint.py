"""(d) Time to start and memory at rest."""

import statistics
import tempfile
import time
from pathlib import Path

from scripts.benchmarks.processes import quartet
from scripts.benchmarks.tables import Table

STARTS = 5
IDLE_S = 30


def run() -> list[Table]:
    """The table of bench (d)."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with quartet(data) as first:
            first_boot = first.started_in
        starts = []
        for _ in range(STARTS):
            with quartet(data) as server:
                starts.append(server.started_in)
        with quartet(data) as server:
            time.sleep(IDLE_S)
            memory = server.pss / 2**20
            begun = server.cpu
            time.sleep(5)
            at_rest = (server.cpu - begun) / 5
    table = Table(
        "(d) Start and memory",
        ["figure", "value"],
        note="Start is exec to the first 200 of `/api/health`, over a data directory that exists; "
        f"memory is the Pss of the process tree after {IDLE_S} s without a request or a model.",
    )
    start = statistics.median(starts)
    table.rows = [
        ["first start, empty data directory", f"{first_boot:.2f} s"],
        [
            f"start, median of {STARTS} (lowest–highest)",
            f"{start:.2f} s ({min(starts):.2f}–{max(starts):.2f})",
        ],
        [f"memory after {IDLE_S} s", f"{memory:.0f} MiB"],
        ["CPU at rest", f"{at_rest:.2%} of a core"],
    ]
    table.claim("start, seconds", start, at_most=3)
    table.claim("idle memory, MB", memory * 2**20 / 1e6, at_most=170)
    return [table]
