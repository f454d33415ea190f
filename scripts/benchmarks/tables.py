"""Tables of figures and the claims made on them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """A Markdown table, and what must hold of its figures."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    claims: list[tuple[str, bool]] = field(default_factory=list)
    note: str = ""

    def claim(
        self,
        what: str,
        figure: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """State a figure against its bound; the report shows whether it is kept."""
        kept = (at_least is None or figure >= at_least) and (at_most is None or figure <= at_most)
        bound = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"
        self.claims.append((f"{what}: {figure:.3g} (wanted {bound})", kept))

    def markdown(self) -> str:
        """The table, its note and its claims."""
        lines = [f"## {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("|" + "---|" * len(self.columns))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        if self.note:
            lines += ["", self.note]
        if self.claims:
            lines += [
                "",
                *(f"- {'kept' if kept else '**MISSED**'} — {c}" for c, kept in self.claims),
            ]
        return "\n".join([*lines, ""])


def ratios(figures: Sequence[float], against: Sequence[float]) -> list[float]:
    """Round by round: how many times the other's figure this one is."""
    return [figure / other for figure, other in zip(figures, against, strict=True)]


def spread(figures: Sequence[float]) -> str:
    """The median, with the lowest and the highest."""
    return f"{statistics.median(figures):.1f} ({min(figures):.1f}–{max(figures):.1f})"
