"""The full text of knowledge: FTS5 on SQLite, tsvector on PostgreSQL; written by hand."""

from alembic import op

revision = "0002"
down_revision = "0001"

SQLITE = (
    "CREATE VIRTUAL TABLE knowledge_words"
    " USING fts5(base, words, tokenize = 'porter unicode61 remove_diacritics 2')",
    "CREATE TRIGGER knowledge_chunks_forget AFTER DELETE ON knowledge_chunks BEGIN"
    " DELETE FROM knowledge_words WHERE rowid = old.number; END",
)
POSTGRESQL = (
    "CREATE TABLE knowledge_words (number bigint PRIMARY KEY"
    " REFERENCES knowledge_chunks (number) ON DELETE CASCADE,"
    " base varchar(64) NOT NULL, words tsvector NOT NULL)",
    "CREATE INDEX ix_knowledge_words ON knowledge_words USING gin (words)",
)


def upgrade() -> None:
    sqlite = op.get_context().dialect.name == "sqlite"
    for statement in SQLITE if sqlite else POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute("DROP TRIGGER knowledge_chunks_forget")
    op.execute("DROP TABLE knowledge_words")
