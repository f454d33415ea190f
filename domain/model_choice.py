"""Which model a request uses, and the model itself.

Chosen once, when the request comes in, and kept with its run as a Choice; opened wherever the run
is carried out, perhaps in another process and after a restart.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from domain.caller import Caller
from domain.errors import Unusable
from domain.providers import EMBEDDED, LIMITS, MASK, SUPPORTS, Providers
from gateways.models.model import Capabilities, Model
from gateways.models.openai_compatible import Endpoint, OpenAIModel
from gateways.outbound import Outbound
from gateways.secretbox import SecretBox
from storage.providers import Provider, ProviderStore

KEPT_OPEN = 64
"""Endpoints whose clients are kept between calls."""


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request's `llm_model_config`.

    It names a provider (`provider_id`, `llm_provider_id`), or brings an endpoint along
    (`base_url`, `api_key`, `model`), or changes limits and, on the caller's own provider, the
    model of the one that is bound. `model` alone may also name a system provider.
    """

    provider_id: str | None = None
    llm_provider_id: str | None = None
    base_url: str | None = None
    api_key: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    max_model_len: int | None = None
    supports_multimodal: bool | None = None
    supports_structured_output: bool | None = None

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} lies between {least} and {most}")


_RANGES = (
    ("max_tokens", 1, 2**31 - 1),
    ("max_model_len", 1, 2**31 - 1),
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("presence_penalty", -2, 2),
)


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which model a turn uses, as it is kept with the turn: JSON, without a key in the clear.

    `owner_id` is whose provider it is, "" for a system provider; `provider_id` is "" where the
    request brought an endpoint along, whose key is then sealed here until the run has ended.
    """

    owner_id: str = ""
    provider_id: str = ""
    base_url: str = ""
    api_key_sealed: str = ""
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    max_model_len: int | None = None
    supports_multimodal: bool | None = None
    supports_structured_output: bool | None = None


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A model ready to be called, with the limits its calls go under.

    `provider_id` is "" for an endpoint that a request brought along. `max_model_len` is the
    context window in tokens, None where nobody said.
    """

    model: Model
    provider_id: str
    name: str
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    presence_penalty: float | None
    max_model_len: int | None
    supports_multimodal: bool
    supports_structured_output: bool


class ModelChoices:
    """Chooses and opens models. `embedded` are the models inside the server by provider id."""

    def __init__(
        self,
        providers: Providers,
        store: ProviderStore,
        box: SecretBox,
        outbound: Outbound,
        embedded: Mapping[str, Model],
    ) -> None:
        self._providers = providers
        self._store = store
        self._box = box
        self._outbound = outbound
        self._embedded = embedded
        self._open: dict[Endpoint, OpenAIModel] = {}

    async def choose(
        self,
        caller: Caller,
        *,
        bound_by: str = "",
        bound: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Choice:
        """The model that a request names or brings along, else the one that an agent of
        `bound_by`'s binds, else the caller's default, else the system's.

        An agent whose provider is gone goes on with the default. Raises
        Unusable: agent.provider_unknown (the request names one that the caller has not),
        provider.model_not_yours, provider.key_masked, provider.config_invalid,
        provider.address_invalid, provider.address_refused.
        """
        override = read_override(config)
        named = override.provider_id or override.llm_provider_id
        if not named and not override.base_url and override.model in EMBEDDED:
            named, override = override.model, msgspec.structs.replace(override, model=None)
        limits = {name: getattr(override, name) for name in (*LIMITS, *SUPPORTS)}
        if override.base_url:
            return await self._brought_along(caller, override, limits)
        if override.api_key:
            raise Unusable("provider.config_invalid", reason="api_key without base_url")
        if named:
            owner, provider_id = await self._named(caller, named)
        else:
            owner, provider_id = await self._bound(caller, bound_by, bound)
        if override.model and owner != caller.user_id:
            raise Unusable("provider.model_not_yours")
        return Choice(owner_id=owner, provider_id=provider_id, model=override.model or "", **limits)

    async def open(self, choice: Choice) -> Resolved:
        """The model of a choice. A provider that is gone since is replaced by the system's
        default. The address is checked again with every connection."""
        if choice.base_url:
            key = choice.api_key_sealed
            api_key = self._box.open(key, _context(choice.owner_id)) if key else ""
            return self._opened(choice, None, choice.base_url, api_key)
        if choice.owner_id:
            row = await self._store.get_own(choice.owner_id, choice.provider_id)
            if row is not None:
                return self._opened(choice, row, row.base_url, self._providers.key_of(row))
            choice = Choice()
        provider_id = choice.provider_id or self._providers.default
        model = self._embedded[provider_id]
        return _resolved(choice, EMBEDDED[provider_id], model, model.capabilities)

    async def resolve(
        self,
        caller: Caller,
        *,
        bound_by: str = "",
        bound: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Resolved:
        """`choose` and `open` in one."""
        return await self.open(
            await self.choose(caller, bound_by=bound_by, bound=bound, config=config)
        )

    def at(self, endpoint: Endpoint) -> Model:
        """The model at an endpoint; its client is kept for the next call."""
        model = self._open.pop(endpoint, None)
        if model is None:
            model = OpenAIModel(endpoint, self._outbound.client("model"))
            if len(self._open) >= KEPT_OPEN:
                del self._open[next(iter(self._open))]
        self._open[endpoint] = model
        return model

    async def _named(self, caller: Caller, provider_id: str) -> tuple[str, str]:
        if provider_id in EMBEDDED:
            return "", provider_id
        if await self._store.get_own(caller.user_id, provider_id) is None:
            raise Unusable("agent.provider_unknown", provider_id=provider_id[:128])
        return caller.user_id, provider_id

    async def _bound(self, caller: Caller, bound_by: str, bound: str | None) -> tuple[str, str]:
        if bound and bound in EMBEDDED:
            return "", bound
        if bound and await self._store.get_own(bound_by, bound) is not None:
            return bound_by, bound
        if (own := await self._store.get_default(caller.user_id)) is not None:
            return own.owner_id, own.id
        return "", self._providers.default

    async def _brought_along(
        self, caller: Caller, override: Override, limits: dict[str, Any]
    ) -> Choice:
        if not override.model:
            raise Unusable("provider.config_invalid", reason="base_url without model")
        key = (override.api_key or "").strip()
        if key.startswith(MASK):
            raise Unusable("provider.key_masked")
        if "\n" in key or "\r" in key:
            raise Unusable("provider.config_invalid", reason="api_key of several lines")
        return Choice(
            owner_id=caller.user_id,
            base_url=await self._providers.checked_address(override.base_url or ""),
            api_key_sealed=self._box.seal(key, _context(caller.user_id)) if key else "",
            model=override.model,
            **limits,
        )

    def _opened(
        self, choice: Choice, row: Provider | None, base_url: str, api_key: str
    ) -> Resolved:
        images, schema = (
            bool(row and getattr(row, name)) if stated is None else stated
            for name in SUPPORTS
            for stated in (getattr(choice, name),)
        )
        capabilities = Capabilities(tools=True, images=images, json_schema=schema)
        endpoint = Endpoint(
            base_url=base_url,
            api_key=api_key,
            model=choice.model or (row.model if row else ""),
            capabilities=capabilities,
        )
        return _resolved(choice, row, self.at(endpoint), capabilities)


def read_override(config: Mapping[str, Any] | None) -> Override:
    """A request's `llm_model_config`. Raises Unusable("provider.config_invalid")."""
    if not config:
        return Override()
    try:
        return msgspec.convert(config, Override)
    except msgspec.ValidationError as error:
        raise Unusable("provider.config_invalid", reason=str(error)) from None


def _resolved(
    choice: Choice, row: Provider | None, model: Model, capabilities: Capabilities
) -> Resolved:
    limits: dict[str, Any] = {}
    for name in LIMITS:
        stated = getattr(choice, name)
        limits[name] = getattr(row, name) if stated is None and row else stated
    return Resolved(
        model=model,
        provider_id=row.id if row else "",
        name=choice.model or (row.model if row else ""),
        supports_multimodal=capabilities.images,
        supports_structured_output=capabilities.json_schema,
        **limits,
    )


def _context(owner_id: str) -> str:
    return f"request:{owner_id}"
