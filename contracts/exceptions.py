"""Checks that are switched off for an operation, each with its reason; the list cleans itself:
a line whose failure no longer occurs fails the run, from the number of examples on that the line
names."""

import csv
from functools import cache
from pathlib import Path

from contracts.reach import Reach

FILE = Path(__file__).parent / "exceptions.tsv"


@cache
def listed() -> dict[tuple[str, str], int]:
    """(Operation.key, check) → the number of examples at which it shows. Raises AssertionError for
    a line without a reason."""
    with FILE.open(newline="") as lines:
        table = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert all(line["reason"] for line in table), "exceptions.tsv: a line without a reason"
    return {
        (f"{line['contract']}.{line['operation']}", line["check"]): int(line["examples"])
        for line in table
    }


def unneeded(reach: Reach, examples: int) -> list[str]:
    """The lines that no failure of a run with so many examples per operation needed."""
    return [
        f"contracts/exceptions.tsv: {key} passes {check}; take its line out"
        for (key, check), enough in listed().items()
        if examples >= enough and not reach.excused[key, check]
    ]
