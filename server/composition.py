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
from domain.brought_mcp import BroughtMcp
from domain.drafting import Drafting
from domain.errors import Forbidden
from domain.files import Files
from domain.identity.upstream import UpstreamPolicy
from domain.identity.upstream_providers import read_providers
from domain.jaeger import JaegerGate
from domain.knowledge.assembly import assemble as assemble_knowledge
from domain.mcp import McpServers
from domain.model_choice import ModelChoices
from domain.oauth2.clients import read_clients
from domain.oauth2.server import OAuth2Policy
from domain.object_checks import ObjectChecks
from domain.platform.assembly import assemble as assemble_platform
from domain.platform.skills import PlatformSkills
from domain.probing import Probing
from domain.providers import EMBEDDED as EMBEDDED_MODELS
from domain.providers import Providers
from domain.quartet import Quartet
from domain.quota import Quota
from domain.runs.assembly import Assembled, assemble
from domain.runs.life import RunPolicy
from domain.runs.liveness import EMBEDDED as ALONE
from domain.session_assembly import NAMES as SESSION_TOOLS
from domain.session_assembly import assemble as assemble_sessions
from domain.session_assembly import workshop
from domain.skills import PURPOSE as SKILL_PURPOSE
from domain.skills import Skills
from domain.status import Check, Status, remembered
from domain.toolbox import Toolbox
from domain.tools import built_in
from domain.turn.file_tools import LISTED as FILE_TOOLS
from domain.turn.images import loader
from domain.turn.plan import LoopLimits
from domain.turn.toolset import NAMES as TURN_TOOLS
from domain.versions import Versions
from domain.workspaces import Workspaces
from gateways.documents.parser import Parser
from gateways.github import Releases, Trees
from gateways.mcp import McpClient
from gateways.mcp_stdio import Stdio
from gateways.models.script import ScriptModel
from gateways.models.smollm2 import SmolLM2
from gateways.outbound import Outbound
from gateways.sandbox.sandboxes import Sandboxes
from gateways.search import WebSearch
from gateways.secretbox import SecretBox, load_keys
from gateways.webpage import WebPages
from gateways.workflows import Workflows
from server import app, metrics, portal
from server.app import GENERATED, Application
from server.configured import (
    configured,
    destinations_of,
    embedder_of,
    jobs_of,
    mail_of,
    own_origins,
    policy_of,
    rates_of,
    sandboxes_of,
    tracing_of,
    wakeups_of,
    wechat_of,
)
from server.lane.access import Door
from server.lane.contract import Contract
from server.lane.cookies import Cookies
from server.lane.forms import Limits
from server.lane.idempotency import Idempotency
from server.lane.leases import Leases
from server.lane.operation import Around
from server.lane.origin import Proxies
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
from storage.objects import open_objects, sweep
from storage.opening import open_database
from storage.providers import ProviderStore
from storage.redis_answers import redis_answers
from storage.skill_files import SkillFiles
from storage.skills import SkillStore
from storage.vectors import Vectors
from storage.versions import VersionStore
from storage.workspace_files import WorkspaceFiles

if TYPE_CHECKING:
    pass


logger = logging.getLogger("quartet.server")

DAY_S = 24 * 3600.0
SANDBOX_CHECKED_S = 60.0
"""How long what a sandbox was started to find out is believed."""
SESSION_COOKIE = "sage_session"
UNNAMED = "urn:quartet"
"""Who issues tokens where PUBLIC_URL says nothing: the same in every process over one database."""
OPEN_CHAT_ACCOUNT = "open-chat"
"""An agent that strangers may use is granted to this account."""
OPEN_CONFIG_ACCOUNT = "open-config"
OPEN_CONFIG = (
    "app_config_update_llm",
    "app_config_update_agent",
    "app_config_create_mcp_servers",
    "app_config_delete_mcp_server",
    "app_config_update_mcp_server_enabled",
    "app_config_create_a2a_server",
    "app_config_delete_a2a_server",
    "app_config_update_a2a_server_enabled",
)
"""What `SANDBOX_OPEN_CONFIG` opens; strangers act as the account before."""


class Started(msgspec.Struct):
    """A composed server. `admin_password` is set the one time it was generated."""

    application: Application
    quartet: Quartet
    drain: Drain
    stopping: Callable[[], None]
    close: Callable[[], Awaitable[None]]
    admin_password: str | None


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
            await known.upstream.purge()
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
        providers=read_providers(configured(settings.upstream_providers)),
        wechat=wechat_of(settings),
        upstream=UpstreamPolicy(base=settings.entry_url, root=settings.root_path.rstrip("/")),
        destinations=destinations_of(settings),
        outbound=outbound,
    )
    password = settings.admin_password
    admin_password = await parts.users.bootstrap_admin(
        settings.admin_username,
        settings.admin_email,
        password.get_secret_value() if password else None,
    )
    await parts.identity.start()
    stack.push_async_callback(parts.identity.close)

    quartet, turning = _quartet(settings, stack, database, log, box, outbound, parts, key)
    parts.users.on_barred(quartet.runs.stop_account)
    parts.users.on_leaving(quartet.conversations.erase_all)
    parts.users.on_leaving(quartet.files.erase_all)
    parts.users.on_leaving(quartet.knowledge.bases.erase_all)
    parts.users.on_leaving(quartet.skills.erase_all)
    parts.users.on_leaving(quartet.workspaces.erase_user)
    await turning.liveness.launch()
    stack.push_async_callback(turning.liveness.close)
    await quartet.knowledge.launch(alone=settings.embedded)
    quartet.platform.launch()
    idempotency = Idempotency(
        IdempotencyStore(
            database,
            seal=lambda answer: box.seal(answer.decode(), "idempotency"),
            unseal=lambda sealed: box.open(sealed, "idempotency").encode(),
        ),
        secret=hashlib.sha256(b"quartet idempotency " + key).digest(),
    )
    database.in_background(idempotency.keep_house)
    if settings.embedded and not settings.object_store_url:
        since = (settings.data / "lock").stat().st_mtime
        database.in_background(partial(asyncio.to_thread, sweep, settings.data, since))
    database.in_background(partial(keep_house, settings, log, parts, quartet.skills))
    proxies = Proxies(settings.trusted_proxies)
    cookies = Cookies(secure=settings.base_url.startswith("https://"))
    trusts_header = settings.auth_mode == "trusted_proxy"
    drain = Drain(settings.streams_per_user)
    tracing = tracing_of(settings)
    if tracing is not None:
        stack.push_async_callback(tracing.close)
    door = Door(
        parts.identity,
        cookie_name=cookies.name(SESSION_COOKIE),
        origins=own_origins(settings) | set(settings.cors_origins) - {"*"},
        proxies=proxies,
        proxy_header=settings.trusted_identity_header if trusts_header else "",
        open_to=await _open_to(settings, parts),
        verify_client=parts.oauth2.verify,
    )
    leases = Leases({"sse": settings.sse_per_user, "ws": settings.ws_per_user}, settings.redis_url)
    stack.push_async_callback(leases.close)
    around = Around(
        quartet=quartet,
        door=door,
        proxies=proxies,
        rates=rates_of(settings),
        leases=leases,
        idempotency=idempotency,
        drain=drain,
        json_limit=settings.json_body_max,
        forms=Limits(settings.file_max, settings.files_max),
        cookie=partial(cookies.header, SESSION_COOKIE, age=settings.session_ttl_s),
        cookies=cookies,
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


def _services(
    settings: Settings, known: Accounts, objects: ObjectChecks, sandboxes: Sandboxes
) -> dict[str, Check]:
    """What the status of the server is made of."""

    async def running() -> str:
        return ""

    async def database() -> str:
        await known.system.check()
        return ""

    async def object_store() -> str:
        await objects.ping()
        return ""

    checks: dict[str, Check] = {
        "server": running,
        "sqlite" if settings.embedded else "postgres": database,
        "minio": object_store,
        "sandbox": remembered(sandboxes.check, time.monotonic, SANDBOX_CHECKED_S),
    }
    if settings.redis_url:
        checks["redis"] = partial(redis_answers, settings.redis_url)
    return checks


async def _open_to(settings: Settings, known: Accounts) -> dict[str, str]:
    """The operations that `SAGE_OPEN_CHAT` and `SANDBOX_OPEN_CONFIG` open, and the accounts that
    strangers share there, which are made so that agents can be granted to them."""
    opened: dict[str, str] = {}
    for is_open, account, operations in (
        (settings.sage_open_chat, OPEN_CHAT_ACCOUNT, ("chat_create", "chat_stream")),
        (settings.sandbox_open_config, OPEN_CONFIG_ACCOUNT, OPEN_CONFIG),
    ):
        if is_open:
            with contextlib.suppress(Forbidden):
                await known.identity.verify_proxy(account)
            opened |= dict.fromkeys(operations, account)
    return opened


def _quartet(
    settings: Settings,
    stack: contextlib.AsyncExitStack,
    database: Database,
    log: EventLog,
    box: SecretBox,
    outbound: Outbound,
    known: Accounts,
    key: bytes,
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
    mcp_client = McpClient(outbound, stdio=Stdio(settings.mcp_stdio_commands))
    reserved = tools.names | TURN_TOOLS | SESSION_TOOLS
    mcp = McpServers(
        database, McpStore(database), log, box, outbound, mcp_client, reserved=reserved
    )
    platform = assemble_platform(
        database,
        log,
        box=box,
        outbound=outbound,
        providers=providers,
        client=mcp_client,
        reserved=reserved,
        rounds_max=settings.max_loop_cap,
    )
    agents = Agents(
        database, AgentStore(database), provider_store, log, embedded=frozenset(EMBEDDED_MODELS)
    )
    skill_files = SkillFiles(Path(settings.skills_root_dir or settings.data / "skills"))
    quota = Quota(settings.storage_per_user)
    skills = Skills(
        database,
        SkillStore(database),
        skill_files,
        log,
        agents,
        outbound,
        quota,
    )
    installed = PlatformSkills(
        database,
        SkillStore(database),
        skill_files,
        skills,
        log,
        Trees(outbound, settings.github_api_url, SKILL_PURPOSE),
        roots=settings.skill_source_roots,
    )
    bucket = cache(partial(open_objects, settings.object_store_url, settings.data))
    objects = partial(bucket, "")
    files = Files(
        database,
        FileStore(database),
        log,
        objects,
        base_url=settings.base_url,
        clock=time.time,
        quota=quota,
        workspaces=WorkspaceFiles(settings.data / "workspaces"),
    )
    root = settings.data / "workspaces"
    workspaces = Workspaces(agents, WorkspaceFiles(root), base_url=settings.base_url)
    sandboxes = sandboxes_of(settings, root, outbound)
    stack.push_async_callback(sandboxes.close_all)
    shop = workshop(
        database,
        root=root,
        files=files,
        sandboxes=sandboxes,
        platform=platform,
        skills=installed,
        skill_files=skill_files,
        web=search,
    )
    agents.on_deleted(workspaces.erase_agent)
    process_id = ALONE if settings.embedded else str(uuid.uuid4())
    workflows = Workflows(jobs_of(settings), process_id)
    embedder = embedder_of(settings, outbound)
    stack.push_async_callback(embedder.close)
    parser = Parser()
    stack.push_async_callback(parser.close)
    knowledge_store = KnowledgeStore(database)
    knowledge = assemble_knowledge(
        database,
        knowledge_store,
        Vectors(
            settings.data / "vectors" / process_id,
            knowledge_store,
            embedder=embedder.name,
            dimensions=embedder.dimensions,
        ),
        objects=objects,
        workflows=workflows,
        parser=parser,
        embedder=embedder,
        quota=quota,
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
        brought_mcp=BroughtMcp(box, outbound, mcp_client, reserved=reserved),
        session_tools=shop.tools,
        workspaces=WorkspaceFiles(root),
        workflows=workflows,
        policy=RunPolicy(
            loops=LoopLimits(settings.max_loop_count, settings.max_loop_cap),
            per_user=settings.runs_per_user,
            per_provider=settings.runs_per_provider,
            heartbeat_s=settings.heartbeat_s,
        ),
        process_id=process_id,
    )
    sessions = assemble_sessions(database, log, turning=turning, workshop=shop)
    listed = tools.with_more(FILE_TOOLS)
    known.identity.on_revoked(lambda revocation: sessions.wake(revocation.user_id))
    object_checks = ObjectChecks(bucket, base_url=settings.entry_url, key=key, clock=time.time)
    quartet = Quartet(
        identity=known.identity,
        registration=known.registration,
        users=known.users,
        system=known.system,
        objects=object_checks,
        status=Status(_services(settings, known, object_checks, sandboxes), time.monotonic),
        oauth2=known.oauth2,
        upstream=known.upstream,
        wechat=known.wechat,
        providers=providers,
        probing=Probing(providers, choices),
        agents=agents,
        drafting=Drafting(choices, built_in=sorted(listed.names)),
        conversations=turning.conversations,
        runs=turning.runs,
        sessions=sessions,
        usage=turning.usage,
        files=files,
        tools=Toolbox(database, log, listed, mcp),
        mcp=mcp,
        platform=platform,
        knowledge=knowledge,
        skills=skills,
        installed=installed,
        workspaces=workspaces,
        jaeger=JaegerGate(
            known.system,
            destinations_of(settings),
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
        destinations=destinations_of(settings),
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
