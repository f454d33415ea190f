"""Model providers: endpoints with a sealed key, and the models that run inside the server.

A provider is its owner's; administrators see and change all, and its key is never shown again.
The key goes only to the origin it was given for: moving a provider elsewhere needs a key anew, and
an address that a request brings along never receives a stored key (domain/model_choice.py).
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, Forbidden, NotFound, Unusable
from domain.ids import uuid7
from gateways.errors import OutboundFailed, OutboundRefused
from gateways.outbound import Outbound, parse
from gateways.secretbox import SecretBox, mask
from storage.database import Database, Duplicate, Unit
from storage.events import EventLog
from storage.providers import Provider, ProviderStore

MASK = "****"
LOOKUP_S = 5.0
"""How long saving an address waits for its name to resolve."""

Unset = msgspec.UnsetType
UNSET = msgspec.UNSET


class ProviderFields(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner says of a provider. UNSET leaves a field as it is, or to its default."""

    base_url: str | Unset = UNSET
    api_key: str | Unset = UNSET
    model: str | Unset = UNSET
    name: str | Unset | None = UNSET
    max_tokens: int | Unset | None = UNSET
    temperature: float | Unset | None = UNSET
    top_p: float | Unset | None = UNSET
    presence_penalty: float | Unset | None = UNSET
    max_model_len: int | Unset | None = UNSET
    supports_multimodal: bool | Unset | None = UNSET
    supports_structured_output: bool | Unset | None = UNSET
    is_default: bool | Unset | None = UNSET

    def __repr__(self) -> str:
        return f"ProviderFields({self.model!r} at {self.base_url!r})"


LIMITS = ("max_tokens", "temperature", "top_p", "presence_penalty", "max_model_len")
SUPPORTS = ("supports_multimodal", "supports_structured_output")


def _embedded(provider_id: str, name: str, window: int | None, *, schema: bool) -> Provider:
    return Provider(
        id=provider_id,
        owner_id="",
        name=name,
        base_url="",
        api_key_sealed="",
        api_key_hint="",
        fingerprint="",
        model=provider_id,
        max_tokens=None,
        temperature=None,
        top_p=None,
        presence_penalty=None,
        max_model_len=window,
        supports_multimodal=False,
        supports_structured_output=schema,
        is_default=False,
        created_at=0.0,
        updated_at=0.0,
        version=1,
    )


EMBEDDED: Mapping[str, Provider] = {
    provider.id: provider
    for provider in (
        _embedded("embedded/smollm2", "SmolLM2 135M Instruct (embedded)", 4096, schema=True),
        _embedded("embedded/script", "Script (embedded)", None, schema=False),
    )
}
"""The system's providers, by id. They belong to nobody and cannot be changed."""


def masked(provider: Provider) -> list[str]:
    """The key as it is shown: `****` and its last four characters; none for an embedded model."""
    return [MASK + provider.api_key_hint] if provider.owner_id else []


class Providers:
    """Providers of every account.

    `default` is the id of the system provider that serves where none is named. Where a provider
    is not visible to the caller, methods raise NotFound("provider.not_found").
    """

    def __init__(
        self,
        database: Database,
        providers: ProviderStore,
        log: EventLog,
        box: SecretBox,
        outbound: Outbound,
        *,
        default: str = "embedded/smollm2",
    ) -> None:
        if default not in EMBEDDED:
            raise ValueError(f"DEFAULT_PROVIDER must be one of {', '.join(EMBEDDED)}")
        self._database = database
        self._providers = providers
        self._log = log
        self._box = box
        self._outbound = outbound
        self.default = default

    # --- what an account keeps ------------------------------------------------------------

    async def visible(self, caller: Caller) -> list[Provider]:
        """The caller's own, newest first, or all for an administrator; then the system's, of
        which `default` says so unless the caller has a default provider."""
        if caller.is_admin:
            rows = await self._providers.list_all()
        else:
            rows = await self._providers.list_own(caller.user_id)
        own_default = any(row.is_default and row.owner_id == caller.user_id for row in rows)
        system = [
            msgspec.structs.replace(one, is_default=one.id == self.default and not own_default)
            for one in EMBEDDED.values()
        ]
        return [*rows, *system]

    async def create(self, caller: Caller, fields: ProviderFields) -> str:
        """Keep an endpoint, never as the default one; returns its id, or that of the caller's
        provider with the same address, model and key.

        Raises Unusable: provider.address_invalid, provider.address_refused, provider.key_masked.
        """
        base_url = await self.checked_address(fields.base_url or "")
        model, key = (fields.model or "").strip(), (fields.api_key or "").strip()
        if key.startswith(MASK):
            raise Unusable("provider.key_masked")
        if not model or not key:
            raise Unusable("provider.incomplete")
        provider_id, now = uuid7(), time.time()
        supports: dict[str, Any] = {
            name: bool(_given(getattr(fields, name), None)) for name in SUPPORTS
        }
        made = Provider(
            id=provider_id,
            owner_id=caller.user_id,
            name=(fields.name or "").strip() or f"{model}@{urlsplit(base_url).netloc}"[:256],
            base_url=base_url,
            model=model,
            is_default=False,
            created_at=now,
            updated_at=now,
            version=1,
            **self._sealed(provider_id, base_url, model, key),
            **{name: _given(getattr(fields, name), None) for name in LIMITS},
            **supports,
        )

        def unit() -> Unit[str]:
            like = yield from self._providers.find_like(caller.user_id, made.fingerprint)
            if like is not None:
                return like.id
            yield from self._providers.insert(made)
            told = deed("provider.created", caller, provider_id=made.id, name=made.name)
            yield from self._log.append(f"user:{caller.user_id}", [told])
            return made.id

        try:
            return await self._database.write(unit)
        except Duplicate:  # made at the same time by another request: now it is found
            return await self._database.write(unit)

    async def update(self, caller: Caller, provider_id: str, fields: ProviderFields) -> Provider:
        """Change what `fields` names. The mask as key keeps the stored one.

        Raises Forbidden("provider.system"), Conflict("provider.exists"),
        Unusable: provider.address_invalid, provider.address_refused, provider.key_needed.
        """
        if provider_id in EMBEDDED:
            raise Forbidden("provider.system")
        if fields.base_url is not UNSET:
            base_url = await self.checked_address(fields.base_url)
            fields = msgspec.structs.replace(fields, base_url=base_url)

        def unit() -> Unit[Provider]:
            found = yield from self._providers.lock(provider_id)
            if found is None or not _may_see(caller, found):
                raise NotFound("provider.not_found")
            changed = yield from self._providers.update(self._changed(found, fields))
            names = [
                name for name in fields.__struct_fields__ if getattr(fields, name) is not UNSET
            ]
            told = deed("provider.updated", caller, provider_id=found.id, fields=names)
            yield from self._log.append(f"user:{found.owner_id}", [told])
            return changed

        try:
            return await self._database.write(unit)
        except Duplicate:
            raise Conflict("provider.exists") from None

    async def delete(self, caller: Caller, provider_id: str) -> None:
        """Erase a provider and its key. Raises Forbidden("provider.default")."""
        if provider_id in EMBEDDED:
            raise Forbidden("provider.default")

        def unit() -> Unit[None]:
            found = yield from self._providers.lock(provider_id)
            if found is None or not _may_see(caller, found):
                raise NotFound("provider.not_found")
            if found.is_default:
                raise Forbidden("provider.default")
            yield from self._providers.delete(found.owner_id, found.id)
            told = deed("provider.deleted", caller, provider_id=found.id, name=found.name)
            yield from self._log.append(f"user:{found.owner_id}", [told])

        await self._database.write(unit)

    # --- parts ----------------------------------------------------------------------------

    async def checked_address(self, base_url: str) -> str:
        """A base URL without slashes at its end, if calls may go there; a name that does not
        resolve now is checked when it is used. Raises Unusable: provider.address_invalid,
        provider.address_refused."""
        base_url = base_url.strip().rstrip("/")
        try:
            if parse(base_url).query or "#" in base_url or "?" in base_url:
                raise Unusable("provider.address_invalid")
        except OutboundRefused:
            raise Unusable("provider.address_invalid") from None
        try:
            async with asyncio.timeout(LOOKUP_S):
                await self._outbound.check("model", base_url)
        except OutboundRefused:
            raise Unusable("provider.address_refused") from None
        except (OutboundFailed, TimeoutError):
            pass
        return base_url

    async def stored_key(self, caller: Caller, base_url: str, mask: str) -> str | None:
        """The key that a mask stands for: that of the caller's provider of the same origin."""
        for row in await self._providers.list_own(caller.user_id):
            if mask == MASK + row.api_key_hint and origin(row.base_url) == origin(base_url):
                return self.key_of(row)
        return None

    def key_of(self, provider: Provider) -> str:
        """The key in the clear, for a call that goes out now."""
        return self._box.open(provider.api_key_sealed, _context(provider.id))

    def _changed(self, found: Provider, fields: ProviderFields) -> Provider:
        base_url = _given(fields.base_url, found.base_url)
        model = (_given(fields.model, found.model)).strip() or found.model
        stated = _given(fields.api_key, "").strip()
        if stated == MASK + found.api_key_hint:
            stated = ""
        if stated.startswith(MASK):
            raise Unusable("provider.key_masked")
        if not stated and origin(base_url) != origin(found.base_url):
            raise Unusable("provider.key_needed")
        key = stated or self.key_of(found)
        return msgspec.structs.replace(
            found,
            name=(_given(fields.name, None) or "").strip() or found.name,
            base_url=base_url,
            model=model,
            is_default=bool(_given(fields.is_default, found.is_default)),
            **self._sealed(found.id, base_url, model, key),
            **{name: _given(getattr(fields, name), getattr(found, name)) for name in LIMITS},
            **{
                name: bool(_given(getattr(fields, name), getattr(found, name))) for name in SUPPORTS
            },
        )

    def _sealed(self, provider_id: str, base_url: str, model: str, key: str) -> dict[str, Any]:
        alike = msgspec.json.encode([base_url, model, key])
        return {
            "api_key_sealed": self._box.seal(key, _context(provider_id)),
            "api_key_hint": mask(key).removeprefix(MASK),
            "fingerprint": hashlib.sha256(alike).hexdigest(),
        }


def _may_see(caller: Caller, provider: Provider) -> bool:
    return caller.is_admin or provider.owner_id == caller.user_id


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is UNSET else value


def origin(base_url: str) -> tuple[str, str, int | None]:
    """What a key is given for: scheme, host and port."""
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
    return parts.scheme.lower(), (parts.hostname or "").rstrip("."), port


def _context(provider_id: str) -> str:
    return f"provider:{provider_id}"
