"""Model providers in the words of sage (document, "LLMProviderCreate")."""

from typing import Any

import msgspec

from domain.caller import Caller
from domain.providers import ProviderFields, masked
from domain.quartet import Quartet
from generated.sage.models import LLMProvider, LLMProviderCreate, LLMProviderUpdate
from handlers.times import iso
from storage.providers import Provider


async def verify(quartet: Quartet, caller: Caller, body: LLMProviderCreate) -> None:
    await quartet.probing.verify(caller, fields_of(body))


async def verify_capabilities(quartet: Quartet, caller: Caller, body: LLMProviderCreate) -> Any:
    return await quartet.probing.abilities(caller, fields_of(body))


async def verify_multimodal(
    quartet: Quartet, caller: Caller, body: LLMProviderCreate
) -> dict[str, Any]:
    sight = await quartet.probing.sight(caller, fields_of(body))
    if sight.error:
        return {"supports_multimodal": False, "error": sight.error}
    return {
        "supports_multimodal": sight.supports_multimodal,
        "response": sight.response,
        "recognized": sight.recognized,
    }


async def list_(quartet: Quartet, caller: Caller) -> list[LLMProvider]:
    return [shown(provider) for provider in await quartet.providers.visible(caller)]


async def create(quartet: Quartet, caller: Caller, body: LLMProviderCreate) -> dict[str, str]:
    return {"provider_id": await quartet.providers.create(caller, fields_of(body))}


async def update(
    quartet: Quartet, caller: Caller, provider_id: str, body: LLMProviderUpdate
) -> LLMProvider:
    return shown(await quartet.providers.update(caller, provider_id, fields_of(body)))


async def delete(quartet: Quartet, caller: Caller, provider_id: str) -> None:
    await quartet.providers.delete(caller, provider_id)


def fields_of(body: LLMProviderCreate | LLMProviderUpdate) -> ProviderFields:
    """The body's fields; of its list of keys the one it may hold."""
    given = {name: getattr(body, name) for name in body.__struct_fields__ if name != "api_keys"}
    keys = body.api_keys
    return ProviderFields(api_key=keys if keys is msgspec.UNSET else keys[0], **given)


def shown(row: Provider) -> LLMProvider:
    """A provider with its key masked; a system provider has neither owner nor times."""
    stored = bool(row.owner_id)
    return LLMProvider(
        id=row.id,
        name=row.name,
        base_url=row.base_url,
        api_keys=masked(row),
        model=row.model,
        max_tokens=row.max_tokens,
        temperature=row.temperature,
        top_p=row.top_p,
        presence_penalty=row.presence_penalty,
        max_model_len=row.max_model_len,
        supports_multimodal=row.supports_multimodal,
        supports_structured_output=row.supports_structured_output,
        is_default=row.is_default,
        user_id=row.owner_id if stored else None,
        created_at=iso(row.created_at) if stored else None,
        updated_at=iso(row.updated_at) if stored else None,
    )
