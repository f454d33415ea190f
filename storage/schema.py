"""Every table, once. Times are UTC seconds since the epoch as doubles; ids are UUIDv7 text.

Constraint names are stated so that both databases report them alike (storage.database.Duplicate).
"""

from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class Json(TypeDecorator[Any]):
    """A JSON value kept as text: the same bytes on both databases, encoded by msgspec."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        return None if value is None else msgspec.json.decode(value)


def _id(name: str = "id", **options: Any) -> Column[str]:
    return Column(name, String(64), **options)


def _owner(name: str = "owner_id", **options: Any) -> Column[str]:
    return Column(
        name,
        String(64),
        ForeignKey("users.id", ondelete="CASCADE"),
        **{"nullable": False, **options},
    )


def _at(name: str, **options: Any) -> Column[float]:
    return Column(name, Double, **{"nullable": False, **options})


# --- identity -----------------------------------------------------------------------------------

users = Table(
    "users",
    metadata,
    _id(primary_key=True),
    Column("username", String(128), nullable=False),
    Column("username_key", String(128), nullable=False),
    Column("email", String(320)),
    Column("email_key", String(320)),
    Column("phonenum", String(32)),
    Column("nickname", String(128)),
    Column("avatar", Text),
    Column("password_hash", Text),
    Column("role", String(16), nullable=False),
    Column("status", String(16), nullable=False, server_default="active"),
    Column("config", Json, nullable=False, server_default="{}"),
    _at("created_at"),
    _at("updated_at"),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("email_verified", Boolean, nullable=False, server_default="0"),
    UniqueConstraint("username_key", name="uq_users_username"),
    UniqueConstraint("email_key", name="uq_users_email"),
    Index("ix_users_created_at", "created_at"),
)

login_sessions = Table(
    "login_sessions",
    metadata,
    _id(primary_key=True),
    _owner("user_id"),
    Column("cookie_hash", String(64)),
    Column("refresh_hash", String(64)),
    Column("refresh_used", Json),
    Column("via", String(16), nullable=False),
    Column("address", String(64)),
    Column("user_agent", String(256)),
    _at("created_at"),
    _at("expires_at"),
    _at("revoked_at", nullable=True),
    UniqueConstraint("cookie_hash", name="uq_login_sessions_cookie"),
    Index("ix_login_sessions_user_id", "user_id"),
)

email_codes = Table(
    "email_codes",
    metadata,
    _id(primary_key=True),
    Column("email_key", String(320), nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _at("created_at"),
    _at("expires_at"),
    _at("used_at", nullable=True),
    Index("ix_email_codes_email_key", "email_key", "created_at"),
)

oauth_grants = Table(
    "oauth_grants",
    metadata,
    _id(primary_key=True),
    _owner("user_id"),
    Column("session_id", String(64), ForeignKey("login_sessions.id", ondelete="CASCADE")),
    Column("client_id", String(128), nullable=False),
    Column("scope", String(256), nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("redirect_named", Boolean, nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("code_challenge", String(128)),
    _at("code_expires_at"),
    _at("code_used_at", nullable=True),
    _at("created_at"),
    _at("expires_at"),
    _at("revoked_at", nullable=True),
    UniqueConstraint("code_hash", name="uq_oauth_grants_code"),
    Index("ix_oauth_grants_user_id", "user_id"),
    Index("ix_oauth_grants_session_id", "session_id"),
)

oauth_refresh_tokens = Table(
    "oauth_refresh_tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column(
        "grant_id", String(64), ForeignKey("oauth_grants.id", ondelete="CASCADE"), nullable=False
    ),
    _at("expires_at"),
    _at("used_at", nullable=True),
    Index("ix_oauth_refresh_tokens_grant_id", "grant_id"),
)

oauth_consents = Table(
    "oauth_consents",
    metadata,
    _owner("user_id"),
    Column("client_id", String(128), nullable=False),
    Column("scope", String(256), nullable=False),
    _at("created_at"),
    PrimaryKeyConstraint("user_id", "client_id", "scope"),
)

upstream_accounts = Table(
    "upstream_accounts",
    metadata,
    Column("provider", String(64), nullable=False),
    Column("subject", String(256), nullable=False),
    _owner("user_id"),
    _at("created_at"),
    PrimaryKeyConstraint("provider", "subject"),
    Index("ix_upstream_accounts_user_id", "user_id"),
)

upstream_logins = Table(
    "upstream_logins",
    metadata,
    Column("state_hash", String(64), primary_key=True),
    Column("browser_hash", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("next", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    _at("expires_at"),
    Index("ix_upstream_logins_expires_at", "expires_at"),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Json, nullable=False),
    _at("updated_at"),
)

versions = Table(
    "versions",
    metadata,
    _id(primary_key=True),
    Column("version", String(64), nullable=False),
    Column("release_notes", Text, nullable=False),
    Column("artifacts", Json, nullable=False),
    _at("published_at"),
    UniqueConstraint("version", name="uq_versions_version"),
    Index("ix_versions_published_at", "published_at", "id"),
)

# --- models and agents --------------------------------------------------------------------------

providers = Table(
    "providers",
    metadata,
    _id(primary_key=True),
    _owner(),
    Column("name", String(256), nullable=False),
    Column("base_url", Text, nullable=False),
    Column("api_key_sealed", Text, nullable=False),
    Column("api_key_hint", String(16), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("max_tokens", Integer),
    Column("temperature", Double),
    Column("top_p", Double),
    Column("presence_penalty", Double),
    Column("max_model_len", Integer),
    Column("supports_multimodal", Boolean, nullable=False),
    Column("supports_structured_output", Boolean, nullable=False),
    Column("is_default", Boolean, nullable=False),
    _at("created_at"),
    _at("updated_at"),
    Column("version", Integer, nullable=False, server_default="1"),
    UniqueConstraint("owner_id", "fingerprint", name="uq_providers_owner_fingerprint"),
)

agents = Table(
    "agents",
    metadata,
    _id(primary_key=True),
    _owner(),
    Column("name", String(256), nullable=False),
    Column("description", Text),
    Column("system_prefix", Text),
    Column("system_context", Json),
    Column("workflows", Json),
    Column("tools", Json),
    Column("sub_agent_ids", Json),
    Column("skills", Json),
    Column("knowledge_bases", Json),
    Column("memory_type", String(32)),
    Column("max_loop_count", Integer),
    Column("deep_thinking", Boolean, nullable=False),
    Column("provider_id", String(128)),
    Column("multimodal", Boolean, nullable=False),
    Column("multi_agent", Boolean, nullable=False),
    Column("mode", String(64)),
    _at("created_at"),
    _at("updated_at"),
    Column("version", Integer, nullable=False, server_default="1"),
    UniqueConstraint("owner_id", "name", name="uq_agents_owner_name"),
)

agent_grants = Table(
    "agent_grants",
    metadata,
    Column("agent_id", String(64), ForeignKey("agents.id", ondelete="CASCADE"), nullable=False),
    _owner("user_id"),
    _at("created_at"),
    PrimaryKeyConstraint("agent_id", "user_id"),
    Index("ix_agent_grants_user_id", "user_id"),
)

mcp_servers = Table(
    "mcp_servers",
    metadata,
    _id(primary_key=True),
    _owner(nullable=True),
    Column("name", String(128), nullable=False),
    Column("protocol", String(32), nullable=False),
    Column("url", Text, nullable=False),
    Column("api_key_sealed", Text, nullable=False),
    Column("api_key_hint", String(16), nullable=False),
    Column("disabled", Boolean, nullable=False),
    _at("created_at"),
    _at("refreshed_at"),
    Column("enabled", Boolean, nullable=False),
    Column("description", Text, nullable=False),
    Column("config_sealed", Text, nullable=False),
    Column("error", Text, nullable=False),
    UniqueConstraint("owner_id", "name", name="uq_mcp_servers_owner_name"),
    Index("ix_mcp_servers_name", "name"),
)
Index(
    "uq_mcp_servers_platform_name",
    mcp_servers.c.name,
    unique=True,
    sqlite_where=mcp_servers.c.owner_id.is_(None),
    postgresql_where=mcp_servers.c.owner_id.is_(None),
)

mcp_tools = Table(
    "mcp_tools",
    metadata,
    Column(
        "server_id",
        String(64),
        ForeignKey("mcp_servers.id", ondelete="CASCADE"),
        nullable=False,
    ),
    _owner(nullable=True),
    Column("position", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Column("remote_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("parameters", Json, nullable=False),
    PrimaryKeyConstraint("server_id", "position"),
    UniqueConstraint("owner_id", "name", name="uq_mcp_tools_owner_name"),
)
Index(
    "uq_mcp_tools_platform_name",
    mcp_tools.c.name,
    unique=True,
    sqlite_where=mcp_tools.c.owner_id.is_(None),
    postgresql_where=mcp_tools.c.owner_id.is_(None),
)

a2a_servers = Table(
    "a2a_servers",
    metadata,
    _id(primary_key=True),
    Column("base_url", String(2048), nullable=False),
    Column("tool_name", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("input_modes", Json, nullable=False),
    Column("output_modes", Json, nullable=False),
    Column("streaming", Boolean, nullable=False),
    Column("push_notifications", Boolean, nullable=False),
    Column("card", Json),
    Column("enabled", Boolean, nullable=False),
    Column("error", Text, nullable=False),
    _at("created_at"),
    _at("refreshed_at"),
    UniqueConstraint("base_url", name="uq_a2a_servers_base_url"),
    UniqueConstraint("tool_name", name="uq_a2a_servers_tool_name"),
)

tool_preferences = Table(
    "tool_preferences",
    metadata,
    _owner(),
    Column("kind", String(16), nullable=False),
    Column("tool_id", String(64), nullable=False),
    Column("enabled", Boolean, nullable=False),
    PrimaryKeyConstraint("owner_id", "kind", "tool_id"),
    Index("ix_tool_preferences_kind_tool_id", "kind", "tool_id"),
)

# --- skills -------------------------------------------------------------------------------------

skills = Table(
    "skills",
    metadata,
    _id(primary_key=True),
    _owner(nullable=True),
    Column("agent_id", String(64), ForeignKey("agents.id", ondelete="CASCADE")),
    Column("place", String(80), nullable=False),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("files", Json, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("bundle", String(64), nullable=False),
    _at("created_at"),
    _at("updated_at"),
    Column("version", String(64), nullable=False),
    Column("source_type", String(16), nullable=False),
    Column("source_ref", Text, nullable=False),
    Column("runtime_type", String(16), nullable=False),
    Column("entry", Json, nullable=False),
    Column("refs", Json, nullable=False),
    Column("enabled", Boolean, nullable=False),
    _at("last_sync_at", nullable=True),
    UniqueConstraint("place", "name", name="uq_skills_place_name"),
    Index("ix_skills_owner_id", "owner_id"),
    Index("ix_skills_agent_id", "agent_id"),
)

# --- conversations and runs ---------------------------------------------------------------------

conversations = Table(
    "conversations",
    metadata,
    _id(primary_key=True),
    _owner(),
    Column("session_id", String(128), nullable=False),
    Column("agent_id", String(64)),
    Column("agent_name", String(256)),
    Column("title", Text, nullable=False),
    Column("message_count", Integer, nullable=False, server_default="0"),
    Column("user_count", Integer, nullable=False, server_default="0"),
    Column("agent_count", Integer, nullable=False, server_default="0"),
    Column("latest_run_id", String(64)),
    Column("latest_message", Text, nullable=False, server_default=""),
    _at("latest_message_at", nullable=True),
    Column("unread", Integer, nullable=False, server_default="0"),
    _at("attended_until", server_default="0"),
    _at("created_at"),
    _at("updated_at"),
    Column("version", Integer, nullable=False, server_default="1"),
    UniqueConstraint("session_id", "owner_id", name="uq_conversations_owner_session"),
    Index("ix_conversations_owner_updated", "owner_id", "updated_at", "id"),
)

messages = Table(
    "messages",
    metadata,
    _id(primary_key=True),
    Column(
        "conversation_id",
        String(64),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("position", Integer, nullable=False),
    Column("message_id", String(128), nullable=False),
    Column("run_id", String(64)),
    Column("task_id", String(64)),
    Column("role", String(16), nullable=False),
    Column("type", String(32), nullable=False),
    Column("text", Text),
    Column("content", Json),
    Column("tool_calls", Json),
    Column("tool_call_id", String(128)),
    Column("agent_name", String(256)),
    Column("details", Json),
    _at("created_at"),
    UniqueConstraint("conversation_id", "position", name="uq_messages_position"),
    UniqueConstraint("conversation_id", "message_id", name="uq_messages_message_id"),
)

session_skills = Table(
    "session_skills",
    metadata,
    Column(
        "conversation_id",
        String(64),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("skill_id", String(64), nullable=False),
    Column("edition", Json, nullable=False),
    _at("synced_at"),
    PrimaryKeyConstraint("conversation_id", "skill_id"),
)

shares = Table(
    "shares",
    metadata,
    _id(primary_key=True),
    Column(
        "conversation_id",
        String(64),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    _owner(),
    _at("created_at"),
    Index("ix_shares_conversation_id", "conversation_id"),
)

runs = Table(
    "runs",
    metadata,
    _id(primary_key=True),
    Column(
        "conversation_id",
        String(64),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    _owner(),
    Column("agent_id", String(64)),
    Column("state", String(16), nullable=False),
    Column("reason", String(64)),
    Column("request", Json, nullable=False),
    Column("query", Text, nullable=False),
    Column("stops_with_client", Boolean, nullable=False),
    Column("process_id", String(64)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("answers", Integer, nullable=False, server_default="0"),
    Column("lines", Integer, nullable=False, server_default="0"),
    Column("tasks", Json),
    _at("created_at"),
    _at("started_at", nullable=True),
    _at("ended_at", nullable=True),
    Index("ix_runs_conversation_id", "conversation_id", "created_at"),
    Index("ix_runs_owner_state", "owner_id", "state"),
    Index("ix_runs_state", "state"),
)

calls = Table(
    "calls",
    metadata,
    Column("run_id", String(64), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    _owner(),
    Column("agent_id", String(64)),
    Column("kind", String(16), nullable=False),
    Column("name", String(256), nullable=False),
    Column("outcome", String(16)),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    _at("begun_at"),
    _at("ended_at", nullable=True),
    PrimaryKeyConstraint("run_id", "step", "attempt"),
    Index("ix_calls_owner_kind", "owner_id", "kind", "begun_at"),
)

# --- knowledge ----------------------------------------------------------------------------------

knowledge_bases = Table(
    "knowledge_bases",
    metadata,
    _id(primary_key=True),
    _owner(),
    Column("name", String(256), nullable=False),
    Column("type", String(16), nullable=False),
    Column("intro", Text, nullable=False),
    Column("setting", Json, nullable=False),
    Column("edition", BigInteger, nullable=False, server_default="0"),
    Column("erased", BigInteger, nullable=False, server_default="0"),
    Column("embedder", String(320), nullable=False, server_default=""),
    Column("rebuild", Integer, nullable=False, server_default="0"),
    Column("name_key", Text, nullable=False),
    _at("created_at"),
    _at("updated_at"),
    Index("ix_knowledge_bases_owner_id", "owner_id", "created_at", "id"),
)

knowledge_documents = Table(
    "knowledge_documents",
    metadata,
    _id(primary_key=True),
    Column(
        "base_id",
        String(64),
        ForeignKey("knowledge_bases.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("task_id", String(64), nullable=False),
    Column("name", String(512), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("attempt", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("name_key", Text, nullable=False),
    _at("created_at"),
    _at("updated_at"),
    Index("ix_knowledge_documents_base_id", "base_id", "created_at", "id"),
    Index("ix_knowledge_documents_state", "state"),
)

knowledge_chunks = Table(
    "knowledge_chunks",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column(
        "document_id",
        String(64),
        ForeignKey("knowledge_documents.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("base_id", String(64), nullable=False),
    Column("position", Integer, nullable=False),
    Column("content", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("embedder", String(320), nullable=False),
    UniqueConstraint("document_id", "position", name="uq_knowledge_chunks_position"),
    Index("ix_knowledge_chunks_base_id", "base_id", "number"),
    sqlite_autoincrement=True,
)

# --- the event log ------------------------------------------------------------------------------

streams = Table(
    "streams",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("head", BigInteger, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("stream", String(128), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("type", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    Column("line", Integer),
    _at("at"),
    PrimaryKeyConstraint("stream", "seq"),
)

# --- files --------------------------------------------------------------------------------------

files = Table(
    "files",
    metadata,
    _id(primary_key=True),
    _owner(),
    Column("link", String(64)),
    Column("folder", String(1200), nullable=False),
    Column("name", String(256), nullable=False),
    Column("media_type", String(128), nullable=False),
    Column("size", BigInteger, nullable=False),
    _at("created_at"),
    Column("session_id", String(64), ForeignKey("conversations.id", ondelete="CASCADE")),
    UniqueConstraint("link", name="uq_files_link"),
    UniqueConstraint("session_id", "folder", "name", name="uq_files_session_path"),
    Index("ix_files_owner_id", "owner_id", "created_at"),
)

# --- requests and processes ---------------------------------------------------------------------

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", String(64), nullable=False),
    Column("operation", String(128), nullable=False),
    Column("path", String(512), nullable=False),
    Column("key", String(255), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("status", Integer),
    Column("headers", Json),
    Column("body", Text),
    Column("run_id", String(64)),
    Column("took_effect", Boolean, nullable=False),
    Column("holder", String(64), nullable=False),
    _at("lease_until"),
    _at("answer_until", nullable=True),
    _at("created_at"),
    _at("expires_at"),
    PrimaryKeyConstraint("user_id", "operation", "path", "key"),
    Index("ix_idempotency_expires_at", "expires_at"),
)

processes = Table(
    "processes",
    metadata,
    _id(primary_key=True),
    Column("host", String(128), nullable=False),
    _at("started_at"),
    _at("beat_at"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    _at("until"),
)
