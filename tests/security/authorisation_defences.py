"""What somebody may: attacks on others' things and on rights (checklist 13 to 21)."""

import re
from typing import Any

import msgspec

from domain.agents import Agents
from domain.caller import Caller
from server.lane.access import Access
from storage.agents import AgentStore
from storage.conversations import ConversationStore
from storage.providers import ProviderStore
from tests.security.defences import lane, operations, unit_of, without
from tests.security.place import BODIES, NOWHERE, Place, path_of, unique


async def _anybody(self: Access, scope: Any, headers: Any) -> Caller:
    return await self._door.caller(scope, headers, cookies=self._cookies)


@without(13, role={"server.lane.access:Access.admit": _anybody})
async def what_is_for_administrators_is_403_for_users(place: Place) -> None:
    found = operations("admin")
    assert len(found) >= 4
    for operation in found:
        for account in (place.owner, place.viewer):
            reply = await account.ask(operation.method, path_of(operation), b"{")
            assert reply.status == 403, operation.id
            assert reply.read == 0, operation.id


@without(13, viewer={"server.lane.access:Access.admit": _anybody})
async def a_viewer_writes_nothing(place: Place) -> None:
    found = [operation for operation in operations() if operation.writes]
    assert len(found) >= 20
    for operation in found:
        reply = await place.viewer.ask(operation.method, path_of(operation), b"{")
        assert reply.status == 403, operation.id


@without(13, ended={"domain.identity.known:Known.apply": lambda self, revocation: None})
async def a_revoked_account_is_401_everywhere(place: Place) -> None:
    account = await place.account("revoked")
    assert (await account.ask("GET", "/api/user/config")).http == 200
    await place.quartet.users.delete(place.root, account.id)
    for operation in operations():
        if not operation.public:
            reply = await account.ask(operation.method, path_of(operation), b"{")
            assert reply.http == 401, operation.id


def said(reply: Any) -> tuple[Any, ...]:
    """What tells two answers apart but for the time and the id that was asked for."""
    body = re.sub(rb'"timestamp":[0-9.]+', b"", reply.body)
    return reply.http, re.sub(rb"[0-9a-f-]{36}", b"", body), sorted(reply.headers)


def owned(place: Place) -> dict[str, str]:
    return {"agent_id": place.agent, "provider_id": place.provider, "session_id": place.session}


async def _granted(self: AgentStore, viewer: str, agent_id: str) -> Any:
    return await self.get(agent_id)


async def _found(self: ConversationStore, owner: str, key: str) -> Any:
    return await self.find_any(owner, key)


async def _forbidden(self: Any, caller: Caller, agent_id: str) -> Any:
    from domain.errors import Forbidden, NotFound

    found = await self._agents.get(agent_id)
    raise Forbidden("agent.forbidden") if found else NotFound("agent.not_found")


@without(
    14,
    conversations={"storage.conversations:ConversationStore.find": _found},
    agents={"storage.agents:AgentStore.get_visible": _granted},
    providers={"domain.providers:_may_see": lambda caller, provider: True},
)
async def every_id_in_a_path_is_its_owners(place: Place) -> None:
    """A stranger is answered as if what is the owner's did not exist (also line 15)."""
    theirs = {**owned(place)}
    for session in (place.session, place.conversation):
        theirs["session_id"] = session
        for operation in operations():
            if "{" not in operation.path or operation.contract == "sandbox":
                continue  # its document's 403 is for session_defences.py
            sent = BODIES.get(operation.id)
            caller = place.stranger
            foreign = await caller.ask(operation.method, path_of(operation, **theirs), sent)
            missing = await caller.ask(operation.method, path_of(operation), sent)
            assert said(foreign)[:2] == _renamed(said(missing)[:2], session), operation.id
    shown = await place.owner.ask("GET", f"/api/conversations/{place.session}/messages")
    assert shown.data["conversation_info"]["title"] != "taken"
    assert (await place.owner.ask("GET", f"/api/agent/{place.agent}")).data["name"] == "theirs"


def _renamed(told: tuple[Any, ...], session: str) -> tuple[Any, ...]:
    """An answer that repeats a session id, with another one."""
    if b'"session_id":""' in told[1] and "-7" not in session[8:20]:
        return told[0], told[1].replace(b'"session_id":""', b'"session_id":"%b"' % session.encode())
    return told


@without(15, alike={"domain.agents:Agents.get": _forbidden})
async def the_invisible_looks_like_the_missing(place: Place) -> None:
    for method, path, body in (
        ("GET", "/api/agent/{}", None),
        ("PUT", "/api/agent/{}", {"name": "x"}),
        ("DELETE", "/api/agent/{}", None),
        ("GET", "/api/agent/{}/auth", None),
    ):
        foreign = await place.stranger.ask(method, path.format(place.agent), body)
        missing = await place.stranger.ask(method, path.format(NOWHERE), body)
        assert said(foreign) == said(missing), (method, path)


@without(
    14,
    provider={"storage.providers:ProviderStore.is_own": unit_of(True)},
    sub_agent={"storage.agents:AgentStore.unknown": unit_of([])},
)
async def an_agent_refers_to_nothing_of_others(place: Place) -> None:
    for reference in ({"llm_provider_id": place.provider}, {"availableSubAgentIds": [place.agent]}):
        body = {"name": unique("agent"), **reference}
        reply = await place.stranger.ask("POST", "/api/agent/create", body)
        assert reply.status == 400, reference


async def _any_own(self: ProviderStore, owner: str, provider_id: str) -> Any:
    return await self.get(provider_id)


@without(
    14,
    agent={"storage.agents:AgentStore.get_visible": _granted},
    provider={"storage.providers:ProviderStore.get_own": _any_own},
    user={
        "domain.runs.life:_acting": lambda caller, user_id: Caller(
            user_id=user_id or caller.user_id, role="operator", via="bearer"
        )
    },
)
async def a_chat_refers_to_nothing_of_others(place: Place) -> None:
    said_ = {"messages": [{"role": "user", "content": "hello"}]}
    for reference in (
        {"agent_id": place.agent},
        {"llm_model_config": {"provider_id": place.provider}},
        {"llm_model_config": {"llm_provider_id": place.provider}},
        {"user_id": place.owner.id},
    ):
        for path in ("/api/web-stream", "/api/stream"):
            reply = await place.stranger.ask("POST", path, {**said_, **reference})
            assert reply.status in (400, 403, 404), (path, reference)


async def _as_stated(self: Any, caller: Caller, fields: Any) -> str:
    """An agent that is made for whom the body says."""
    return await _REAL_CREATE(self, msgspec.structs.replace(caller, user_id=_STATED[0]), fields)


_REAL_CREATE = Agents.create
_STATED = [""]
SERVER_OWNED = [
    "id",
    "user_id",
    "owner",
    "owner_id",
    "role",
    "status",
    "workspace",
    "created_at",
    "is_system",
    "is_admin",
    "approved",
]


DOCUMENTED_FIELDS = {
    ("agent_create", "id"),
    ("agent_create", "user_id"),
    ("agent_replace", "id"),
    ("agent_replace", "user_id"),
    ("chat_create", "user_id"),
    ("chat_stream", "user_id"),
    ("chat_stream_web", "user_id"),
    ("skill_import", "is_system"),
    ("user_create", "role"),
    ("user_delete", "user_id"),
}


"""Fields of these names that a document has; each is ignored, refused or an administrator's."""


@without(16, owner={"domain.agents:Agents.create": _as_stated})
async def fields_of_the_server_are_not_the_clients(place: Place) -> None:
    _STATED[0] = place.stranger.id
    for operation_id, operation in lane(place).items():
        fields = set(getattr(operation._body_type, "__struct_fields__", ()))
        for name in fields & set(SERVER_OWNED):
            assert (operation_id, name) in DOCUMENTED_FIELDS, (operation_id, name)
    stated = dict.fromkeys(SERVER_OWNED, place.stranger.id)
    made = await place.owner.ask("POST", "/api/agent/create", {**stated, "name": unique("mine")})
    assert made.data["agent_id"] != place.stranger.id
    shown = await place.owner.ask("GET", f"/api/agent/{made.data['agent_id']}")
    assert shown.status == 200
    assert shown.data["user_id"] == place.owner.id
    assert "is_admin" not in shown.data
    again = {**stated, "id": made.data["agent_id"], "name": unique("mine")}
    await place.owner.ask("PUT", f"/api/agent/{made.data['agent_id']}", again)
    shown = await place.owner.ask("GET", f"/api/agent/{made.data['agent_id']}")
    assert shown.data["user_id"] == place.owner.id


@without(17, id={"domain.agents:uuid7": lambda: _STATED[0]})
async def a_post_with_an_id_changes_nothing_that_exists(place: Place) -> None:
    _STATED[0] = place.agent
    for account in (place.stranger, place.owner):
        body = {"id": place.agent, "name": unique("new")}
        made = await account.ask("POST", "/api/agent/create", body)
        assert made.status == 200
        assert made.data["agent_id"] != place.agent
    assert (await place.owner.ask("GET", f"/api/agent/{place.agent}")).data["name"] == "theirs"


async def _nobody_is_protected(
    self: Any, actor: Caller, user_id: str, *, address: str = ""
) -> None:
    await self.get(user_id)


@without(18, protection={"domain.users:Users.delete": _nobody_is_protected})
async def administrators_delete_no_administrator(place: Place) -> None:
    peer = await place.account("peer", "admin")
    for user_id in (peer.id, place.admin.id):
        reply = await place.admin.ask("POST", "/api/user/delete", {"user_id": user_id})
        assert reply.status not in (200, 404), reply
    assert (await peer.ask("GET", "/api/user/config")).http == 200


@without(
    21,
    link={"storage.conversations:ConversationStore.find_shared": _found},
    revoking={"storage.conversations:ConversationStore.unshare": unit_of(False)},
)
async def a_share_shows_one_conversation_until_it_ends(place: Place) -> None:
    shared = f"/api/conversations/{place.session}/share"
    public = "/api/share/conversations/{}/messages"
    for name in (place.session, place.conversation, NOWHERE):
        for asking in (place.ask, place.stranger.ask):
            assert (await asking("GET", public.format(name))).http == 404, name
    share_id = (await place.owner.ask("POST", shared)).data["share_id"]
    assert len(share_id) >= 32
    shown = await place.ask("GET", public.format(share_id))
    assert shown.status == 200
    assert place.conversation.encode() not in shown.body
    assert place.owner.id.encode() not in shown.body
    assert (await place.owner.ask("DELETE", shared)).status == 200
    assert (await place.ask("GET", public.format(share_id))).http == 404
