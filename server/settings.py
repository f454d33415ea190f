"""Every setting, once, read from the environment and `.env`; .env.example lists them."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateways.mcp_stdio import Allowed, read_commands

MIB = 1024 * 1024
Names = Annotated[tuple[str, ...], NoDecode]
Paths = Annotated[tuple[Path, ...], NoDecode]
Commands = Annotated[tuple[Any, ...], NoDecode]


class Settings(BaseSettings):
    """What an operator may set. The environment variable is the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, ignored_types=(cached_property,)
    )

    # --- where ------------------------------------------------------------------------------
    host: str = "127.0.0.1"
    port: int = 8000
    assistant_port: int = 3005
    data: Path = Path("data")
    public_url: str = ""
    root_path: str = ""
    trusted_proxies: Names = ()
    cors_origins: Names = ()

    # --- what it runs on --------------------------------------------------------------------
    database_url: str = ""
    database_connections: int = Field(10, ge=1)
    redis_url: str = ""
    object_store_url: str = ""
    secrets_key_file: Path | None = None

    # --- identity ---------------------------------------------------------------------------
    auth_mode: Literal["native", "trusted_proxy", "oauth"] = "native"
    allow_registration: bool = True
    registration_verify_email: bool = False
    trusted_identity_header: str = "X-Sage-Internal-UserId"
    admin_username: str = "admin"
    admin_email: str = "admin@localhost.localdomain"
    admin_password: SecretStr | None = None
    password_min: int = Field(8, ge=8, le=128)
    password_max: int = Field(128, ge=8, le=1024)
    code_ttl_s: int = 300
    code_retry_s: int = 30
    code_attempts: int = 5
    codes_per_day: int = 20
    session_ttl_s: int = 14 * 24 * 3600
    access_ttl_s: int = 24 * 3600
    refresh_ttl_s: int = 7 * 24 * 3600
    sage_open_chat: bool = False
    sandbox_open_config: bool = False
    sandbox_network: bool = False
    sandbox_memory: int = Field(1024 * MIB, ge=64 * MIB)
    sandbox_disk: int = Field(1024 * MIB, ge=MIB)
    sandbox_processes: int = Field(256, ge=16)
    sandbox_idle_s: float = Field(900.0, gt=0)
    sandboxes: int = Field(50, ge=1)
    sandboxes_per_user: int = Field(10, ge=1)
    login_next: Names = ()
    oauth_issuer: str = ""
    oauth_clients: str = ""
    upstream_providers: str = ""
    wechat_app_id: str = ""
    wechat_app_secret: SecretStr | None = None
    wechat_frontend_url: str = Field(default="", pattern=r"^(https?://[!-~]+)?$")
    wechat_authorize_url: str = "https://open.weixin.qq.com/connect/oauth2/authorize"
    wechat_api_url: str = "https://api.weixin.qq.com"

    # --- mail -------------------------------------------------------------------------------
    smtp_host: str = ""
    smtp_port: int = 587
    smtp_username: str = ""
    smtp_password: SecretStr | None = None
    smtp_starttls: bool = True
    mail_from: str = "quartet@localhost.localdomain"

    # --- limits (rules, "Limits") -----------------------------------------------------------
    json_body_max: int = MIB
    file_max: int = 100 * MIB
    files_max: int = 20
    storage_per_user: int = Field(10 * 1024 * MIB, ge=0)
    headers_max: int = 32 * 1024
    ws_message_max: int = MIB
    login_rate: str = "10/minute"
    send_code_rate: str = "5/minute"
    chat_rate: str = "60/minute"
    read_rate: str = "120/minute"
    write_rate: str = "60/minute"
    open_chat_rate: str = "10/minute"
    lockout_failures: int = 10
    address_failures: int = 100
    lockout_s: int = 300

    # --- runs -------------------------------------------------------------------------------
    max_loop_count: int = 10
    max_loop_cap: int = 50
    streams_per_user: int = Field(200, ge=1)
    sse_per_user: int = Field(10, ge=1)
    ws_per_user: int = Field(5, ge=1)
    runs_per_user: int = 50
    runs_per_provider: int = 200
    event_retention_days: int = 0
    drain_s: float = 10.0
    heartbeat_s: float = 20.0
    default_provider: str = "embedded/smollm2"

    # --- the outside world ------------------------------------------------------------------
    outbound_allow: Names = ()
    mcp_stdio_commands: Commands = ()
    web_search_url: str = ""
    web_search_key: SecretStr | None = None
    embedding_url: str = Field(default="", pattern=r"^(https?://[!-~]+)?$")
    embedding_model: str = Field(default="", max_length=256, validate_default=True)
    embedding_key: SecretStr | None = None
    embedding_dimensions: int = Field(default=0, ge=0, le=16384, validate_default=True)

    jaeger_url: str = Field(default="", pattern=r"^(https?://[!-~]+)?$")
    skills_root_dir: str = ""
    skill_source_roots: Paths = ()
    github_api_url: str = "https://api.github.com"
    github_repository: str = Field(default="", pattern=r"^([A-Za-z0-9-]+/[A-Za-z0-9._-]+)?$")

    # --- operations -------------------------------------------------------------------------
    log_level: str = "info"
    log_format: Literal["console", "json"] = "console"
    access_log: bool = False
    metrics_token: SecretStr | None = None
    otlp_endpoint: str = ""
    validate_responses: bool = False

    @field_validator(
        "trusted_proxies",
        "cors_origins",
        "outbound_allow",
        "login_next",
        "skill_source_roots",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        """Lists are written with commas in the environment."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("skill_source_roots")
    @classmethod
    def _check_roots(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        if not all(root.is_absolute() and ".." not in root.parts for root in roots):
            raise ValueError("a root is an absolute path")
        return roots

    @field_validator("mcp_stdio_commands", mode="before")
    @classmethod
    def _read_commands(cls, value: object) -> tuple[Allowed, ...]:
        if isinstance(value, str):
            return read_commands(value)
        return tuple(value) if isinstance(value, list | tuple) else ()

    @field_validator("embedding_model", "embedding_dimensions")
    @classmethod
    def _of_embedding(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("embedding_url") and not value:
            raise ValueError("EMBEDDING_URL needs it")
        return value

    @cached_property
    def base_url(self) -> str:
        """Where browsers reach this server: PUBLIC_URL, or the listening address."""
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"

    @property
    def entry_url(self) -> str:
        """The base of every address of this server that goes out: `base_url` and ROOT_PATH."""
        return self.base_url + self.root_path.rstrip("/")

    @property
    def embedded(self) -> bool:
        """Whether rows live in a SQLite file of the data directory."""
        return not self.database_url.startswith("postgresql")


def read_settings(**given: Any) -> Settings:
    """The settings of the environment and `.env`, outranked by `given`.

    Raises ValueError with a line for people: which variable, and why; never its value.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        raise ValueError(
            "; ".join(f"{str(one['loc'][0]).upper()}: {one['msg'].lower()}" for one in found)
        ) from None
