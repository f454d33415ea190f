"""How alembic runs here: on the connection that storage.migrating or scripts/revision gives it."""

from typing import Any, Literal

from alembic import context

from storage.schema import Json, metadata


def render_item(kind: str, item: Any, autogen: Any) -> str | Literal[False]:
    """Revisions outlive storage/schema.py, so they do not import its types."""
    return "sa.Text()" if kind == "type" and isinstance(item, Json) else False


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """The full text index is a virtual table with shadows of its own, which no schema lists."""
    return not (kind == "table" and name is not None and name.startswith("knowledge_words"))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=render_item,
    include_name=include_name,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
