"""The comparator of bench (b): three of our operations on FastAPI, SQLAlchemy's ORM and pydantic.

`plain` is what the three projects' documentations put together: an async engine, a session per
request by `Depends`, a current user by `Depends` (OAuth2PasswordBearer, PyJWT, its session's row
from the database), declarative classes, `add`, `commit` and `refresh`, `response_model`. `tuned`
does what its users do who measure: sessions cached in process, Core instead of the ORM, the body
returned without a response model. Both run on uvloop and httptools over the same tables, with the
same durability.

    python -m scripts.benchmarks.fastapi_server plain|tuned PORT DATABASE_URL JWT_KEY
"""

import hashlib
import sys
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Generic, Literal, TypeVar

import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, Field
from sqlalchemy import event, exists, func, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase

from domain.ids import uuid7
from handlers.times import iso
from storage import schema

AUDIENCE = "quartet"
CACHED_S = 30.0
T = TypeVar("T")


class Base(DeclarativeBase):
    metadata = schema.metadata


class User(Base):
    __table__ = schema.users


class LoginSession(Base):
    __table__ = schema.login_sessions


class Agent(Base):
    __table__ = schema.agents


class AgentGrant(Base):
    __table__ = schema.agent_grants


class Conversation(Base):
    __table__ = schema.conversations


Name = Annotated[str, Field(min_length=1, max_length=256)]
Names = Annotated[list[Name], Field(max_length=1000)]
Steps = Annotated[list[Annotated[str, Field(max_length=65536)]], Field(max_length=1000)]
Memory = Literal["session", "user", "none"]


class AgentConfig(BaseModel):
    id: str | None = Field(None, max_length=128)
    user_id: str | None = Field(None, max_length=128)
    name: Name
    systemPrefix: str | None = Field(None, max_length=1048576)
    systemContext: dict[str, Any] | None = None
    availableWorkflows: dict[str, Steps] | None = None
    availableTools: Names | None = None
    availableSubAgentIds: Names | None = None
    availableSkills: Names | None = None
    availableKnowledgeBases: Names | None = None
    memoryType: Memory | None = None
    maxLoopCount: int | None = Field(None, ge=1, le=2147483647)
    deepThinking: bool | None = None
    llm_provider_id: str | None = Field(None, max_length=128)
    enableMultimodal: bool | None = None
    multiAgent: bool | None = None
    agentMode: str | None = Field(None, max_length=64)
    description: str | None = Field(None, max_length=65536)


class AgentOut(BaseModel):
    id: str
    user_id: str
    name: str
    systemPrefix: str | None
    systemContext: dict[str, Any] | None
    availableWorkflows: dict[str, list[str]] | None
    availableTools: list[str] | None
    availableSubAgentIds: list[str] | None
    availableSkills: list[str] | None
    availableKnowledgeBases: list[str] | None
    memoryType: str | None
    maxLoopCount: int | None
    deepThinking: bool
    llm_provider_id: str | None
    enableMultimodal: bool
    multiAgent: bool
    agentMode: str | None
    description: str | None
    created_at: str
    updated_at: str


class AgentCreated(BaseModel):
    agent_id: str


class ConversationOut(BaseModel):
    session_id: str
    conversation_id: str
    user_id: str
    agent_id: str | None
    agent_name: str | None
    title: str
    message_count: int
    user_count: int
    agent_count: int
    created_at: str
    updated_at: str
    trace_id: str


class ConversationPage(BaseModel):
    list: list[ConversationOut]
    total: int
    page: int
    page_size: int
    total_pages: int
    has_next: bool
    has_prev: bool
    user_id: str


class Envelope(BaseModel, Generic[T]):
    code: int = 200
    message: str = "success"
    data: T
    timestamp: float = Field(default_factory=time.time)


# --- what both variants say --------------------------------------------------------------------


def agent_shown(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "user_id": row.owner_id,
        "name": row.name,
        "systemPrefix": row.system_prefix,
        "systemContext": row.system_context,
        "availableWorkflows": row.workflows,
        "availableTools": row.tools,
        "availableSubAgentIds": row.sub_agent_ids,
        "availableSkills": row.skills,
        "availableKnowledgeBases": row.knowledge_bases,
        "memoryType": row.memory_type,
        "maxLoopCount": row.max_loop_count,
        "deepThinking": row.deep_thinking,
        "llm_provider_id": row.provider_id,
        "enableMultimodal": row.multimodal,
        "multiAgent": row.multi_agent,
        "agentMode": row.mode,
        "description": row.description,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }


def conversation_shown(row: Any) -> dict[str, Any]:
    return {
        "session_id": row.session_id,
        "conversation_id": row.id,
        "user_id": row.owner_id,
        "agent_id": row.agent_id,
        "agent_name": row.agent_name,
        "title": row.title,
        "message_count": row.message_count,
        "user_count": row.user_count,
        "agent_count": row.agent_count,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "trace_id": hashlib.md5(row.session_id.encode(), usedforsecurity=False).hexdigest(),
    }


def page_shown(rows: Any, total: int, page: int, size: int, user_id: str) -> dict[str, Any]:
    pages = -(-total // size)
    return {
        "list": [conversation_shown(row) for row in rows],
        "total": total,
        "page": page,
        "page_size": size,
        "total_pages": pages,
        "has_next": page < pages,
        "has_prev": page > 1,
        "user_id": user_id,
    }


def agent_row(body: AgentConfig, owner_id: str) -> dict[str, Any]:
    now = time.time()
    return {
        "id": uuid7(),
        "owner_id": owner_id,
        "name": body.name,
        "description": body.description,
        "system_prefix": body.systemPrefix,
        "system_context": body.systemContext,
        "workflows": body.availableWorkflows,
        "tools": body.availableTools,
        "sub_agent_ids": body.availableSubAgentIds,
        "skills": body.availableSkills,
        "knowledge_bases": body.availableKnowledgeBases,
        "memory_type": body.memoryType,
        "max_loop_count": body.maxLoopCount,
        "deep_thinking": bool(body.deepThinking),
        "provider_id": body.llm_provider_id,
        "multimodal": bool(body.enableMultimodal),
        "multi_agent": bool(body.multiAgent),
        "mode": body.agentMode,
        "created_at": now,
        "updated_at": now,
        "version": 1,
    }


def visible_agent(agent_id: str, user_id: str, of: Any, grants: Any) -> Any:
    """That an agent is the caller's own or granted to the caller."""
    granted = exists().where(grants.agent_id == of.id, grants.user_id == user_id)
    return (of.id == agent_id) & or_(of.owner_id == user_id, granted)


def usable(session: Any, user: Any) -> bool:
    live = session.revoked_at is None and session.expires_at > time.time()
    return bool(live and user.status == "active")


# --- the two applications ----------------------------------------------------------------------

bearer = OAuth2PasswordBearer(tokenUrl="token")
Token = Annotated[str, Depends(bearer)]
PageNumber = Annotated[int, Query(ge=1)]
PageSize = Annotated[int, Query(ge=1, le=100)]


def claims_of(token: str, key: str) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["HS256"], audience=AUDIENCE)
    except jwt.InvalidTokenError:
        raise HTTPException(401, "Could not validate credentials") from None
    return claims


def plain_app(engine: AsyncEngine, key: str) -> FastAPI:
    """As documented."""
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def database() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    Database = Annotated[AsyncSession, Depends(database)]

    async def current_user(token: Token, database: Database) -> User:
        claims = claims_of(token, key)
        found = await database.execute(
            select(LoginSession, User)
            .join(User, User.id == LoginSession.user_id)
            .where(LoginSession.id == claims["sid"])
        )
        row = found.one_or_none()
        if row is None or not usable(*row):
            raise HTTPException(401, "Could not validate credentials")
        user: User = row[1]
        return user

    CurrentUser = Annotated[User, Depends(current_user)]
    app = FastAPI()

    @app.get("/api/agent/{agent_id}", response_model=Envelope[AgentOut])
    async def get_agent(agent_id: str, user: CurrentUser, database: Database) -> Any:
        seen = visible_agent(agent_id, user.id, Agent, AgentGrant)
        agent = (await database.scalars(select(Agent).where(seen))).one_or_none()
        if agent is None:
            raise HTTPException(404)
        return {"data": agent_shown(agent)}

    @app.get("/api/conversations", response_model=Envelope[ConversationPage])
    async def list_conversations(
        user: CurrentUser, database: Database, page: PageNumber = 1, page_size: PageSize = 10
    ) -> Any:
        own = Conversation.owner_id == user.id
        total = await database.scalar(select(func.count()).select_from(Conversation).where(own))
        rows = await database.scalars(
            select(Conversation)
            .where(own)
            .order_by(Conversation.updated_at.desc(), Conversation.id.desc())
            .limit(page_size)
            .offset((page - 1) * page_size)
        )
        return {"data": page_shown(rows, total or 0, page, page_size, user.id)}

    @app.post("/api/agent/create", response_model=Envelope[AgentCreated])
    async def create_agent(body: AgentConfig, user: CurrentUser, database: Database) -> Any:
        agent = Agent(**agent_row(body, user.id))
        database.add(agent)
        try:
            await database.commit()
        except IntegrityError:
            raise HTTPException(409, "The agent exists already.") from None
        await database.refresh(agent)
        return {"data": {"agent_id": agent.id}}

    return app


def tuned_app(engine: AsyncEngine, key: str) -> FastAPI:
    """As its users write it who measure."""
    known: dict[str, tuple[float, str]] = {}
    users, sessions = schema.users.c, schema.login_sessions.c
    agents, grants, rows_of = schema.agents.c, schema.agent_grants.c, schema.conversations.c

    async def current_user(token: Token) -> str:
        until, user_id = known.get(token, (0.0, ""))
        if until > time.monotonic():
            return user_id
        claims = claims_of(token, key)
        async with engine.connect() as connection:
            found = await connection.execute(
                select(sessions.revoked_at, sessions.expires_at, users.id, users.status)
                .join_from(schema.login_sessions, schema.users, users.id == sessions.user_id)
                .where(sessions.id == claims["sid"])
            )
        row = found.one_or_none()
        if row is None or not usable(row, row):
            raise HTTPException(401, "Could not validate credentials")
        known[token] = (time.monotonic() + CACHED_S, row.id)
        caller: str = row.id
        return caller

    CurrentUser = Annotated[str, Depends(current_user)]
    app = FastAPI()

    def answer(data: Any) -> JSONResponse:
        return JSONResponse(
            {"code": 200, "message": "success", "data": data, "timestamp": time.time()}
        )

    @app.get("/api/agent/{agent_id}", response_model=None)
    async def get_agent(agent_id: str, user: CurrentUser) -> Any:
        seen = visible_agent(agent_id, user, agents, grants)
        async with engine.connect() as connection:
            row = (await connection.execute(select(schema.agents).where(seen))).one_or_none()
        if row is None:
            raise HTTPException(404)
        return answer(agent_shown(row))

    @app.get("/api/conversations", response_model=None)
    async def list_conversations(
        user: CurrentUser, page: PageNumber = 1, page_size: PageSize = 10
    ) -> Any:
        own = rows_of.owner_id == user
        total = select(func.count()).select_from(schema.conversations).where(own)
        async with engine.connect() as connection:
            found = await connection.execute(
                select(schema.conversations, total.scalar_subquery().label("total"))
                .where(own)
                .order_by(rows_of.updated_at.desc(), rows_of.id.desc())
                .limit(page_size)
                .offset((page - 1) * page_size)
            )
        rows = found.all()
        return answer(page_shown(rows, rows[0].total if rows else 0, page, page_size, user))

    @app.post("/api/agent/create", response_model=None)
    async def create_agent(body: AgentConfig, user: CurrentUser) -> Any:
        row = agent_row(body, user)
        try:
            async with engine.begin() as connection:
                await connection.execute(insert(schema.agents), row)
        except IntegrityError:
            raise HTTPException(409, "The agent exists already.") from None
        return answer({"agent_id": row["id"]})

    return app


def engine_of(url: str) -> AsyncEngine:
    """An async engine; SQLite with WAL and `synchronous=FULL`, as our server has it.

    As many connections as SQLAlchemy's default allows (5 and an overflow of 10), all of them kept:
    opening the overflow anew for each burst would cost the comparator more.
    """
    engine = create_async_engine(url, pool_size=15, max_overflow=0)
    if url.startswith("sqlite"):

        @event.listens_for(engine.sync_engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")

    return engine


def main(variant: str, port: str, url: str, key: str) -> None:
    """Serve one variant until SIGTERM; `/api/health` says when."""
    app = {"plain": plain_app, "tuned": tuned_app}[variant](engine_of(url), key)

    @app.get("/api/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
