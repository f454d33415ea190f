"""`scripts/bench [--strict] [lane|database|streams|footprint|knowledge|turns …]`"""

import argparse
import importlib
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from scripts.benchmarks.processes import ROOT
from scripts.benchmarks.tables import Table

BENCHES = ("lane", "database", "streams", "footprint", "knowledge", "turns")
REPORT = ROOT / "reports" / "bench.md"
HOW = """\
Written by `scripts/bench`, which measures everything side by side in one run. Comparators stand in
`scripts/benchmarks/`, run on uvloop and httptools, do the same work with the same durability and
answer the same data (`tests/benchmarks/`): each as its documentation recommends, and tuned. Claims
are made against the former. CPU is user and system time of the server's processes; ratios are
taken round by round, the servers interleaved, so that other work on the machine weighs on all of
them alike. Latencies do depend on it: see the load average.
"""
SANDBOX = ("sessions", "sandboxes")
"""What the sandbox contract adds to BENCHES."""


def machine() -> str:
    """What the figures were taken on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} × {model}; Linux "
        f"{platform.release()}; Python {platform.python_version()}; load average {load}"
    )


def report(tables: list[Table], before: str, after: str) -> str:
    """The whole page."""
    head = f"# Measurements\n\n{HOW}\n- before: {before}\n- after: {after}\n"
    return "\n".join([head, *(table.markdown() for table in tables)])


def main() -> None:
    """Run benches, print each table as it stands, and write the report."""
    benches = (*BENCHES, *SANDBOX)
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure side by side.")
    parser.add_argument("names", nargs="*", metavar="bench", help=f"of: {', '.join(benches)}")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a claim is missed")
    parser.add_argument("--output", type=Path, default=REPORT, help=f"default: {REPORT}")
    given = parser.parse_args()
    if unknown := set(given.names) - set(benches):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    before = machine()
    tables: list[Table] = []
    for name in given.names or benches:
        for table in importlib.import_module(f"scripts.benchmarks.{name}").run():
            tables.append(table)
            sys.stdout.write(table.markdown() + "\n")
            sys.stdout.flush()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(report(tables, before, machine()))
    missed = [claim for table in tables for claim, kept in table.claims if not kept]
    for claim in missed:
        sys.stderr.write(f"missed: {claim}\n")
    if missed and given.strict:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
