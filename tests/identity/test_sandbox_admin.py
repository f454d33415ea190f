"""sandbox, /api/admin/users, over a real server (document 002, "Admin Module")."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.serving import Server, serving

ADMIN = {"username": "admin", "password": "Administrator-password-1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = {
        "ADMIN_PASSWORD": ADMIN["password"],
        "DEFAULT_PROVIDER": "embedded/script",
        "LOGIN_RATE": "10000/minute",
    }
    with serving(tmp_path_factory.mktemp("admin") / "data", given=given) as made:
        yield made


class People:
    """Clients of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._made: list[httpx.Client] = []

    def client(self, route: str, body: dict[str, Any]) -> tuple[httpx.Client, dict[str, Any]]:
        made = httpx.Client(base_url=f"{self.server.url}/sandbox", timeout=20)
        self._made.append(made)
        answer = made.post(f"/api/auth/{route}", json=body).json()
        assert answer["code"] == 200, answer
        made.headers["authorization"] = f"Bearer {answer['data']['tokens']['access_token']}"
        return made, answer["data"]["user"]

    def admin(self) -> httpx.Client:
        return self.client("login", ADMIN)[0]

    def user(self, name: str) -> tuple[httpx.Client, dict[str, Any]]:
        return self.client("register", {"username": name, "password": "password123"})

    def close(self) -> None:
        for each in self._made:
            each.close()


@pytest.fixture
def people(server: Server) -> Iterator[People]:
    made = People(server)
    yield made
    made.close()


def own_id(client: httpx.Client) -> str:
    found: str = client.get("/api/auth/me").json()["data"]["id"]
    return found


def other_admin(people: People, admin: httpx.Client, name: str) -> str:
    """Another administrator, made through sage: one account works everywhere."""
    made = admin.post(
        f"{people.server.url}/sage/api/user/add",
        json={"username": name, "password": "password123", "role": "admin"},
    )
    found: str = made.json()["data"]["user_id"]
    return found


def test_accounts_are_listed_in_slices(people: People) -> None:
    admin = people.admin()
    names = [f"listed-{number}" for number in range(3)]
    for name in names:
        people.user(name)
    page = admin.get("/api/admin/users", params={"skip": 1, "limit": 2}).json()["data"]
    assert [user["username"] for user in page["users"]] == ["listed-1", "listed-0"]
    assert page["total"] >= 4
    whole = admin.get("/api/admin/users").json()["data"]
    assert len(whole["users"]) == whole["total"]
    beyond = admin.get("/api/admin/users", params={"skip": 10_000}).json()["data"]
    assert beyond == {"users": [], "total": whole["total"]}
    assert admin.get("/api/admin/users", params={"limit": 0}).status_code == 422


def test_an_account_is_shown(people: People) -> None:
    admin = people.admin()
    _, user = people.user("shown")
    assert admin.get(f"/api/admin/users/{user['id']}").json()["data"] == user
    missing = admin.get("/api/admin/users/nobody")
    assert (missing.status_code, missing.json()["code"]) == (200, 404)
    assert missing.json()["data"] is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/admin/users"),
        ("GET", "/api/admin/users/{id}"),
        ("PUT", "/api/admin/users/{id}/status"),
        ("DELETE", "/api/admin/users/{id}"),
    ],
)
def test_a_user_is_no_administrator(people: People, method: str, path: str) -> None:
    client, user = people.user(f"plain-{time.time_ns()}")
    refused = client.request(method, path.format(id=user["id"]), json={"status": "active"})
    assert (refused.status_code, refused.json()["code"]) == (403, 403)
    assert refused.json()["data"] == {}


def test_status_and_deletion_have_their_rules(people: People) -> None:
    admin = people.admin()
    own, peer = own_id(admin), other_admin(people, admin, f"peer-{time.time_ns()}")

    def codes(user_id: str) -> tuple[int, int]:
        status = admin.put(f"/api/admin/users/{user_id}/status", json={"status": "inactive"})
        deleted = admin.delete(f"/api/admin/users/{user_id}")
        assert (status.status_code, deleted.status_code) == (200, 200)
        return status.json()["code"], deleted.json()["code"]

    assert codes(own) == (400, 400)
    assert codes(peer) == (403, 403)
    assert codes("nobody") == (404, 404)
    _, user = people.user(f"odd-{time.time_ns()}")
    odd = admin.put(f"/api/admin/users/{user['id']}/status", json={"status": "asleep"})
    assert (odd.status_code, odd.json()["code"]) == (200, 400)
    assert admin.get(f"/api/admin/users/{user['id']}").json()["data"]["status"] == "active"


@pytest.mark.parametrize("status", ["inactive", "banned"])
def test_who_is_shut_out_is_out_and_may_come_back(people: People, status: str) -> None:
    admin = people.admin()
    name = f"out-{status}-{time.time_ns()}"
    client, user = people.user(name)
    path = f"/api/admin/users/{user['id']}/status"
    assert admin.put(path, json={"status": status}).json()["code"] == 200
    assert client.get("/api/auth/me").status_code == 401
    again = client.post("/api/auth/login", json={"username": name, "password": "password123"})
    assert (again.status_code, again.json()["code"]) == (200, 401)
    assert admin.put(path, json={"status": "active"}).json()["code"] == 200
    people.client("login", {"username": name, "password": "password123"})


def test_a_ban_ends_streams_and_what_runs_behind_them(people: People) -> None:
    """The stream is cut without its end, and the run is over when it is looked at again."""
    admin = people.admin()
    name = f"busy-{time.time_ns()}"
    client, user = people.user(name)
    sage = f"{people.server.url}/sage"
    say = "script:" + json.dumps([{"tokens": 10_000, "every_ms": 20}])
    body = {"messages": [{"role": "user", "content": say}], "session_id": "busy"}
    with client.stream("POST", f"{sage}/api/web-stream", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        path = f"/api/admin/users/{user['id']}/status"
        assert admin.put(path, json={"status": "banned"}).json()["code"] == 200
        banned = time.monotonic()
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in lines:
                pass
        assert time.monotonic() - banned < 5
    assert admin.put(path, json={"status": "active"}).json()["code"] == 200
    back, _ = people.client("login", {"username": name, "password": "password123"})
    resumed = back.get(f"{sage}/api/stream/resume/busy")
    assert json.loads(resumed.text.splitlines()[-1])["type"] == "stream_end"


def test_a_deleted_account_is_gone_with_what_it_had(people: People) -> None:
    admin = people.admin()
    client, user = people.user(f"leaving-{time.time_ns()}")
    agent = client.post(f"{people.server.url}/sage/api/agent/create", json={"name": "Clerk"})
    assert agent.json()["code"] == 200, agent.text
    assert admin.delete(f"/api/admin/users/{user['id']}").json() == {
        "code": 200,
        "msg": "success",
        "data": None,
    }
    assert client.get("/api/auth/me").status_code == 401
    assert admin.get(f"/api/admin/users/{user['id']}").json()["code"] == 404
    agents = admin.get(f"{people.server.url}/sage/api/agent/list").json()["data"]
    assert user["id"] not in json.dumps(agents)


def test_a_change_may_be_meant_for_one_version(people: People) -> None:
    """If-Match on what an ETag was given for (RFC 9110 §13.1.1)."""
    admin = people.admin()
    client, user = people.user(f"versions-{time.time_ns()}")
    path = f"/api/admin/users/{user['id']}"
    old = admin.get(path).headers["etag"]
    assert client.get("/api/auth/me").headers["etag"] == old
    assert admin.get(path, headers={"if-none-match": old}).status_code == 304
    changed = client.put("/api/auth/me", json={"nickname": "New"}, headers={"if-match": old})
    assert changed.json()["data"]["nickname"] == "New"
    assert (
        admin.get(path, headers={"if-none-match": old}).headers["etag"] == changed.headers["etag"]
    )
    late = {"if-match": old}
    for refused in (
        client.put("/api/auth/me", json={"nickname": "Late"}, headers=late),
        admin.put(f"{path}/status", json={"status": "banned"}, headers=late),
        admin.delete(path, headers=late),
    ):
        assert (refused.status_code, refused.json()["code"]) == (412, 412)
    assert client.get("/api/auth/me").json()["data"]["nickname"] == "New"
    assert admin.delete(path, headers={"if-match": changed.headers["etag"]}).status_code == 200
