"""Checks that are switched off for an operation, each with its reason; the list cleans itself:
a line whose failure no longer occurs fails the run."""

import csv
from functools import cache
from pathlib import Path

from contracts.reach import Reach

FILE = Path(__file__).parent / "exceptions.tsv"


@cache
def listed() -> dict[tuple[str, str], str]:
    """(operationId, check) → why. Raises AssertionError for a line without a reason."""
    with FILE.open(newline="") as lines:
        found = {
            (line["operation"], line["check"]): line["reason"]
            for line in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        }
    assert all(found.values()), "exceptions.tsv: a line without a reason"
    return found


def unneeded(reach: Reach) -> list[str]:
    """The lines that no failure of the run needed."""
    return [
        f"contracts/exceptions.tsv: {operation_id} passes {check}; take its line out"
        for operation_id, check in listed()
        if not reach.excused[operation_id, check]
    ]
