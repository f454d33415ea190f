"""How the contracts write times."""

from datetime import UTC, datetime


def iso(at: float) -> str:
    """UTC seconds since the epoch as ISO 8601 with microseconds: 2024-03-09T16:00:00.123000Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")[:-6] + "Z"
