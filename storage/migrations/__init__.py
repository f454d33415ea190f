"""The history of the tables, one set of revisions for both databases (alembic)."""
