"""Logging in with WeChat, against a local stand-in that speaks its protocol (document 002, "Auth
Module"; contract sandbox §2)."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.sandbox_people import SETTINGS, People, people_of, unique
from tests.serving import Server, serving

SECRET = "wechat-secret-0123456789"
FRONTEND = "https://front.example.com/login?from=wechat#done"


class WeChat:
    """People by the codes that they were given; each code is good once."""

    def __init__(self) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.asked: list[dict[str, str]] = []
        self.status = 200
        self.url = ""

    def code(self, **person: Any) -> str:
        code = unique("code")
        self.people[code] = {"openid": unique("open"), "scope": "snsapi_userinfo", **person}
        return code

    def token(self, query: dict[str, str]) -> dict[str, Any]:
        if (query["appid"], query["secret"]) != ("wx1", SECRET):
            return {"errcode": 40125, "errmsg": "invalid appsecret"}
        person = self.people.pop(query["code"], None)
        if person is None or query["grant_type"] != "authorization_code":
            return {"errcode": 40029, "errmsg": "invalid code"}
        self.people[f"token-{query['code']}"] = person
        told = {name: person[name] for name in ("openid", "scope")}
        return {**told, "access_token": f"token-{query['code']}", "expires_in": 7200}

    def userinfo(self, query: dict[str, str]) -> dict[str, Any]:
        person = self.people.get(query["access_token"])
        if person is None or person["openid"] != query["openid"]:
            return {"errcode": 40003, "errmsg": "invalid openid"}
        return {name: value for name, value in person.items() if name != "scope"}


@pytest.fixture(scope="module")
def wechat() -> Iterator[WeChat]:
    made = WeChat()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(where.query).items()}
            made.asked.append(query)
            known = {"/sns/oauth2/access_token": made.token, "/sns/userinfo": made.userinfo}
            body = json.dumps(known[where.path](query)).encode()
            self.send_response(made.status)
            self.send_header("content-type", "text/plain")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def server(wechat: WeChat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = {
        **SETTINGS,
        "WECHAT_APP_ID": "wx1",
        "WECHAT_APP_SECRET": SECRET,
        "WECHAT_FRONTEND_URL": FRONTEND,
        "WECHAT_API_URL": wechat.url,
        "OUTBOUND_ALLOW": "oauth=127.0.0.1/32",
        "LOG_LEVEL": "debug",
    }
    with serving(tmp_path_factory.mktemp("wechat") / "data", given=given) as made:
        yield made


@pytest.fixture
def people(server: Server) -> Iterator[People]:
    with people_of(server) as made:
        yield made


def begun(server: Server, **query: str) -> dict[str, str]:
    """What a browser would ask WeChat for."""
    answer = httpx.get(f"{server.url}/sandbox/api/auth/wechat/authorize", params=query)
    assert answer.json()["code"] == 200, answer.text
    where = urlsplit(answer.json()["data"]["authorize_url"])
    assert where.geturl().startswith(
        "https://open.weixin.qq.com/connect/oauth2/authorize?appid=wx1&"
    )
    assert where.fragment == "wechat_redirect"
    return {name: values[0] for name, values in parse_qs(where.query).items()}


def back(server: Server, code: str, state: str) -> dict[str, str]:
    """What the frontend is told when a browser comes back."""
    answer = httpx.get(
        f"{server.url}/sandbox/api/auth/wechat/callback", params={"code": code, "state": state}
    )
    assert answer.status_code == 307
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    where = urlsplit(answer.headers["location"])
    assert (where.scheme, where.netloc, where.path) == ("https", "front.example.com", "/login")
    assert where.fragment == "done"
    told = {name: values[0] for name, values in parse_qs(where.query).items()}
    assert told.pop("from") == "wechat"
    return told


def me(server: Server, told: dict[str, str]) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {told['access_token']}"}
    found: dict[str, Any] = httpx.get(f"{server.url}/sandbox/api/auth/me", headers=headers).json()[
        "data"
    ]
    return found


def test_a_person_gets_an_account_and_comes_back_to_it(server: Server, wechat: WeChat) -> None:
    asked = begun(server, state="of-the-page")
    assert asked["response_type"] == "code"
    assert asked["scope"] == "snsapi_userinfo"
    assert asked["redirect_uri"] == f"{server.url}/sandbox/api/auth/wechat/callback"
    assert asked["state"] != "of-the-page"
    person = {"openid": unique("open"), "nickname": "小明", "headimgurl": "https://img.test/1"}
    told = back(server, wechat.code(**person), asked["state"])
    assert told.keys() == {"access_token", "refresh_token", "token_type", "state"}
    assert (told["token_type"], told["state"]) == ("bearer", "of-the-page")
    first = me(server, told)
    assert (first["nickname"], first["avatar"], first["role"]) == (
        "小明",
        "https://img.test/1",
        "user",
    )
    assert first["email"] is None
    again = back(server, wechat.code(**person), begun(server)["state"])
    assert "state" not in again
    assert me(server, again)["id"] == first["id"]
    renewed = httpx.post(
        f"{server.url}/sandbox/api/auth/refresh", json={"refresh_token": again["refresh_token"]}
    )
    assert renewed.json()["code"] == 200


def test_a_unionid_is_the_person_whatever_the_openid(server: Server, wechat: WeChat) -> None:
    union = unique("union")
    one, two = (
        me(server, back(server, wechat.code(unionid=union), begun(server)["state"]))
        for _ in range(2)
    )
    other = me(server, back(server, wechat.code(), begun(server)["state"]))
    assert one["id"] == two["id"] != other["id"]


def test_without_consent_there_is_no_name(server: Server, wechat: WeChat) -> None:
    asked = begun(server, scope="snsapi_base")
    assert asked["scope"] == "snsapi_base"
    wechat.asked.clear()
    code = wechat.code(scope="snsapi_base", nickname="hidden")
    found = me(server, back(server, code, asked["state"]))
    assert found["nickname"] is None
    assert len(wechat.asked) == 1


def test_a_state_is_given_out_and_good_once(server: Server, wechat: WeChat) -> None:
    state = begun(server, state="mine")["state"]
    assert "access_token" in back(server, wechat.code(), state)
    for wrong in (state, "never-given", "", "mine"):
        assert back(server, wechat.code(), wrong) == {"error": "expired"}


def test_what_wechat_says_no_to_is_told(server: Server, wechat: WeChat) -> None:
    assert back(server, "no-such-code", begun(server, state="s")["state"]) == {
        "error": "refused",
        "state": "s",
    }
    wechat.status = 500
    try:
        told = back(server, wechat.code(), begun(server)["state"])
    finally:
        wechat.status = 200
    assert told == {"error": "unavailable"}


def test_who_is_banned_gets_no_tokens(server: Server, wechat: WeChat, people: People) -> None:
    person = {"openid": unique("open")}
    found = me(server, back(server, wechat.code(**person), begun(server)["state"]))
    people.admin().data("PUT", f"/api/admin/users/{found['id']}/status", json={"status": "banned"})
    assert back(server, wechat.code(**person), begun(server)["state"]) == {"error": "inactive"}


def test_closed_registration_holds_here_too(server: Server, wechat: WeChat, people: People) -> None:
    admin = people.admin().client
    url = f"{server.url}/sage/api/system/update_settings"
    assert admin.post(url, json={"allow_registration": False}).json()["code"] == 200
    try:
        told = back(server, wechat.code(), begun(server)["state"])
    finally:
        admin.post(url, json={"allow_registration": True})
    assert told == {"error": "closed"}


def test_no_secret_is_logged(server: Server, wechat: WeChat) -> None:
    told = back(server, wechat.code(), begun(server)["state"])
    logged = server.logged()
    for secret in (SECRET, told["access_token"], told["refresh_token"]):
        assert secret not in logged


def test_where_it_is_not_configured_it_says_so(without_frontend: Server) -> None:
    base = f"{without_frontend.url}/sandbox/api/auth/wechat"
    for answer in (
        httpx.get(f"{base}/authorize"),
        httpx.get(f"{base}/callback", params={"code": "c", "state": "s"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (200, 500)
        assert answer.json()["data"] is None


@pytest.fixture
def without_frontend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = {**SETTINGS, "WECHAT_APP_ID": "wx1", "WECHAT_APP_SECRET": SECRET}
    with serving(tmp_path_factory.mktemp("none") / "data", given=given) as made:
        yield made
