"""`scripts/admin`: accounts, keys, integrity, backup and restore, by the same settings as the
server. What changes rows takes the data directory's lock, so the server is stopped first; over
PostgreSQL the server may go on."""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Run one command. Exits 1 with a reason when it cannot be done."""
    from server.administration.commands import application

    application(args=list(arguments), prog_name="scripts/admin")
