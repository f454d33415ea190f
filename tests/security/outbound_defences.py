"""What the server asks of the outside: attacks by addresses and answers (checklist 23 to 28)."""

import contextlib
import re
from functools import partial
from ipaddress import ip_address
from typing import Any
from unittest import mock

from domain import skills
from domain.caller import Caller
from domain.errors import Forbidden
from domain.turn.plan import InputMessage, TurnRequest
from gateways.addresses import AllowList
from gateways.errors import OutboundError, OutboundFailed
from gateways.outbound import Outbound
from tests.gateways.peer import Peer, plain
from tests.gateways.test_outbound import FORMS
from tests.security.defences import answering, without
from tests.security.place import Place, unique
from tests.skills.packing import packed, packed_skill, skill_md
from tests.skills.test_archives import NOISE


@without(
    23,
    addresses={"gateways.addresses:AllowList.refusal": lambda *_: None},
    spelling={"gateways.outbound:_check_host": lambda host: None},
)
async def no_spelling_of_an_inner_address_passes(place: Place) -> None:
    del place
    assert len(set(FORMS)) >= 200

    async def inside(host: str, port: int) -> list[str]:
        raise OSError(host)

    outbound = Outbound(resolve=inside)
    for form in FORMS:
        url = form.format(port=":8080") if "{port}" in form else form
        try:
            await outbound.check("fetch", url)
        except OutboundFailed:
            # It is a name, which here has no address; what such a form looks like is settled.
            assert re.fullmatch(r"https?://[A-Za-z.]*localhost\.?:8080/", url, re.I), url
        except OutboundError:
            continue
        else:
            raise AssertionError(url)


async def _unchecked(self: Any, purpose: str, host: str, port: int) -> Any:
    return [ip_address("127.0.0.1")]


@without(
    27,
    strangers={"domain.turn.planning:_refuse_addresses": lambda request, messages: None},
)
async def a_stranger_has_the_server_connect_to_nothing(place: Place) -> None:
    """Where chats are open to everybody (SAGE_OPEN_CHAT)."""
    stranger = Caller(user_id=place.owner.id, role="operator")
    image = {"type": "image_url", "image_url": {"url": "https://8.8.8.8/a.png"}}
    for content, fields in (
        ("hi", {"llm_model_config": {"base_url": "https://8.8.8.8/v1", "model": "m"}}),
        ("hi", {"extra_mcp_config": {"docs": {"url": "https://8.8.8.8/mcp"}}}),
        ([image], {"llm_model_config": {"supports_multimodal": True}}),
    ):
        messages = [InputMessage(role="user", content=content)]
        request = TurnRequest(messages=messages, **fields)
        try:
            await place.quartet.runs._planner.plan(stranger, request, "en", messages)
        except Forbidden:
            continue
        raise AssertionError(fields)


@without(
    24,
    pinning={"gateways.outbound:Outbound.addresses": _unchecked},
    at_use={"gateways.addresses:AllowList.refusal": lambda *_: None},
)
async def a_name_that_moves_inside_is_not_followed(place: Place) -> None:
    del place
    answers = [["8.8.8.8"], ["127.0.0.1"]]

    async def moving(host: str, port: int) -> list[str]:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    peer = await Peer().start()
    outbound = Outbound(resolve=moving)
    try:
        peer.routes["/"] = plain(body="secret")
        url = f"http://moving.example:{peer.port}/"
        await outbound.check("fetch", url)
        with contextlib.suppress(OutboundError):
            await outbound.fetch("fetch", url, max_bytes=1000, timeout=5)
        assert peer.connections == 0
    finally:
        await outbound.close()
        await peer.stop()


@without(
    25,
    hops={"gateways.outbound:MAX_REDIRECTS": 50},
    credentials={"gateways.outbound:_CREDENTIALS": set()},
    targets={"gateways.addresses:AllowList.refusal": lambda *_: None},
)
async def redirects_are_few_checked_and_without_credentials(place: Place) -> None:
    del place
    peer, inner = await Peer().start(), await Peer().start()
    outbound = Outbound([f"fetch=127.0.0.1:{peer.port}", f"fetch=localhost:{peer.port}"])
    try:
        inner.routes["/"] = plain(body="secret")
        peer.routes["/in"] = plain(302, location=f"{inner.url}/")
        peer.routes["/away"] = plain(302, location=f"http://localhost:{peer.port}/end")
        peer.routes["/end"] = plain(body="end")
        for number in range(6):
            peer.routes[f"/{number}"] = plain(302, location=f"/{number + 1}")
        peer.routes["/6"] = plain(body="end")
        get = partial(outbound.fetch, "fetch", max_bytes=1000, timeout=5)
        for path in ("/in", "/0"):
            try:
                await get(peer.url + path)
            except OutboundError:
                continue
            raise AssertionError(path)
        assert inner.connections == 0
        await get(peer.url + "/away", headers={"authorization": "Bearer x", "cookie": "a=b"})
        assert not {"authorization", "cookie"} & set(peer.requests[-1].headers)
    finally:
        await outbound.close()
        await peer.stop()
        await inner.stop()


async def _all_of_it(response: Any, max_bytes: int) -> bytes:
    return b"".join([piece async for piece in response.aiter_bytes()])


@without(26, cap={"gateways.outbound:_read": _all_of_it})
async def an_answer_is_read_up_to_its_cap(place: Place) -> None:
    import gzip

    del place
    peer = await Peer().start()
    outbound = Outbound(["127.0.0.1"])
    try:
        bomb = gzip.compress(b"\0" * 2_000_000)
        peer.routes["/bomb"] = plain(body=bomb, content_encoding="gzip")
        peer.routes["/large"] = plain(body=b"x" * 200_000)
        for path in ("/bomb", "/large"):
            try:
                await outbound.fetch("fetch", peer.url + path, max_bytes=100_000, timeout=5)
            except OutboundError:
                continue
            raise AssertionError(path)
    finally:
        await outbound.close()
        await peer.stop()


@without(27, at_save={"gateways.outbound:Outbound.check": answering(None)})
async def an_inner_address_is_refused_when_it_is_saved(place: Place) -> None:
    for url in ("http://127.0.0.1:8000/v1", "http://[::ffff:7f00:1]/v1", "http://169.254.169.254"):
        body = {"base_url": url, "api_keys": ["sk-x"], "model": "m"}
        assert (await place.owner.ask("POST", "/api/llm-provider/create", body)).status == 400, url
        update = f"/api/llm-provider/update/{place.provider}"
        assert (await place.owner.ask("PUT", update, body)).status == 400, url
        chat = {
            "messages": [{"role": "user", "content": "x"}],
            "llm_model_config": {"base_url": url, "model": "m"},
        }
        assert (await place.owner.ask("POST", "/api/stream", chat)).status == 400, url


@without(27, at_use={"gateways.addresses:AllowList.refusal": lambda *_: None})
async def nothing_inside_is_imported(place: Place) -> None:
    peer, outer = await Peer().start(), await Peer().start()
    door = Outbound([f"skill=127.0.0.1:{outer.port}"])
    try:
        peer.routes["/a.zip"] = plain(body=packed_skill(unique("inside")))
        outer.routes["/moved"] = plain(302, location=f"{peer.url}/a.zip")
        with mock.patch.object(place.quartet.skills, "_outbound", door):
            for url in (f"{peer.url}/a.zip", f"{outer.url}/moved"):
                reply = await place.owner.ask("POST", "/api/skills/import-url", {"url": url})
                assert reply.http == 400, url
        assert (peer.connections, outer.connections) == (0, 1)
    finally:
        await door.close()
        await peer.stop()
        await outer.stop()


@without(26, import_={"gateways.outbound:_read": _all_of_it})
async def an_import_is_read_up_to_its_cap(place: Place) -> None:
    """And what came in its place is told to nobody."""
    peer = await Peer().start()
    door = Outbound(["skill=127.0.0.1/32"])
    large = {"SKILL.md": skill_md(unique("large")), "noise": NOISE}
    try:
        peer.routes["/large.zip"] = plain(body=packed(large))
        peer.routes["/page"] = plain(body="secret of an inner page")
        peer.routes["/error"] = plain(500, body="secret of an inner page")
        with (
            mock.patch.object(place.quartet.skills, "_outbound", door),
            mock.patch.object(skills, "IMPORT_MAX", 10_000),
        ):
            for path in ("/large.zip", "/page", "/error"):
                body = {"url": peer.url + path}
                reply = await place.owner.ask("POST", "/api/skills/import-url", body)
                assert reply.http == 400, path
                assert b"secret" not in reply.body
    finally:
        await door.close()
        await peer.stop()


@without(28, metadata={"gateways.addresses:is_metadata": lambda address: False})
async def metadata_is_refused_even_where_it_is_listed(place: Place) -> None:
    del place
    listed = AllowList(["169.254.0.0/16", "100.100.100.200", "fd00::/8"])
    for address in ("169.254.169.254", "fd00:ec2::254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe"):
        reached = listed.refusal("fetch", address, 80, ip_address(address))
        assert "metadata" in (reached or ""), address
