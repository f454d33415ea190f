"""What happened to others does not happen here: each test is named after its case."""

import copy
import itertools
import json
from typing import Any
from unittest import mock

import pytest

from contracts.document import Operation
from gateways.outbound import Outbound
from server.lane.origin import Proxies
from tests.security import (
    asgi,
    authentication_defences,
    authorisation_defences,
    execution_defences,
    outbound_defences,
    web_defences,
)
from tests.security.place import (
    NOWHERE,
    OPERATIONS,
    PASSWORD,
    Account,
    Place,
    fresh_address,
    path_of,
    unique,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- streams ------------------------------------------------------------------------------------


async def test_cve_2026_31950_stream_of_another_user(place: Place) -> None:
    resume = "/api/stream/resume/{}?run_id={}"
    own = unique("session")
    said = {"messages": [{"role": "user", "content": "mine"}], "session_id": own}
    assert (await place.stranger.ask("POST", "/api/web-stream", said)).http == 200
    for session in (place.session, place.conversation, own):
        for run in (place.run, NOWHERE):
            reply = await place.stranger.ask("GET", resume.format(session, run))
            assert (reply.http, reply.body) == (200, b""), (session, run)
        reply = await place.stranger.ask("GET", f"/api/stream/resume/{place.session}")
        assert reply.body == b""
    reply = await place.owner.ask("GET", resume.format(place.session, place.run))
    assert b"hello" in reply.body


async def test_cve_2026_44553_a_changed_role_holds_on_open_streams(place: Place) -> None:
    account = await place.account("demoted")
    async with place.stream(account, "GET", "/api/stream/active_sessions") as stream:
        assert await stream.chunks.get()
        await place.quartet.users.set_role(place.root, account.id, "viewer")
        await stream.rest(within=1.0)
    made = await account.ask("POST", "/api/agent/create", {"name": unique("agent")})
    assert made.status == 403


async def test_cve_2026_44564_who_only_reads_writes_nothing(place: Place) -> None:
    await authorisation_defences.a_viewer_writes_nothing(place)


async def test_a_websocket_is_refused_before_it_opens(place: Place) -> None:
    """PDF-Assistant-RAG#692, ChatPulse#13, Xpra#2471: none is open yet, so none is accepted."""
    for path in ("/ws", "/sage/ws", "/sage/api/stream", "/"):
        sent: list[dict[str, Any]] = []
        scope = {
            **asgi.scope_of("GET", path, [(b"origin", b"https://evil.example")], "192.0.2.1"),
            "type": "websocket",
            "subprotocols": [],
        }
        messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect"}])

        async def receive(messages: Any = messages) -> dict[str, str]:
            return next(messages)  # type: ignore[no-any-return]

        async def send(message: dict[str, Any], sent: Any = sent) -> None:
            sent.append(message)

        await place.application(scope, receive, send)
        assert [message["type"] for message in sent] == ["websocket.close"], path


# --- the outside --------------------------------------------------------------------------------


async def test_cve_2026_31943_mapped_addresses_in_hex(place: Place) -> None:
    await outbound_defences.no_spelling_of_an_inner_address_passes(place)


async def test_cve_2026_44284_checked_at_save_and_at_use(place: Place) -> None:
    await outbound_defences.an_inner_address_is_refused_when_it_is_saved(place)
    await outbound_defences.a_name_that_moves_inside_is_not_followed(place)


async def test_cve_2026_42344_dns_rebinding(place: Place) -> None:
    await outbound_defences.a_name_that_moves_inside_is_not_followed(place)


async def test_cve_2026_42345_metadata_and_private_ranges_by_default(place: Place) -> None:
    await outbound_defences.metadata_is_refused_even_where_it_is_listed(place)


async def test_ghsa_53h9_fmjf_frwr_redirects_to_the_inside(place: Place) -> None:
    await outbound_defences.redirects_are_few_checked_and_without_credentials(place)


async def test_an_inner_name_does_not_tell_its_address(place: Place) -> None:
    steps = [{"call": "web_fetch", "args": {"url": "http://localhost:9/"}}, {"say": "done"}]
    said = {"messages": [{"role": "user", "content": f"script:{json.dumps(steps)}"}]}
    reply = await place.owner.ask("POST", "/api/stream", said)
    assert b"localhost does not lead to a public address" in reply.body
    assert b"127.0.0.1" not in reply.body
    assert b"::1" not in reply.body


# --- authentication -----------------------------------------------------------------------------


async def test_openhands_security_that_is_declared_is_wired(place: Place) -> None:
    await authentication_defences.no_credential_is_401_before_the_body(place)


async def test_cve_2025_3248_nothing_is_read_before_the_caller_is_known(place: Place) -> None:
    await authentication_defences.no_credential_is_401_before_the_body(place)


async def test_first_tree_1620_logout_and_reuse_revoke(place: Place) -> None:
    await authentication_defences.logging_out_ends_the_token_at_once(place)
    await authentication_defences.a_refresh_token_used_twice_ends_its_family(place)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", b"203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", b"127.0.0.1, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.1", b"203.0.113.5, evil10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", b"10.0.0.1.evil.example", "10.0.0.1"),
        ("203.0.113.9", b"10.0.0.1", "203.0.113.9"),
        ("unix", b"10.0.0.1", "unix"),
    ],
)
async def test_agent_os_568_proxies_are_known_by_their_address(
    peer: str, forwarded: bytes, client: str
) -> None:
    assert Proxies(["10.0.0.0/8"]).client(peer, forwarded) == client


async def test_octopus_230_everybody_is_no_proxy() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Proxies(["*"])


# --- objects ------------------------------------------------------------------------------------


async def test_cve_2026_42863_post_with_an_id(place: Place) -> None:
    await authorisation_defences.a_post_with_an_id_changes_nothing_that_exists(place)
    await authorisation_defences.fields_of_the_server_are_not_the_clients(place)


async def test_cve_2026_45402_others_objects_inside_bodies(place: Place) -> None:
    await authorisation_defences.an_agent_refers_to_nothing_of_others(place)
    await authorisation_defences.a_chat_refers_to_nothing_of_others(place)


async def test_others_messages_are_not_listed_by_a_stated_user(place: Place) -> None:
    reply = await place.stranger.ask("GET", f"/api/conversations?user_id={place.owner.id}")
    assert reply.status == 403
    for query in ("", f"?agent_id={place.agent}", "?search=hello", "?search=%25"):
        listed = await place.stranger.ask("GET", f"/api/conversations{query}")
        owners = {one["user_id"] for one in listed.data["list"]}
        assert owners <= {place.stranger.id}


async def test_a_conversation_named_like_another_s_hides_nothing(place: Place) -> None:
    """A session id is the client's to choose: even the id of another's conversation."""
    said = {"messages": [{"role": "user", "content": "shadow"}], "session_id": place.conversation}
    assert (await place.stranger.ask("POST", "/api/web-stream", said)).http == 200
    path = f"/api/conversations/{place.conversation}/messages"
    for account in (place.owner, place.admin):
        shown = await account.ask("GET", path)
        assert shown.data["conversation_id"] == place.conversation
    shown = await place.stranger.ask("GET", path)
    assert shown.data["conversation_id"] != place.conversation


@pytest.mark.parametrize(
    "spelling", ["{}", " {} ", "{}\u200b", "\u202e{}", "{}\u0000", "{}\n", "{}\u00ad"]
)
async def test_a_username_that_looks_like_another_s_is_refused(place: Place, spelling: str) -> None:
    name = unique("ROOT")
    body = {"username": name, "password": PASSWORD}
    assert (await place.admin.ask("POST", "/api/user/add", body)).status == 200
    for word in (name, name.lower(), name.replace("O", "\uff2f")):
        twin = {
            "username": spelling.format(word).replace("\uff32R", "\uff32"),
            "password": PASSWORD,
        }
        assert (await place.admin.ask("POST", "/api/user/add", twin)).status != 200, twin


# --- bodies and headers -------------------------------------------------------------------------


async def test_cve_2026_21858_no_body_poses_as_another(place: Place) -> None:
    await web_defences.another_media_type_is_415(place)


async def test_n8n_expressions_are_not_evaluated(place: Place) -> None:
    await execution_defences.an_expression_is_numbers_alone(place)


async def test_a_request_id_splits_no_header(place: Place) -> None:
    for sent in ("a\r\nset-cookie: x=y", "a b", "é", "x" * 129, "", "<script>"):
        reply = await place.ask("GET", "/api/health", headers={"x-request-id": sent})
        assert reply.headers["x-request-id"] != sent
        assert "set-cookie" not in reply.headers
    for name in ("chat\r\nx-evil: 1", 'a";filename="b', "\u202egpj.exe"):
        path = f"/api/conversations/{place.session}/title"
        reply = await place.owner.ask("POST", path, {"title": name})
        assert not any("evil" in key for key in reply.headers)


WRONG: tuple[Any, ...] = (None, True, -1, 2**63 - 1, 1.5, "", "x" * 5000, [], [None], {}, {"a": 1})
RAW = (b"", b"null", b"[]", b"0", b'"text"', b"true", b"{}", b'{"unknown": 1}')
CHAT = frozenset({"chat_create", "chat_stream", "chat_stream_web"})
ENDS = frozenset({"sage.auth_logout", "sage.auth_logout_compat", "sage.user_change_password"})


def example_of(operation: Any) -> Any:
    """A body that the operation takes, as its document shows it."""
    media = operation.raw["requestBody"]["content"].get("application/json", {})
    if "example" in media:
        return media["example"]
    return next((one["value"] for one in media.get("examples", {}).values()), {})


def wrong_bodies(operation: Any) -> list[bytes | None]:
    """No body, bodies of another shape, and the example with one field at a time made wrong."""
    found: list[bytes | None] = [None, *RAW]
    if operation.media:
        example = example_of(operation)
        wrong = WRONG[:4] if operation.id in CHAT else WRONG
        for name, value in itertools.product(example, wrong):
            changed = copy.deepcopy(example)
            changed[name] = value
            found.append(json.dumps(changed).encode())
    return found


@pytest.fixture
def nowhere() -> Any:
    """No name has an address, so that no example is really called."""
    with mock.patch.object(Outbound, "addresses", side_effect=OSError("no address")):
        yield


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.key)
async def test_cve_2026_31949_absent_null_and_wrong_bodies(
    operation: Operation, place: Place, nowhere: None
) -> None:
    account: Account = place.admin if operation.role == "admin" else place.owner
    if operation.key in ENDS:
        account = await place.account("spent")
    path = path_of(operation, provider_id=place.provider)
    for body in wrong_bodies(operation):
        for headers in ({"content-type": "application/json"}, {}):
            reply = await account.ask(
                operation.method, path, body, headers=headers, peer=fresh_address()
            )
            assert reply.http < 500, (body, reply)
    assert (await place.ask("GET", "/api/health")).http == 200


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.key)
async def test_no_query_overflows(operation: Operation, place: Place) -> None:
    account = place.admin if operation.role == "admin" else place.owner
    values = ("9223372036854775807", "-9223372036854775808", "0", "-1", "1e999", "NaN", "\u0660")
    for parameter in operation.parameters:
        if parameter.place != "query" or operation.method != "GET":
            continue
        for value in (*values, "%00", "%ff", "%f0%9f", "x" * 4000, "%27%20OR%201=1--", "[]"):
            query = f"{parameter.name}={value if value.isascii() else '%D9%A0'}"
            path = path_of(operation, agent_id=place.agent, session_id=place.session)
            async with asgi.exchange(
                place.application,
                "GET",
                f"{path}?{query}",
                headers={"authorization": f"Bearer {account.token}"},
            ) as made:
                assert made.status < 500, (query, made.status)
