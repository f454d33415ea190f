"""Providers: keys, ownership, defaults, and what endpoints can do."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import select

from domain.errors import Conflict, Forbidden, NotFound, Unusable
from domain.providers import EMBEDDED, ProviderFields, masked
from handlers.sage.llm_provider import shown
from storage.database import Database, Statement
from storage.schema import events, providers
from tests.providers.parts import ANN, BOB, ROOT, Parts, endpoint, parts, told

KEY = "sk-canary-7c1a9f3e5b2d-wxyz"
HOST = "https://93.184.216.34/v1"
OTHER = "https://93.184.216.35/v1"


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Parts]:
    async with parts(database) as made:
        yield made


def fields(**changes: object) -> ProviderFields:
    return ProviderFields(**{"base_url": HOST, "api_key": KEY, "model": "m", **changes})


async def one(here: Parts, caller: object, provider_id: str) -> object:
    return next(p for p in await here.providers.visible(caller) if p.id == provider_id)


async def test_create_strips_names_and_stores_non_default(here: Parts) -> None:
    made = await here.providers.create(ANN, fields(base_url=HOST + "//", is_default=True))
    row = await one(here, ANN, made)
    assert (row.base_url, row.name, row.is_default) == (HOST, "m@93.184.216.34", False)
    assert (row.supports_multimodal, row.max_tokens) == (False, None)
    assert masked(row) == ["****wxyz"]
    assert await told(here.log, "user:ann") == ["provider.created"]


async def test_identical_ones_are_one(here: Parts) -> None:
    first = await here.providers.create(ANN, fields())
    ids = await asyncio.gather(*(here.providers.create(ANN, fields(name="x")) for _ in range(5)))
    assert set(ids) == {first}
    assert await here.providers.create(BOB, fields()) != first
    assert await here.providers.create(ANN, fields(model="n")) != first
    assert await told(here.log, "user:ann") == ["provider.created"] * 2


async def test_created_at_once_they_are_one(here: Parts) -> None:
    ids = await asyncio.gather(*(here.providers.create(ANN, fields()) for _ in range(8)))
    assert len(set(ids)) == 1


@pytest.mark.parametrize("key", ["****", "****wxyz"])
async def test_a_mask_is_no_key(here: Parts, key: str) -> None:
    with pytest.raises(Unusable) as caught:
        await here.providers.create(ANN, fields(api_key=key))
    assert caught.value.key == "provider.key_masked"


@pytest.mark.parametrize(
    ("base_url", "key"),
    [
        ("http://127.0.0.1:1/v1", "address_refused"),
        ("http://[::ffff:7f00:1]/v1", "address_refused"),
        ("http://169.254.169.254/v1", "address_refused"),
        ("http://0x7f000001/v1", "address_invalid"),
        ("http://a:b@93.184.216.34/v1", "address_invalid"),
        ("ftp://93.184.216.34/v1", "address_invalid"),
        ("https://93.184.216.34/v1?x=1", "address_invalid"),
        ("https://93.184.216.34/v1#x", "address_invalid"),
    ],
)
async def test_addresses_are_checked_at_save(here: Parts, base_url: str, key: str) -> None:
    made = await here.providers.create(ANN, fields())
    for attempt in (
        here.providers.create(ANN, fields(base_url=base_url)),
        here.providers.update(ANN, made, ProviderFields(base_url=base_url, api_key=KEY)),
        here.choices.choose(ANN, config={"base_url": base_url, "api_key": KEY, "model": "m"}),
    ):
        with pytest.raises(Unusable) as caught:
            await attempt
        assert caught.value.key == f"provider.{key}"
    assert len(await here.providers.visible(ANN)) == 3


async def test_an_update_keeps_what_it_does_not_name(here: Parts) -> None:
    made = await here.providers.create(ANN, fields(name="A", temperature=0.5, max_tokens=7))
    for change in (
        ProviderFields(temperature=None),
        ProviderFields(api_key="****wxyz", name="B"),
        ProviderFields(base_url=HOST + "/deeper/"),
    ):
        changed = await here.providers.update(ANN, made, change)
    assert (changed.name, changed.temperature, changed.max_tokens) == ("B", None, 7)
    assert changed.base_url == HOST + "/deeper"
    assert here.providers.key_of(changed) == KEY
    again = await here.providers.update(ANN, made, ProviderFields(api_key="sk-new-abcd"))
    assert here.providers.key_of(again) == "sk-new-abcd"
    assert masked(again) == ["****abcd"]
    assert (await told(here.log, "user:ann"))[1:] == ["provider.updated"] * 4


@pytest.mark.parametrize("api_key", [msgspec.UNSET, "****wxyz"])
async def test_a_key_stays_with_its_origin(here: Parts, api_key: object) -> None:
    made = await here.providers.create(ANN, fields())
    for base_url in (OTHER, HOST.replace("https", "http"), HOST.replace(".34", ".34:444")):
        with pytest.raises(Unusable) as caught:
            await here.providers.update(
                ANN, made, ProviderFields(base_url=base_url, api_key=api_key)
            )
        assert caught.value.key == "provider.key_needed"
    moved = await here.providers.update(ANN, made, fields(base_url=OTHER, api_key="sk-2-abcd"))
    assert here.providers.key_of(moved) == "sk-2-abcd"


async def test_another_mask_is_refused(here: Parts) -> None:
    made = await here.providers.create(ANN, fields())
    with pytest.raises(Unusable) as caught:
        await here.providers.update(ANN, made, ProviderFields(api_key="****nope"))
    assert caught.value.key == "provider.key_masked"


async def test_an_update_cannot_make_a_twin(here: Parts) -> None:
    await here.providers.create(ANN, fields())
    two = await here.providers.create(ANN, fields(model="n"))
    with pytest.raises(Conflict):
        await here.providers.update(ANN, two, ProviderFields(model="m"))


async def test_strangers_see_nothing_and_administrators_all(here: Parts) -> None:
    made = await here.providers.create(ANN, fields())
    assert [p.id for p in await here.providers.visible(BOB)] == list(EMBEDDED)
    for attempt in (
        here.providers.update(BOB, made, ProviderFields(name="x")),
        here.providers.delete(BOB, made),
        here.providers.delete(BOB, "nothing"),
    ):
        with pytest.raises(NotFound) as caught:
            await attempt
        assert caught.value.key == "provider.not_found"
    assert made in [p.id for p in await here.providers.visible(ROOT)]
    changed = await here.providers.update(ROOT, made, ProviderFields(name="by root"))
    assert (changed.owner_id, changed.name) == ("ann", "by root")
    await here.providers.delete(ROOT, made)
    assert await told(here.log, "user:ann") == [
        "provider.created",
        "provider.updated",
        "provider.deleted",
    ]


async def test_system_providers_stand(here: Parts) -> None:
    for provider_id in EMBEDDED:
        with pytest.raises(Forbidden) as caught:
            await here.providers.update(ROOT, provider_id, ProviderFields(name="x"))
        assert caught.value.key == "provider.system"
        with pytest.raises(Forbidden) as caught:
            await here.providers.delete(ROOT, provider_id)
        assert caught.value.key == "provider.default"
    listed = [shown(p) for p in await here.providers.visible(ANN)]
    assert [(p.id, p.api_keys, p.user_id, p.is_default) for p in listed] == [
        ("embedded/smollm2", [], None, False),
        ("embedded/script", [], None, True),
    ]


async def test_there_is_one_default(here: Parts) -> None:
    first = await here.providers.create(ANN, fields())
    second = await here.providers.create(ANN, fields(model="n"))
    for chosen in (first, second):
        await here.providers.update(ANN, chosen, ProviderFields(is_default=True))
        rows = await here.providers.visible(ANN)
        assert [p.id for p in rows if p.is_default] == [chosen]
        assert (await here.choices.choose(ANN)).provider_id == chosen
    with pytest.raises(Forbidden) as caught:
        await here.providers.delete(ANN, second)
    assert caught.value.key == "provider.default"
    await here.providers.delete(ANN, first)
    assert (await here.choices.choose(BOB)).provider_id == "embedded/script"


async def test_a_choice_goes_from_request_to_agent_to_default(here: Parts) -> None:
    hers = await here.providers.create(ANN, fields(temperature=0.1))
    his = await here.providers.create(BOB, fields())
    bound = await here.choices.choose(BOB, bound_by="ann", bound=hers)
    assert (bound.owner_id, bound.provider_id) == ("ann", hers)
    named = await here.choices.choose(
        BOB, bound_by="ann", bound=hers, config={"provider_id": his, "temperature": 1.5}
    )
    assert (named.owner_id, named.provider_id, named.temperature) == ("bob", his, 1.5)
    other_model = await here.choices.resolve(BOB, config={"llm_provider_id": his, "model": "z"})
    assert (other_model.name, other_model.provider_id) == ("z", his)
    resolved = await here.choices.open(bound)
    assert (resolved.temperature, resolved.name, resolved.provider_id) == (0.1, "m", hers)
    for name in ("embedded/script", "embedded/smollm2"):
        for config in ({"provider_id": name}, {"model": name}):
            assert (await here.choices.resolve(BOB, config=config)).provider_id == name
    await here.providers.delete(ANN, hers)
    assert (await here.choices.choose(BOB, bound_by="ann", bound=hers)).provider_id == (
        "embedded/script"
    )
    assert (await here.choices.open(bound)).provider_id == "embedded/script"


async def test_choices_that_are_refused(here: Parts) -> None:
    hers = await here.providers.create(ANN, fields())
    for config, key in (
        ({"provider_id": hers}, "agent.provider_unknown"),
        ({"provider_id": "nothing"}, "agent.provider_unknown"),
        ({"model": "dearer"}, "provider.model_not_yours"),
        ({"base_url": HOST}, "provider.config_invalid"),
        ({"api_key": KEY}, "provider.config_invalid"),
        ({"temperature": 9}, "provider.config_invalid"),
        ({"unheard_of": 1}, "provider.config_invalid"),
        ({"base_url": HOST, "model": "m", "api_key": "****wxyz"}, "provider.key_masked"),
    ):
        with pytest.raises(Unusable) as caught:
            await here.choices.choose(BOB, bound_by="ann", bound=hers, config=config)
        assert caught.value.key == key
        assert KEY not in str(caught.value.details)


async def test_the_key_shows_nowhere(here: Parts) -> None:
    made = await here.providers.create(ANN, fields(name="canary"))
    await here.providers.update(ANN, made, ProviderFields(name="again", api_key=KEY))
    config = {"base_url": HOST, "api_key": KEY, "model": "m"}
    choice = await here.choices.choose(ANN, config=config)
    for caller in (ANN, ROOT):
        answer = msgspec.json.encode([shown(p) for p in await here.providers.visible(caller)])
        assert b"****wxyz" in answer
        assert KEY[:-4].encode() not in answer
    assert KEY not in msgspec.json.encode(choice).decode()
    assert KEY not in repr(fields())
    resolved = await here.choices.open(choice)
    assert KEY not in repr(resolved)
    for table in (events, providers):
        rows = await here.database.scan(Statement(select(table))())
        assert rows
        assert KEY[:-4] not in repr(rows)


# --- real endpoints ---------------------------------------------------------------------------


@pytest.fixture
async def there(database: Database) -> AsyncIterator[tuple[Parts, str, object]]:
    async with endpoint(KEY) as (base_url, script):
        port = base_url.split(":")[2].split("/")[0]
        async with parts(database, allow=(f"model=127.0.0.1:{port}",)) as made:
            yield made, base_url, script


async def test_a_real_endpoint_is_verified(there: tuple[Parts, str, object]) -> None:
    here, base_url, script = there
    await here.probing.verify(ANN, fields(base_url=base_url))
    assert script.calls == 1
    assert script.last["max_tokens"] == 1
    with pytest.raises(Unusable) as caught:
        await here.probing.verify(ANN, fields(base_url=base_url, api_key="sk-wrong-key"))
    assert caught.value.key == "provider.verify_failed"
    assert "401" in caught.value.details["reason"]
    assert "sk-wrong-key" not in caught.value.details["reason"]


async def test_the_mask_stands_for_the_stored_key_at_its_origin(
    there: tuple[Parts, str, object],
) -> None:
    here, base_url, script = there
    with pytest.raises(Unusable):
        await here.probing.verify(ANN, fields(base_url=base_url, api_key="****wxyz"))
    await here.providers.create(ANN, fields(base_url=base_url))
    await here.probing.verify(ANN, fields(base_url=base_url, api_key="****wxyz"))
    with pytest.raises(Unusable):
        await here.probing.verify(BOB, fields(base_url=base_url, api_key="****wxyz"))
    with pytest.raises(Unusable):
        await here.probing.verify(ANN, fields(base_url=OTHER, api_key="****wxyz"))
    assert script.calls == 1


async def test_abilities_are_seen(there: tuple[Parts, str, object]) -> None:
    here, base_url, script = there
    found = await here.probing.abilities(ANN, fields(base_url=base_url))
    assert found.supports_streaming
    assert found.supports_structured_output
    assert found.supports_multimodal
    assert script.calls == 4


async def test_a_picture_is_seen(there: tuple[Parts, str, object]) -> None:
    here, base_url, _ = there
    sight = await here.probing.sight(ANN, fields(base_url=base_url))
    assert (sight.supports_multimodal, sight.recognized, sight.error) == (True, True, "")
    assert "64x64" in sight.response
    for wrong in ({"api_key": "sk-no-no"}, {"base_url": "http://127.0.0.1:9/v1"}):
        sight = await here.probing.sight(ANN, fields(**{"base_url": base_url, **wrong}))
        assert not sight.supports_multimodal
        assert sight.error


async def test_a_stored_provider_answers(there: tuple[Parts, str, object]) -> None:
    from contextlib import aclosing

    from gateways.models.model import ModelCall, Text

    here, base_url, script = there
    made = await here.providers.create(ANN, fields(base_url=base_url))
    resolved = await here.choices.resolve(ANN, config={"provider_id": made})
    call = ModelCall(messages=[{"role": "user", "content": 'script:[{"say":"hello you"}]'}])
    async with aclosing(resolved.model.stream(call)) as deltas:
        text = "".join([delta.text async for delta in deltas if isinstance(delta, Text)])
    assert text == "hello you"
    assert script.calls == 1
