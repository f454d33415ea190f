"""How alembic runs here: on the connection that storage.migrating or scripts/revision gives it."""

from typing import Any, Literal

from alembic import context

from storage.schema import Json, metadata


def render_item(kind: str, item: Any, autogen: Any) -> str | Literal[False]:
    """Revisions outlive storage/schema.py, so they do not import its types."""
    return "sa.Text()" if kind == "type" and isinstance(item, Json) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=render_item,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
