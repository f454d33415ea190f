"""What the tests of a run reached, by Operation.key and effective status; and the report of it."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from contracts.document import Contract, Operation

HEADING = """# What the contract suite reached

Responses by operation and effective status: HTTP 200 with another envelope code counts as that.
"""
BY_FAULT = frozenset({413, 429, 500, 503, 507})
"""Seen once per contract, by fault injection (rules, "Measuring and checking")."""


class Reach:
    """Counts of what was seen; one per process, added up at the end."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self.reached: Counter[str] = Counter()
        self.excused: Counter[tuple[str, str]] = Counter()

    def saw(self, operation: Operation, status: int, http: int, success: bool) -> None:
        """A response came; a soft error counts under its code and under HTTP 200 as well."""
        for each in {status, http}:
            self.seen[operation.key, each] += 1
        if success:
            self.reached[operation.key] += 1

    def excuse(self, operation: Operation, check: str) -> None:
        """A failure that exceptions.tsv lists was seen."""
        self.excused[operation.key, check] += 1

    def save(self, file: Path) -> None:
        """Write the counts for the process that adds them up."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps(
                {
                    "seen": [[*key, count] for key, count in self.seen.items()],
                    "reached": self.reached,
                    "excused": [[*key, count] for key, count in self.excused.items()],
                }
            )
        )

    def add(self, file: Path) -> None:
        """Add what another process saved."""
        saved = json.loads(file.read_text())
        for key, status, count in saved["seen"]:
            self.seen[key, status] += count
        self.reached.update(saved["reached"])
        for key, check, count in saved["excused"]:
            self.excused[key, check] += count

    def unmet(self, contract: Contract) -> list[str]:
        """What the requirement misses: successes, statuses, and once each those by fault."""
        operations = contract.operations.values()
        missed = [
            f"{each.key}: its success was never reached"
            for each in operations
            if not self.reached[each.key]
        ]
        statuses: set[int] = set()
        for each in operations:
            statuses |= each.statuses.keys() & BY_FAULT
            missed += [
                f"{each.key}: {status} was never seen"
                for status in each.statuses
                if status not in BY_FAULT and not self.seen[each.key, status]
            ]
        missed += [
            f"{contract.name}: {status} was seen at no operation"
            for status in sorted(statuses)
            if not any(self.seen[each.key, status] for each in operations)
        ]
        return missed

    def report(self, contract: Contract, unmet: Iterable[str]) -> str:
        """The contract's section as Markdown: `12` responses, `–` not declared, `0` declared and
        never seen."""
        columns = sorted({s for each in contract.operations.values() for s in each.statuses})
        lines = [
            f"## {contract.name}",
            "",
            f"| operation | reached | {' | '.join(map(str, columns))} | requests |",
            "|---|---|" + "---|" * (len(columns) + 1),
        ]
        for each in contract.operations.values():
            counts = [
                str(self.seen[each.key, status] or (0 if status in each.statuses else "–"))
                for status in columns
            ]
            total = sum(count for (key, _), count in self.seen.items() if key == each.key)
            yes = "yes" if self.reached[each.key] else "**no**"
            lines.append(f"| {each.id} | {yes} | {' | '.join(counts)} | {total} |")
        lines += ["", "Unmet:", ""]
        lines += [f"- {each}" for each in unmet] or ["Nothing."]
        return "\n".join([*lines, ""])
