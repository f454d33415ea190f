"""Who may call what, by documented.tsv: the oracle that no spec can change (security 1, 5, 13)."""

import time

import pytest

from contracts.client import Client
from contracts.conftest import OPERATIONS, URL, Worlds
from contracts.document import Operation, Row, documented, load
from contracts.parts import address, send
from contracts.sage import World
from contracts.sandbox import World as SandboxWorld
from contracts.subjects import SUBJECTS
from contracts.test_statuses import marks

ROWS = {
    row: load(name, URL).at(row.method, row.path) for name in SUBJECTS for row in documented(name)
}


def operations(*auths: str) -> list[Operation]:
    """The operations of the documented rows with this in the column `auth`."""
    return [each for row, found in ROWS.items() if row.auth in auths for each in found]


def over(found: list[Operation]) -> pytest.MarkDecorator:
    """A test for each of these operations."""
    params = [pytest.param(each, id=each.key, marks=marks(each)) for each in found]
    return pytest.mark.parametrize("operation", params)


EXTENSIONS = [each for each in OPERATIONS if each.raw.get("x-extension") and not each.public]
PROTECTED = [*operations("user", "admin"), *EXTENSIONS]
SAGES = [each for each in PROTECTED if each.contract == "sage"]
GRANTED = [each.id for each in operations("oauth2 token")]
PUBLIC = operations("public")
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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.contract} {row.method} {row.path}")
def test_every_documented_row_is_an_operation(row: Row) -> None:
    assert ROWS[row]
    for operation in ROWS[row]:
        assert operation.public == (row.auth == "public")
        assert operation.role == ROLES[row.auth]


def nowhere(operation: Operation) -> dict[str, str]:
    return {p.name: "nothing" for p in operation.parameters if p.place == "path"}


@pytest.mark.parametrize("credential", CREDENTIALS)
@over(PROTECTED)
def test_no_credential_no_answer(operation: Operation, credential: str, worlds: Worlds) -> None:
    """401, before the body is read and before anything is looked up."""
    reply = worlds(operation.contract).anonymous.call(
        operation.id,
        path=nowhere(operation),
        query="page=%ff&page_size=x",
        content=UNREAD if operation.media and credential == "none" else b"{",
        headers={**CREDENTIALS[credential], "content-type": "image/png", "accept": "image/png"},
    )
    assert (reply.status, reply.http) == (401, 401)
    SUBJECTS[operation.contract].assert_refused(reply)
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


@over(PUBLIC)
def test_public_rows_ask_for_no_credential(operation: Operation, worlds: Worlds) -> None:
    world = worlds(operation.contract)
    assert send(world.anonymous, world.request(operation.id, world.owner)).success


@over(PUBLIC)
def test_a_bad_credential_does_not_close_a_public_row(operation: Operation, worlds: Worlds) -> None:
    world = worlds(operation.contract)
    request = world.request(operation.id, world.owner)
    assert send(world.anonymous.holding("not.a.token"), request).success


@over(operations("admin"))
def test_administrators_alone(operation: Operation, worlds: Worlds) -> None:
    """A user and a viewer get code 403, and nothing has happened; an administrator succeeds."""
    world = worlds(operation.contract)
    request = world.request(operation.id, world.admin)
    for account in (world.owner, world.viewer):
        reply = send(account.client, request)
        assert reply.status == 403
        SUBJECTS[operation.contract].assert_refused(reply, soft=reply.http == 200)
    assert send(world.admin.client, request).success


@over([each for each in PROTECTED if each.writes])
def test_viewers_write_nothing(operation: Operation, worlds: Worlds) -> None:
    """403, on the owner's thing and on one that is not there alike."""
    world = worlds(operation.contract)
    request = world.request(operation.id, world.owner)
    replies = [send(world.viewer.client, request)]
    if request.path:
        replies.append(send(world.viewer.client, request, path=nowhere(operation)))
    for reply in replies:
        assert reply.status == 403
    message = SUBJECTS[operation.contract].message
    assert len({str(reply.body[message]) for reply in replies}) == 1


@over([each for each in PROTECTED if not each.writes and each.role == "user"])
def test_viewers_read(operation: Operation, worlds: Worlds) -> None:
    """Reads, and what touches the viewer's own account alone: never 403."""
    world = worlds(operation.contract)
    if operation.key == "sage.user_change_password":
        # a viewer who is asked for the old password may change it
        body = {"old_password": "not the password", "new_password": "StrongerPassword456"}
        reply = world.viewer.client.call(operation.id, body=body, headers=address())
        assert (reply.status, reply.body["code"]) == (401, 500)
        return
    account = world.new_viewer() if operation.id in world.spent else world.viewer
    if nowhere(operation):
        # a viewer has no conversation: what is missing is missing, not forbidden
        request = world.request(operation.id, world.owner)
        reply = send(account.client, request, path=nowhere(operation))
        assert reply.status in (200, 404)
        return
    if operation.key in OF_NO_VIEWERS:
        request = world.request(operation.id, world.owner)
        assert send(account.client, request).status in (200, 404)
        return
    assert send(account.client, world.request(operation.id, account)).success


OF_NO_VIEWERS = frozenset(
    {
        "sage.skill_list_available",
        "sage.skill_get_content",
        *(
            each.key
            for each in SAGES
            if each.id.startswith("knowledge_") and each.id != "knowledge_base_list"
        ),
    }
)
"""What asks in a query or a body for a thing that a viewer cannot make."""


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


def test_a_refresh_token_used_twice_ends_its_login(sandbox: SandboxWorld) -> None:
    """A token is good once; whoever has it a second time may have stolen it."""
    account = sandbox.account("robbed")
    other = sandbox.login(account.username, account.password)
    stolen = sandbox.tokens(account.username, account.password)["refresh_token"]
    body = {"refresh_token": stolen}
    first = sandbox.anonymous.call("auth_refresh", body=body, headers=address())
    assert first.success
    client = sandbox.anonymous.holding(first.data["access_token"])
    assert client.call("auth_get_me").success
    again = sandbox.anonymous.call("auth_refresh", body=body, headers=address())
    assert (again.http, again.status) == (200, 401)
    _refused_everywhere(client)
    body = {"refresh_token": first.data["refresh_token"]}
    assert sandbox.anonymous.call("auth_refresh", body=body, headers=address()).status == 401
    assert other.client.call("auth_get_me").success, "another login of the account ended too"


def test_a_login_is_good_in_every_contract(world: World, sandbox: SandboxWorld) -> None:
    """Its token is; sage's cookie is sage's alone (rules, "Accounts, roles, tokens")."""
    sages, sandboxes = world.account("traveller"), sandbox.account("traveller")
    shown = sandbox.anonymous.holding(sages.client.token).call("auth_get_me").data
    assert (shown["id"], shown["role"]) == (sages.user_id, "user")
    shown = world.anonymous.holding(sandboxes.client.token).call("auth_get_session").data
    assert shown["user"]["userid"] == sandboxes.user_id
    admins = sandbox.anonymous.holding(world.admin.client.token).call("auth_get_me").data
    assert admins["role"] == "super_admin"
    login = send(world.anonymous, world.login_request(sages.username, sages.password))
    cookie = {"cookie": login.headers["set-cookie"].partition(";")[0]}
    assert world.anonymous.call("auth_get_session", headers=cookie).success
    assert sandbox.anonymous.call("auth_get_me", headers=cookie).status == 401


def _refused_everywhere(client: Client) -> None:
    """By every protected operation of the client's contract."""
    name = client.contract.name
    look = {"sage": "auth_get_session", "sandbox": "auth_get_me"}[name]
    until = time.monotonic() + 1.0
    while client.call(look).success:
        assert time.monotonic() < until, "the login still holds"
        time.sleep(0.02)
    for operation in PROTECTED:
        if operation.contract == name:
            reply = client.call(operation.id, path=nowhere(operation), headers=address())
            assert reply.status == 401, operation.key


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@over([each for each in SAGES if each.method != "GET" and each.role == "user"])
def test_a_cookie_from_another_site_writes_nothing(
    operation: Operation, site: str, world: World, cookie: str
) -> None:
    """Cross-site request forgery: the cookie alone is not enough (security 44)."""
    for said in ({"sec-fetch-site": site}, {"origin": "https://evil.example"}):
        reply = world.anonymous.call(
            operation.id,
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
