"""What the tables say of their figures."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks import __main__ as command
from scripts.benchmarks.tables import Table, ratios, spread


def test_a_claim_is_kept_at_its_bound_and_missed_beyond_it() -> None:
    table = Table("t", ["a"], [["1"]])
    table.claim("ratio", 5, at_least=5)
    table.claim("ratio", 4.99, at_least=5)
    table.claim("time", 100, at_most=100)
    table.claim("time", 100.1, at_most=100)
    assert [kept for _, kept in table.claims] == [True, False, True, False]
    text = table.markdown()
    assert text.count("- kept — ") == text.count("- **MISSED** — ") == 2
    assert text.startswith("## t\n\n| a |\n|---|\n| 1 |\n")


def test_a_figure_that_could_not_be_taken_keeps_no_claim() -> None:
    table = Table("t", ["a"])
    table.claim("ratio", float("nan"), at_least=5)
    table.claim("time", float("nan"), at_most=5)
    assert not any(kept for _, kept in table.claims)


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([10, 40, 30], [1, 2, 5]) == [10, 20, 6]
    assert spread([10, 20, 6]) == "10.0 (6.0–20.0)"
    with pytest.raises(ValueError):
        ratios([1], [1, 2])


@pytest.mark.parametrize(("strict", "status"), [(["--strict"], 1), ([], 0)])
def test_a_missed_claim_fails_the_command_only_when_strict(
    strict: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.benchmarks import footprint

    def missed() -> list[Table]:
        table = Table("start", ["figure"])
        table.claim("start, seconds", 4, at_most=3)
        return [table]

    monkeypatch.setattr(footprint, "run", missed)
    output = tmp_path / "reports" / "bench.md"
    monkeypatch.setattr(sys, "argv", ["bench", "footprint", "--output", str(output), *strict])
    ended = 0
    try:
        command.main()
    except SystemExit as end:
        ended = int(str(end.code))
    assert ended == status
    assert "**MISSED** — start, seconds: 4 (wanted ≤ 3)" in output.read_text()


def test_an_unknown_bench_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks", "speed"],
        cwd=command.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown: speed" in done.stderr
