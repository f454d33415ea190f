"""`column IN (a list given at execution)`, with the list as one JSON parameter.

An expanding IN would be compiled anew for every length of the list; this is compiled once.
"""

from collections.abc import Callable, Mapping

from sqlalchemy import JSON, Text, bindparam, cast, func, select
from sqlalchemy.sql.expression import Executable, Select

from storage.schema import Json


def members(name: str, dialect: str) -> Select[tuple[str]]:
    """The strings of the list bound as `name`, one a row."""
    if dialect == "sqlite":
        return select(func.json_each(bindparam(name, type_=Json)).table_valued("value").c.value)
    array = cast(cast(bindparam(name, type_=Json), Text), JSON)
    return select(func.json_array_elements_text(array).column_valued("member"))


def per_dialect(build: Callable[[str], Executable]) -> Mapping[str, Executable]:
    """The construct that `build` makes for each dialect name."""
    return {dialect: build(dialect) for dialect in ("sqlite", "postgresql")}
