"""The model that sessions talk to, and how far their agent goes; administrators store both."""

from collections.abc import Callable
from typing import Any

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import PreconditionFailed, Unusable
from domain.providers import EMBEDDED, MASK, Providers, origin
from gateways.secretbox import SecretBox
from storage.database import Database, Unit
from storage.events import EventLog
from storage.stored_settings import StoredSettings

LLM = "sandbox.llm"
AGENT = "sandbox.agent"
CONTEXT = f"deployment:{LLM}"
"""What the key is sealed for."""


class LlmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, or with an empty `base_url` a model inside the server, `model_name` being a
    system provider's id. `max_tokens` 0 leaves the length of answers to the model. `version` is 0
    while nothing is stored."""

    base_url: str
    model_name: str
    temperature: float = 0.7
    max_tokens: int = 8192
    version: int = 0


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many rounds of model and tools a turn has, how often a plan is asked for until one fits,
    and how many results a search gives."""

    max_iterations: int = 100
    max_retries: int = 3
    max_search_results: int = 10
    version: int = 1


class _Stored(LlmSettings, frozen=True, kw_only=True):
    api_key_sealed: str = ""


class PlatformConfig:
    """Settings that hold in every process from the next request on.

    The stored key goes only to the origin it was given for (domain.providers). `rounds_max` is how
    many rounds a turn has at most unless an administrator says otherwise.
    """

    def __init__(
        self,
        database: Database,
        stored: StoredSettings,
        log: EventLog,
        box: SecretBox,
        providers: Providers,
        clock: Callable[[], float],
        *,
        rounds_max: int,
    ) -> None:
        self._database = database
        self._stored = stored
        self._log = log
        self._box = box
        self._providers = providers
        self._clock = clock
        self._rounds_max = rounds_max

    async def llm(self) -> LlmSettings:
        """The model as it is stored, else the server's default one."""
        return self._read(await self._stored.find(LLM, {}))

    async def model(self) -> dict[str, Any]:
        """The model as a request's `llm_model_config` (domain.model_choice), its key in the clear:
        for a call that goes out now, never to be kept or shown."""
        found = self._read(await self._stored.find(LLM, {}))
        if not found.version:
            return {"provider_id": found.model_name}
        limits = {"temperature": found.temperature, "max_tokens": found.max_tokens or None}
        if not found.base_url:
            return {"provider_id": found.model_name, **limits}
        sealed = found.api_key_sealed
        key = {"api_key": self._box.open(sealed, CONTEXT)} if sealed else {}
        return {"base_url": found.base_url, "model": found.model_name, **key, **limits}

    async def set_llm(
        self, caller: Caller, wanted: LlmSettings, api_key: str = "", if_match: int | None = None
    ) -> LlmSettings:
        """Store the model; without a key the stored one stays. `wanted.version` does not count.

        Raises Unusable: platform.model_unknown, platform.model_missing, platform.key_needless (a
        model inside the server has none), provider.address_invalid, provider.address_refused,
        provider.key_masked, provider.key_needed (another origin needs its key anew);
        PreconditionFailed("request.precondition").
        """
        key = api_key.strip()
        if key.startswith(MASK):
            raise Unusable("provider.key_masked")
        base_url, model = wanted.base_url.strip(), wanted.model_name.strip()
        if not base_url:
            model = model or self._providers.default
            if model not in EMBEDDED:
                raise Unusable("platform.model_unknown", models=", ".join(EMBEDDED))
            if key:
                raise Unusable("platform.key_needless")
        elif not model:
            raise Unusable("platform.model_missing")
        else:
            base_url = await self._providers.checked_address(base_url)

        def unit() -> Unit[_Stored]:
            found = self._read((yield from self._stored.lock(LLM, {})))
            sealed = found.api_key_sealed if base_url else ""
            if sealed and not key and origin(base_url) != origin(found.base_url):
                raise Unusable("provider.key_needed")
            if key and base_url:
                sealed = self._box.seal(key, CONTEXT)
            made = _Stored(
                base_url=base_url,
                model_name=model,
                temperature=wanted.temperature,
                max_tokens=wanted.max_tokens,
                version=next_version(found.version, if_match),
                api_key_sealed=sealed,
            )
            yield from self._put(caller, LLM, made, base_url=base_url, model=model)
            return made

        return await self._database.write(unit)

    async def agent(self) -> AgentSettings:
        return msgspec.convert(await self._stored.find(AGENT, {}), AgentSettings)

    async def set_agent(
        self, caller: Caller, wanted: AgentSettings, if_match: int | None = None
    ) -> AgentSettings:
        """Store the limits; the rounds of a caller who is no administrator are at most the
        operator's. Raises PreconditionFailed("request.precondition")."""
        if not caller.is_admin:
            rounds = min(wanted.max_iterations, self._rounds_max)
            wanted = msgspec.structs.replace(wanted, max_iterations=rounds)

        def unit() -> Unit[AgentSettings]:
            found = msgspec.convert((yield from self._stored.lock(AGENT, {})), AgentSettings)
            made = msgspec.structs.replace(wanted, version=next_version(found.version, if_match))
            yield from self._put(caller, AGENT, made)
            return made

        return await self._database.write(unit)

    def _read(self, stored: Any) -> _Stored:
        if not stored:
            return _Stored(base_url="", model_name=self._providers.default)
        return msgspec.convert(stored, _Stored)

    def _put(self, caller: Caller, name: str, value: msgspec.Struct, **facts: Any) -> Unit[None]:
        yield from self._stored.put(name, msgspec.structs.asdict(value), self._clock())
        told = deed("platform.settings_changed", caller, name=name, **facts)
        yield from self._log.append(f"user:{caller.user_id}", [told])


def next_version(version: int, if_match: int | None) -> int:
    """The version after this one. Raises PreconditionFailed("request.precondition") where the
    change is meant for another."""
    if if_match not in (None, version):
        raise PreconditionFailed("request.precondition")
    return version + 1
