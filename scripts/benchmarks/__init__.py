"""Measurements side by side: `scripts/bench` runs them and writes reports/bench.md."""
