"""Who may call what, by documented.tsv: the oracle that no spec can change (security 1, 5, 13)."""

import time

import pytest

from contracts.client import Client, Reply
from contracts.conftest import URL
from contracts.document import Operation, Row, documented, load
from contracts.sage import SUCCEEDING, World, address, send

CONTRACT = load("sage", URL)
ROWS = {row: CONTRACT.at(row.method, row.path) for row in documented("sage")}
PROTECTED = {
    each.id: each
    for row, each in ROWS.items()
    if each is not None and row.auth in ("user", "admin")
}
EXTENSIONS = {each.id: each for each in CONTRACT.operations.values() if each.raw.get("x-extension")}
PROTECTED.update({name: each for name, each in EXTENSIONS.items() if not each.public})
ADMINS = [each.id for row, each in ROWS.items() if each is not None and row.auth == "admin"]
GRANTED = [each.id for row, each in ROWS.items() if each is not None and row.auth == "oauth2 token"]
PUBLIC = [each.id for row, each in ROWS.items() if each is not None and row.auth == "public"]
ROLES = {"public": "", "user": "user", "admin": "admin", "oauth2 token": "oauth2", "gate": "gate"}
UNREAD = b"\xff" * 3_000_000
"""A body that is too large, of the wrong type and no text: 401 comes before any of it shows."""
EXPIRED = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwOi8vMTI3LjAuMC4xIiwiYXVkIjoicXVhcnRldCIs"
    "InN1YiI6IjEiLCJzaWQiOiIxIiwianRpIjoiMSIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAwMDAxLCJ0eXBl"
    "IjoiYWNjZXNzIn0.c2lnbmF0dXJl"
)
UNSIGNED = (
    "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiIxIiwiYXVkIjoicXVhcnRldCIsInR5cGUiOiJhY2Nlc3Mi"
    "LCJleHAiOjQxMDI0NDQ4MDB9."
)
CREDENTIALS = {
    "none": {},
    "garbage": {"authorization": "Bearer not.a.token"},
    "expired": {"authorization": f"Bearer {EXPIRED}"},
    "unsigned": {"authorization": f"Bearer {UNSIGNED}"},
    "basic": {"authorization": "Basic YWRtaW46YWRtaW4="},
    "cookie": {"cookie": "sage_session=0123456789abcdef0123456789abcdef"},
    "empty": {"authorization": "Bearer ", "cookie": "sage_session="},
    "proxy": {"x-sage-internal-userid": "admin"},
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_every_documented_row_is_an_operation(row: Row) -> None:
    operation = ROWS[row]
    assert operation is not None
    assert operation.public == (row.auth == "public")
    assert operation.role == ROLES[row.auth]


def nowhere(operation: Operation) -> dict[str, str]:
    return {p.name: "nothing" for p in operation.parameters if p.place == "path"}


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("operation_id", PROTECTED)
def test_no_credential_no_answer(operation_id: str, credential: str, anonymous: Client) -> None:
    """401, before the body is read and before anything is looked up."""
    operation = PROTECTED[operation_id]
    reply = anonymous.call(
        operation_id,
        path=nowhere(operation),
        query="page=%ff&page_size=x",
        content=UNREAD if operation.media and credential == "none" else b"{",
        headers={**CREDENTIALS[credential], "content-type": "image/png", "accept": "image/png"},
    )
    assert reply.status == 401
    assert reply.body["data"] is None
    assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("credential", [*CREDENTIALS, "login"])
@pytest.mark.parametrize("operation_id", GRANTED)
def test_a_clients_token_and_no_other(operation_id: str, credential: str, world: World) -> None:
    """What opens everything else opens nothing here, and the other way round."""
    login = {"authorization": f"Bearer {world.owner.client.token}"}
    headers = CREDENTIALS.get(credential, login)
    reply = world.anonymous.call(operation_id, headers={**headers, "accept": "image/png"})
    assert (reply.status, reply.body["error"]) == (401, "invalid_token")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    granted = world.granted(world.owner)
    assert granted.call(operation_id).body["sub"] == world.owner.user_id
    assert granted.call("auth_get_session").status == 401


MAILED = {"auth_register", "auth_register_compat"}
PUBLIC_PARAMS = [
    pytest.param(name, marks=pytest.mark.own_server if name in MAILED else ()) for name in PUBLIC
]


@pytest.mark.parametrize("operation_id", PUBLIC_PARAMS)
def test_public_rows_ask_for_no_credential(operation_id: str, world: World) -> None:
    request = SUCCEEDING[operation_id](world, world.owner)
    assert send(world.anonymous, request).success


@pytest.mark.parametrize("operation_id", PUBLIC_PARAMS)
def test_a_bad_credential_does_not_close_a_public_row(operation_id: str, world: World) -> None:
    request = SUCCEEDING[operation_id](world, world.owner)
    assert send(world.anonymous.holding("not.a.token"), request).success


@pytest.mark.parametrize("operation_id", ADMINS)
def test_administrators_alone(operation_id: str, world: World) -> None:
    """A user and a viewer get code 403, and nothing has happened; an administrator succeeds."""
    request = SUCCEEDING[operation_id](world, world.admin)
    for account in (world.owner, world.viewer):
        reply = send(account.client, request)
        assert (reply.status, reply.body["data"]) == (403, None)
    assert send(world.admin.client, request).success


@pytest.mark.parametrize("operation_id", [n for n, o in PROTECTED.items() if o.writes])
def test_viewers_write_nothing(operation_id: str, world: World) -> None:
    """403, on the owner's thing and on one that is not there alike."""
    operation = PROTECTED[operation_id]
    request = SUCCEEDING[operation_id](world, world.owner)
    replies = [send(world.viewer.client, request)]
    if request.path:
        replies.append(send(world.viewer.client, request, path=nowhere(operation)))
    for reply in replies:
        assert reply.status == 403
    assert len({str(reply.body["message"]) for reply in replies}) == 1


@pytest.mark.parametrize(
    "operation_id", [n for n, o in PROTECTED.items() if not o.writes and o.role == "user"]
)
def test_viewers_read(operation_id: str, world: World) -> None:
    """Reads, and what touches the viewer's own account alone: never 403."""
    if operation_id == "user_change_password":
        # a viewer who is asked for the old password may change it
        body = {"old_password": "not the password", "new_password": "StrongerPassword456"}
        reply = world.viewer.client.call(operation_id, body=body, headers=address())
        assert (reply.status, reply.body["code"]) == (401, 500)
        return
    account = world.new_viewer() if "logout" in operation_id else world.viewer
    if "{session_id}" in PROTECTED[operation_id].path:
        # a viewer has no conversation: what is missing is missing, not forbidden
        reply = account.client.call(operation_id, path={"session_id": "nothing"})
        assert reply.status in (200, 404)
        return
    if "{agent_id}" in PROTECTED[operation_id].path:
        assert (
            account.client.call(
                operation_id, path={"agent_id": "nothing"}, query={"file_path": "nothing"}
            ).status
            == 404
        )
        return
    if operation_id in OF_KNOWLEDGE | OF_SKILLS:
        # a viewer makes no base and no skill either
        request = SUCCEEDING[operation_id](world, world.owner)
        assert send(account.client, request).status in (200, 404)
        return
    assert send(account.client, SUCCEEDING[operation_id](world, account)).success


OF_SKILLS = frozenset({"skill_list_available", "skill_get_content"})
OF_KNOWLEDGE = frozenset(
    n for n in PROTECTED if n.startswith("knowledge_") and n != "knowledge_base_list"
)


def test_logging_out_ends_the_login_everywhere(world: World) -> None:
    """Within a second no protected operation takes the token or the cookie any more."""
    for ending in ("auth_logout", "auth_logout_compat"):
        account = world.account("leaving")
        assert account.client.call("auth_get_session").success
        assert account.client.call(ending).success
        _refused_everywhere(account.client)


def test_a_changed_password_ends_other_logins(world: World) -> None:
    account = world.account("careful")
    other = world.login(account.username, account.password)
    body = {"old_password": account.password, "new_password": "StrongerPassword456"}
    assert account.client.call("user_change_password", body=body).success
    _refused_everywhere(other.client)


def test_a_deleted_account_is_refused_everywhere(world: World) -> None:
    account = world.account("deleted")
    body = {"user_id": account.user_id}
    assert world.admin.client.call("user_delete", body=body).success
    _refused_everywhere(account.client)


def _refused_everywhere(client: Client) -> None:
    until = time.monotonic() + 1.0
    while client.call("auth_get_session").success:
        assert time.monotonic() < until, "the login still holds"
        time.sleep(0.02)
    for operation_id, operation in PROTECTED.items():
        reply: Reply = client.call(operation_id, path=nowhere(operation), headers=address())
        assert reply.status == 401, operation_id


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    "operation_id", [n for n, o in PROTECTED.items() if o.method != "GET" and o.role == "user"]
)
def test_a_cookie_from_another_site_writes_nothing(
    operation_id: str, site: str, world: World, cookie: str
) -> None:
    """Cross-site request forgery: the cookie alone is not enough (security 44)."""
    operation = PROTECTED[operation_id]
    for said in ({"sec-fetch-site": site}, {"origin": "https://evil.example"}):
        reply = world.anonymous.call(
            operation_id,
            path=nowhere(operation),
            body={},
            headers={"cookie": f"sage_session={cookie}", **said},
        )
        assert reply.status == 403


@pytest.fixture(scope="module")
def cookie(world: World) -> str:
    """A login's cookie, of an account of its own."""
    account = world.account("browser")
    body = {"username_or_email": account.username, "password": account.password}
    reply = world.anonymous.call("auth_login", body=body, headers=address())
    name, _, rest = reply.headers["set-cookie"].partition("=")
    assert name == "sage_session"
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in rest.split(";")}
    return rest.partition(";")[0]


def test_the_cookie_is_a_login(world: World, cookie: str) -> None:
    headers = {"cookie": f"sage_session={cookie}"}
    assert world.anonymous.call("auth_get_session", headers=headers).success
    bad = {**headers, "authorization": "Bearer not.a.token"}
    assert world.anonymous.call("auth_get_session", headers=bad).success
