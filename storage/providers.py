"""Rows of model providers: an endpoint, a model and a sealed key."""

import time

import msgspec
from sqlalchemy import and_, bindparam, delete, insert, select, update

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.schema import providers


class Provider(msgspec.Struct, frozen=True):
    """A row of `providers`, in table order. Times are UTC seconds since the epoch.

    `api_key_hint` is the last four characters of the key; `fingerprint` tells equal endpoint,
    model and key apart from others without holding the key.
    """

    id: str
    owner_id: str
    name: str
    base_url: str
    api_key_sealed: str
    api_key_hint: str
    fingerprint: str
    model: str
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    presence_penalty: float | None
    max_model_len: int | None
    supports_multimodal: bool
    supports_structured_output: bool
    is_default: bool
    created_at: float
    updated_at: float
    version: int


_OWN = and_(providers.c.id == bindparam("provider_id"), providers.c.owner_id == bindparam("owner"))
_WRITTEN = (
    "name",
    "base_url",
    "api_key_sealed",
    "api_key_hint",
    "fingerprint",
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "presence_penalty",
    "max_model_len",
    "supports_multimodal",
    "supports_structured_output",
    "is_default",
)
_NEWEST_FIRST = (providers.c.created_at.desc(), providers.c.id.desc())

FIND = Statement(select(providers).where(providers.c.id == bindparam("provider_id")), into=Provider)
LOCK = Statement(
    select(providers).where(providers.c.id == bindparam("provider_id")).with_for_update(),
    into=Provider,
)
FIND_OWN = Statement(select(providers).where(_OWN), into=Provider)
FIND_LIKE = Statement(
    select(providers).where(
        providers.c.owner_id == bindparam("owner"),
        providers.c.fingerprint == bindparam("fingerprint"),
    ),
    into=Provider,
)
FIND_DEFAULT = Statement(
    select(providers).where(providers.c.owner_id == bindparam("owner"), providers.c.is_default),
    into=Provider,
)
LIST_ALL = Statement(select(providers).order_by(*_NEWEST_FIRST), into=Provider)
LIST_OWN = Statement(
    select(providers).where(providers.c.owner_id == bindparam("owner")).order_by(*_NEWEST_FIRST),
    into=Provider,
)
INSERT = Statement(insert(providers))
UPDATE = Statement(
    update(providers)
    .where(_OWN)
    .values(
        {name: bindparam(name) for name in _WRITTEN}
        | {"updated_at": bindparam("now"), "version": providers.c.version + 1}
    )
    .returning(providers),
    into=Provider,
)
CLEAR_DEFAULT = Statement(
    update(providers)
    .where(
        providers.c.owner_id == bindparam("owner"),
        providers.c.id != bindparam("provider_id"),
        providers.c.is_default,
    )
    .values(is_default=False, version=providers.c.version + 1)
)
DELETE = Statement(delete(providers).where(_OWN))


class ProviderStore:
    """Providers over a Database. Lists are newest first. Units raise NoSuchRow("provider") where
    the owner has no such provider, and Duplicate("uq_providers_owner_fingerprint")."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, provider_id: str) -> Provider | None:
        """Any account's provider."""
        return await self._database.read_one(FIND(provider_id=provider_id))

    async def get_own(self, owner: str, provider_id: str) -> Provider | None:
        """The owner's provider of that id."""
        return await self._database.read_one(FIND_OWN(owner=owner, provider_id=provider_id))

    async def get_default(self, owner: str) -> Provider | None:
        """The provider the owner made the default one."""
        return await self._database.read_one(FIND_DEFAULT(owner=owner))

    async def list_all(self) -> list[Provider]:
        """Every account's providers."""
        return await self._database.scan(LIST_ALL())

    async def list_own(self, owner: str) -> list[Provider]:
        return await self._database.read(LIST_OWN(owner=owner))

    def is_own(self, owner: str, provider_id: str) -> Unit[bool]:
        """Whether the owner has this provider, asked inside a unit of work."""
        return bool((yield FIND_OWN(owner=owner, provider_id=provider_id)))

    def find_like(self, owner: str, fingerprint: str) -> Unit[Provider | None]:
        """The owner's provider of the same endpoint, model and key."""
        rows = yield FIND_LIKE(owner=owner, fingerprint=fingerprint)
        return rows[0] if rows else None

    def insert(self, provider: Provider) -> Unit[None]:
        yield INSERT(**msgspec.structs.asdict(provider))

    def lock(self, provider_id: str) -> Unit[Provider | None]:
        """Any account's provider, locked until the unit ends."""
        rows = yield LOCK(provider_id=provider_id)
        return rows[0] if rows else None

    def update(self, provider: Provider) -> Unit[Provider]:
        """Write every field but owner and times of a provider that this unit has locked. A
        default provider takes that place from the owner's other one."""
        if provider.is_default:
            yield CLEAR_DEFAULT(owner=provider.owner_id, provider_id=provider.id)
        written = {name: getattr(provider, name) for name in _WRITTEN}
        rows = yield UPDATE(
            owner=provider.owner_id, provider_id=provider.id, now=time.time(), **written
        )
        if not rows:
            raise NoSuchRow("provider")
        changed: Provider = rows[0]
        return changed

    def delete(self, owner: str, provider_id: str) -> Unit[None]:
        if not (yield DELETE(owner=owner, provider_id=provider_id)):
            raise NoSuchRow("provider")
