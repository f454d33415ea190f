"""What the settings mean: each function makes one part of the server out of them."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from domain.identity.destinations import Destinations
from domain.identity.policy import IdentityPolicy
from domain.identity.wechat import WeChatPolicy
from gateways.embedding.embedder import Embedder
from gateways.embedding.minilm import MiniLM
from gateways.embedding.openai_compatible import RemoteEmbedder
from gateways.mail import Mail, SmtpServer
from gateways.outbound import Outbound
from gateways.sandbox.confining import SandboxLimits
from gateways.sandbox.sandboxes import Sandboxes
from gateways.wechat import WeChatApp
from gateways.workflows import JobsPlace
from server.lane.rates import Rates
from server.settings import Settings
from storage.wakeups import OneProcess, Polling, RedisWakeups, Wakeups

if TYPE_CHECKING:
    from server.tracing import Tracing


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


def wechat_of(settings: Settings) -> WeChatPolicy:
    """WeChat's application, where its id and secret and the frontend that gets tokens are named."""
    secret = settings.wechat_app_secret
    if not (settings.wechat_app_id and secret and settings.wechat_frontend_url):
        return WeChatPolicy()
    app = WeChatApp(
        settings.wechat_app_id,
        secret.get_secret_value(),
        settings.wechat_authorize_url,
        settings.wechat_api_url,
    )
    return WeChatPolicy(app, settings.wechat_frontend_url, settings.entry_url)


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


def embedder_of(settings: Settings, outbound: Outbound) -> Embedder:
    """The operator's embedding server where one is named, else the embedded model."""
    if not settings.embedding_url:
        return MiniLM()
    key = settings.embedding_key
    return RemoteEmbedder(
        outbound,
        settings.embedding_url,
        settings.embedding_model,
        settings.embedding_dimensions,
        key.get_secret_value() if key else "",
    )


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


def destinations_of(settings: Settings) -> Destinations:
    """Where logging in may lead to."""
    return Destinations(settings.login_next, settings.root_path.rstrip("/"))


def configured(value: str) -> bytes:
    """A setting that is JSON, or the path of a file that holds it. Raises OSError."""
    text = value.strip()
    if not text or text[0] in "[{":
        return text.encode()
    return Path(text).read_bytes()


def jobs_of(settings: Settings) -> JobsPlace:
    """Where workflows are kept: beside the data, or in PostgreSQL, by SQLAlchemy's spelling of its
    URL with the driver that is installed."""
    if settings.embedded:
        return JobsPlace.beside(settings.data)
    return JobsPlace("postgresql+psycopg://" + settings.database_url.partition("://")[2])


def sandboxes_of(settings: Settings, root: Path, outbound: Outbound) -> Sandboxes:
    """Sandboxes over the workspaces below `root`, as large and as many as the operator says."""
    return Sandboxes(
        root,
        SandboxLimits(
            memory_bytes=settings.sandbox_memory,
            disk_bytes=settings.sandbox_disk,
            processes=settings.sandbox_processes,
            idle_s=settings.sandbox_idle_s,
        ),
        connect=partial(outbound.connect, "sandbox") if settings.sandbox_network else None,
        most=settings.sandboxes,
        most_held=settings.sandboxes_per_user,
    )


def rates_of(settings: Settings) -> Rates:
    """How often each bucket may be asked, across processes where there is Redis."""
    return Rates(
        {
            "login": settings.login_rate,
            "send_code": settings.send_code_rate,
            "chat": settings.chat_rate,
            "read": settings.read_rate,
            "write": settings.write_rate,
            "open_chat": settings.open_chat_rate,
        },
        settings.redis_url,
    )
