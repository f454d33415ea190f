"""The names of unique constraints, looked up by their columns."""

from functools import cache

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint

from storage.schema import metadata


@cache
def _names() -> dict[tuple[str, frozenset[str]], str]:
    names = {}
    for table in metadata.tables.values():
        for constraint in table.constraints:
            if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint):
                columns = frozenset(column.name for column in constraint.columns)
                names[table.name, columns] = str(constraint.name)
        for index in table.indexes:
            if index.unique:
                names[table.name, frozenset(c.name for c in index.columns)] = str(index.name)
    return names


def unique_name(table: str, columns: frozenset[str]) -> str:
    """`agents`, {owner_id, name} → `uq_agents_owner_name`, as storage/schema.py states it."""
    return _names().get((table, columns), f"{table}({', '.join(sorted(columns))})")
