"""Putting the parts together: settings in, a running application out."""

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.types import ASGIApp

from domain.accounts import Accounts, accounts
from domain.agents import Agents
from domain.caller import Caller
from domain.drafting import Drafting
from domain.files import Files
from domain.identity.destinations import Destinations
from domain.identity.policy import IdentityPolicy
from domain.jaeger import JaegerGate
from domain.knowledge.assembly import assemble as assemble_knowledge
from domain.mcp import McpServers
from domain.model_choice import ModelChoices
from domain.oauth2.clients import read_clients
from domain.oauth2.server import OAuth2Policy
from domain.probing import Probing
from domain.providers import EMBEDDED as EMBEDDED_MODELS
from domain.providers import Providers
from domain.quartet import Quartet
from domain.runs.assembly import Assembled, assemble
from domain.runs.life import RunPolicy
from domain.runs.liveness import EMBEDDED as ALONE
from domain.skills import Skills
from domain.toolbox import Toolbox
from domain.tools import built_in
from domain.turn import knowledge_tool, skill_tool, workflow_tools
from domain.turn.images import loader
from domain.turn.plan import LoopLimits
from domain.turn.prompt import ASK
from domain.versions import Versions
from domain.workspaces import Workspaces
from gateways.documents.parser import Parser
from gateways.embedding.embedder import Embedder
from gateways.github import Releases
from gateways.mail import Mail, SmtpServer
from gateways.mcp import McpClient
from gateways.models.script import ScriptModel
from gateways.models.smollm2 import SmolLM2
from gateways.outbound import Outbound
from gateways.search import WebSearch
from gateways.secretbox import SecretBox, load_keys
from gateways.webpage import WebPages
from gateways.workflows import JobsPlace, Workflows
from server import app, metrics, portal
from server.app import GENERATED, Application
from server.lane.access import Door
from server.lane.contract import Contract
from server.lane.forms import Limits
from server.lane.idempotency import Idempotency
from server.lane.operation import Around
from server.lane.origin import Proxies
from server.lane.rates import Rates
from server.lane.replies import Drain
from server.login_pages import LoginPages
from server.settings import Settings
from server.signing import signing_key
from storage.agents import AgentStore
from storage.database import Database, StorageError
from storage.events import EventLog
from storage.files import FileStore
from storage.idempotency import IdempotencyStore
from storage.knowledge import KnowledgeStore
from storage.lock import DirectoryLock
from storage.mcp import McpStore
from storage.migrating import migrate
from storage.objects import open_objects
from storage.opening import open_database
from storage.providers import ProviderStore
from storage.skill_files import SkillFiles
from storage.skills import SkillStore
from storage.vectors import Vectors
from storage.versions import VersionStore
from storage.wakeups import OneProcess, Polling, RedisWakeups, Wakeups
from storage.workspace_files import WorkspaceFiles

if TYPE_CHECKING:
    from server.tracing import Tracing


logger = logging.getLogger("quartet.server")

DAY_S = 24 * 3600.0
RESERVED = workflow_tools.NAMES | {ASK, knowledge_tool.NAME, skill_tool.NAME}
"""Names of tools that runs have beside the built-in ones."""
UNNAMED = "urn:quartet"
"""Who issues tokens where PUBLIC_URL says nothing: the same in every process over one database."""
OPEN_CHAT_ACCOUNT = "open-chat"
"""An agent that strangers may use is granted to this account."""


class Started(msgspec.Struct):
    """A composed server. `admin_password` is set the one time it was generated."""

    application: Application
    quartet: Quartet
    drain: Drain
    stopping: Callable[[], None]
    close: Callable[[], Awaitable[None]]
    admin_password: str | None


def policy_of(settings: Settings) -> IdentityPolicy:
    """The settings that accounts are governed by."""
    return IdentityPolicy(
        **{
            name: getattr(settings, name)
            for name in IdentityPolicy.__struct_fields__
            if name in Settings.model_fields
        },
        mode=settings.auth_mode,
    )


def mail_of(settings: Settings) -> Mail:
    """SMTP when it is configured, else the data directory's outbox."""
    server = None
    if settings.smtp_host:
        password = settings.smtp_password
        server = SmtpServer(
            host=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else "",
            starttls=settings.smtp_starttls,
        )
    return Mail(settings.mail_from, settings.data / "outbox", server)


def wakeups_of(settings: Settings) -> Wakeups:
    """Redis between processes; polling without it; none where one process is alone."""
    if settings.embedded:
        return OneProcess()
    if not settings.redis_url:
        return Polling()
    return RedisWakeups(settings.redis_url)


def tracing_of(settings: Settings) -> "Tracing | None":
    """Traces, where a collector is named; OpenTelemetry is not imported otherwise."""
    if not settings.otlp_endpoint:
        return None
    from server.tracing import Tracing

    return Tracing(settings.otlp_endpoint)


def own_origins(settings: Settings) -> frozenset[str]:
    """The origins of the server's own pages: PUBLIC_URL, or every name that this machine's
    browsers have for the listening address."""
    if settings.public_url:
        return frozenset({settings.base_url})
    hosts = {settings.host}
    if settings.host in ("127.0.0.1", "0.0.0.0", "::1", "::", "localhost"):  # noqa: S104
        hosts |= {"127.0.0.1", "localhost", "[::1]"}
    return frozenset(
        f"http://{host}:{port}"
        for host in hosts
        for port in (settings.port, settings.assistant_port)
    )


def session_cookie(settings: Settings) -> tuple[str, Callable[[str], tuple[bytes, bytes]]]:
    """The cookie's name, and its `Set-Cookie` header for a value; an empty value clears it.

    Over https the name carries `__Host-`: bound to this host and path (RFC 6265bis §4.1.3).
    """
    secure = settings.base_url.startswith("https://")
    name = "__Host-sage_session" if secure else "sage_session"
    attributes = "Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    def header(value: str) -> tuple[bytes, bytes]:
        age = settings.session_ttl_s if value else 0
        return (b"set-cookie", f"{name}={value}; Max-Age={age}; {attributes}".encode())

    return name, header


def configured(value: str) -> bytes:
    """A setting that is JSON, or the path of a file that holds it. Raises OSError."""
    text = value.strip()
    if not text or text[0] in "[{":
        return text.encode()
    return Path(text).read_bytes()


async def start(settings: Settings) -> Started:
    """Open the data, bring it up to date, and put the application together.

    Raises Locked when another process holds the data directory; NewerSchema, WrongKey, WeakKey
    and OSError when the data cannot be used as it is.
    """
    async with contextlib.AsyncExitStack() as stack:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if settings.embedded:
            lock = DirectoryLock(settings.data)
            lock.acquire()
            stack.callback(lock.release)
        started = await _compose(settings, stack)
        closing = stack.pop_all()
        started.close = closing.aclose
        return started


async def keep_house(settings: Settings, log: EventLog, known: Accounts, skills: Skills) -> None:
    """Once a day, forget what has run out; runs until cancelled."""
    while True:
        try:
            await known.identity.purge()
            await known.registration.purge()
            await known.oauth2.purge()
            await skills.purge()
            if settings.event_retention_days:
                await log.sweep(time.time() - settings.event_retention_days * DAY_S)
        except StorageError as error:
            logger.warning("housekeeping failed: %s", error)
        await asyncio.sleep(DAY_S)


async def _compose(settings: Settings, stack: contextlib.AsyncExitStack) -> Started:
    await migrate(settings.database_url, settings.data)
    database = await open_database(
        settings.database_url, settings.data, connections=settings.database_connections
    )
    stack.push_async_callback(database.close)
    box = SecretBox(load_keys(settings.data, settings.secrets_key_file))
    key = await signing_key(database, box)
    wakeups = wakeups_of(settings)
    stack.push_async_callback(wakeups.close)
    log = EventLog(database, wakeups)
    stack.push_async_callback(log.close)
    outbound = Outbound(settings.outbound_allow)
    stack.push_async_callback(outbound.close)

    parts = accounts(
        database,
        log,
        key=key,
        issuer=settings.public_url.rstrip("/") or UNNAMED,
        policy=policy_of(settings),
        send=mail_of(settings).send,
        redis_url=settings.redis_url,
        clients=read_clients(configured(settings.oauth_clients)),
        oauth2=OAuth2Policy(
            issuer=settings.oauth_issuer or f"{settings.entry_url}/oauth2",
            root=settings.root_path.rstrip("/"),
        ),
    )
    password = settings.admin_password
    admin_password = await parts.users.bootstrap_admin(
        settings.admin_username,
        settings.admin_email,
        password.get_secret_value() if password else None,
    )
    await parts.identity.start()
    stack.push_async_callback(parts.identity.close)

    quartet, turning = _quartet(settings, stack, database, log, box, outbound, parts)
    parts.users.on_leaving(quartet.conversations.erase_all)
    parts.users.on_leaving(quartet.files.erase_all)
    parts.users.on_leaving(quartet.knowledge.bases.erase_all)
    parts.users.on_leaving(quartet.skills.erase_all)
    parts.users.on_leaving(quartet.workspaces.erase_user)
    await turning.liveness.launch()
    stack.push_async_callback(turning.liveness.close)
    await quartet.knowledge.ingestion.launch(alone=settings.embedded)
    idempotency = Idempotency(
        IdempotencyStore(
            database,
            seal=lambda answer: box.seal(answer.decode(), "idempotency"),
            unseal=lambda sealed: box.open(sealed, "idempotency").encode(),
        ),
        secret=hashlib.sha256(b"quartet idempotency " + key).digest(),
    )
    database.in_background(idempotency.keep_house)
    database.in_background(partial(keep_house, settings, log, parts, quartet.skills))
    proxies = Proxies(settings.trusted_proxies)
    cookie_name, cookie = session_cookie(settings)
    trusts_header = settings.auth_mode == "trusted_proxy"
    drain = Drain(settings.streams_per_user)
    tracing = tracing_of(settings)
    if tracing is not None:
        stack.push_async_callback(tracing.close)
    door = Door(
        parts.identity,
        cookie_name=cookie_name,
        origins=own_origins(settings) | set(settings.cors_origins) - {"*"},
        proxies=proxies,
        proxy_header=settings.trusted_identity_header if trusts_header else "",
        open_to=await _open_to(settings, parts),
        verify_client=parts.oauth2.verify,
    )
    around = Around(
        quartet=quartet,
        door=door,
        proxies=proxies,
        rates=Rates(
            {
                "login": settings.login_rate,
                "send_code": settings.send_code_rate,
                "chat": settings.chat_rate,
                "open_chat": settings.open_chat_rate,
            },
            settings.redis_url,
        ),
        idempotency=idempotency,
        drain=drain,
        json_limit=settings.json_body_max,
        forms=Limits(settings.file_max, settings.files_max),
        cookie=cookie,
        check_responses=settings.validate_responses,
        trace=tracing.operation if tracing is not None else None,
    )
    application = app.build(
        around,
        port=settings.port,
        assistant_port=settings.assistant_port,
        pages=partial(
            _pages,
            settings=settings,
            quartet=quartet,
            door=door,
            proxies=proxies,
            drain=drain,
            log=log,
            is_stopping=lambda: quartet.runs.is_stopping,
        ),
        cors_origins=frozenset(settings.cors_origins),
        root_path=settings.root_path,
    )
    return Started(
        application=application,
        quartet=quartet,
        drain=drain,
        stopping=quartet.runs.prepare_to_stop,
        close=stack.aclose,
        admin_password=admin_password,
    )


async def _open_to(settings: Settings, known: Accounts) -> dict[str, Caller]:
    """The operations that `SAGE_OPEN_CHAT` opens, and the account that strangers share there."""
    if not settings.sage_open_chat:
        return {}
    shared = await known.identity.verify_proxy(OPEN_CHAT_ACCOUNT)
    stranger = msgspec.structs.replace(shared, via="none")
    return {"chat_create": stranger, "chat_stream": stranger}


def _quartet(
    settings: Settings,
    stack: contextlib.AsyncExitStack,
    database: Database,
    log: EventLog,
    box: SecretBox,
    outbound: Outbound,
    known: Accounts,
) -> tuple[Quartet, Assembled]:
    """The domain over accounts that stand already, and the parts that its runs are made of."""
    provider_store = ProviderStore(database)
    providers = Providers(
        database, provider_store, log, box, outbound, default=settings.default_provider
    )
    smollm2 = SmolLM2()
    stack.push_async_callback(smollm2.close)
    choices = ModelChoices(
        providers,
        provider_store,
        box,
        outbound,
        {"embedded/smollm2": smollm2, "embedded/script": ScriptModel()},
    )
    search_key = settings.web_search_key
    search = WebSearch(
        outbound,
        settings.web_search_url,
        search_key.get_secret_value() if search_key else "",
    )
    tools = built_in(WebPages(outbound), search)
    mcp = McpServers(
        database,
        McpStore(database),
        log,
        box,
        outbound,
        McpClient(outbound),
        reserved=tools.names | RESERVED,
    )
    agents = Agents(
        database, AgentStore(database), provider_store, log, embedded=frozenset(EMBEDDED_MODELS)
    )
    skills = Skills(
        database,
        SkillStore(database),
        SkillFiles(settings.data / "skills"),
        log,
        agents,
        outbound,
    )
    objects = cache(partial(open_objects, settings.object_store_url, settings.data))
    files = Files(
        database,
        FileStore(database),
        log,
        objects,
        base_url=settings.base_url,
        clock=time.time,
    )
    workspaces = Workspaces(
        agents, WorkspaceFiles(settings.data / "workspaces"), base_url=settings.base_url
    )
    agents.on_deleted(workspaces.erase_agent)
    process_id = ALONE if settings.embedded else str(uuid.uuid4())
    place = JobsPlace.beside(settings.data) if settings.embedded else JobsPlace(_jobs_url(settings))
    workflows = Workflows(place, process_id)
    embedder = Embedder()
    stack.push_async_callback(embedder.close)
    knowledge_store = KnowledgeStore(database)
    knowledge = assemble_knowledge(
        database,
        knowledge_store,
        Vectors(settings.data / "vectors" / process_id, knowledge_store),
        objects=objects,
        workflows=workflows,
        parser=Parser(),
        embedder=embedder,
    )
    turning = assemble(
        database,
        log,
        agents=agents,
        choices=choices,
        tools=tools,
        load_image=loader(outbound, files, workspaces),
        retrieval=knowledge.retrieval,
        skills=skills,
        mcp=mcp,
        workflows=workflows,
        policy=RunPolicy(
            loops=LoopLimits(settings.max_loop_count, settings.max_loop_cap),
            per_user=settings.runs_per_user,
            per_provider=settings.runs_per_provider,
            heartbeat_s=settings.heartbeat_s,
        ),
        process_id=process_id,
    )
    quartet = Quartet(
        identity=known.identity,
        registration=known.registration,
        users=known.users,
        system=known.system,
        oauth2=known.oauth2,
        providers=providers,
        probing=Probing(providers, choices),
        agents=agents,
        drafting=Drafting(choices, built_in=sorted(tools.names)),
        conversations=turning.conversations,
        runs=turning.runs,
        usage=turning.usage,
        files=files,
        tools=Toolbox(database, log, tools, mcp),
        mcp=mcp,
        knowledge=knowledge,
        skills=skills,
        workspaces=workspaces,
        jaeger=JaegerGate(
            known.system,
            Destinations(settings.login_next, settings.root_path.rstrip("/")),
            url=settings.jaeger_url,
            root=settings.root_path.rstrip("/"),
        ),
        versions=Versions(
            database,
            VersionStore(database),
            log,
            Releases(outbound, settings.github_api_url, settings.github_repository),
            clock=time.time,
        ),
    )
    return quartet, turning


def _pages(
    contracts: Mapping[str, Contract],
    *,
    settings: Settings,
    quartet: Quartet,
    door: Door,
    proxies: Proxies,
    drain: Drain,
    log: EventLog,
    is_stopping: Callable[[], bool],
) -> dict[str, ASGIApp]:
    token = settings.metrics_token
    root = settings.root_path.rstrip("/")
    login = LoginPages(
        door=door,
        proxies=proxies,
        system=quartet.system,
        oauth2=quartet.oauth2,
        destinations=Destinations(settings.login_next, root),
        root=root,
    )
    made = portal.pages(
        contracts,
        generated=GENERATED,
        base_url=settings.base_url,
        root_path=settings.root_path,
        is_stopping=is_stopping,
        check=quartet.system.check,
        metrics=metrics.metrics_page(
            contracts,
            token=token.get_secret_value() if token else "",
            gauges={
                "quartet_streams": ("Streams under way.", lambda: len(drain)),
                "quartet_followed": (
                    "Streams of the event log that are followed here.",
                    lambda: log.followed,
                ),
            },
            check=quartet.system.check,
        ),
    )
    return {**made, **login.pages()}


def _jobs_url(settings: Settings) -> str:
    """SQLAlchemy's spelling of the PostgreSQL URL, with the driver that is installed."""
    return "postgresql+psycopg://" + settings.database_url.partition("://")[2]
