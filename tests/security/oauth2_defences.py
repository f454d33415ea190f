"""The defences of the OAuth2 server and of the pages that people log in and agree at."""

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from tests.security import asgi
from tests.security.asgi import Reply
from tests.security.defences import unit_of, without
from tests.security.place import OAUTH_BACK, PASSWORD, Account, Place, fresh_address

VERIFIER = "v" * 60
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)
FORM = {"content-type": "application/x-www-form-urlencoded"}
STORE = "storage.oauth_grants:OAuthGrantStore"


def request(**changes: str | None) -> str:
    """The query of an authorization request; None leaves a parameter out."""
    query = {
        "response_type": "code",
        "client_id": "spa",
        "redirect_uri": OAUTH_BACK,
        "scope": "openid",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return urlencode({name: value for name, value in query.items() if value is not None})


async def authorized(account: Account, **changes: str | None) -> Reply:
    return await account.ask("GET", f"/oauth2/authorize?{request(**changes)}")


async def code_of(account: Account, **changes: str | None) -> str:
    reply = await authorized(account, **changes)
    return parse_qs(urlsplit(reply.headers["location"]).query)["code"][0]


async def exchanged(place: Place, code: str, **changes: str) -> Reply:
    form = {
        "grant_type": "authorization_code",
        "client_id": "spa",
        "code": code,
        "redirect_uri": OAUTH_BACK,
        "code_verifier": VERIFIER,
        **changes,
    }
    return await place.ask("POST", "/oauth2/token", body=urlencode(form).encode(), headers=FORM)


async def refreshed(place: Place, token: str) -> Reply:
    form = {"grant_type": "refresh_token", "client_id": "spa", "refresh_token": token}
    return await place.ask("POST", "/oauth2/token", body=urlencode(form).encode(), headers=FORM)


async def userinfo(place: Place, token: str) -> Reply:
    return await place.ask("GET", "/oauth2/userinfo", headers={"authorization": f"Bearer {token}"})


@without(
    47,
    pkce={"domain.oauth2.clients:Client.needs_pkce": False},
)
async def no_code_without_a_challenge(place: Place) -> None:
    reply = await authorized(place.owner, code_challenge=None, code_challenge_method=None)
    assert "code=" not in reply.headers["location"]


@without(
    47,
    methods={"domain.oauth2.judging:_Pkce.SUPPORTED_CODE_CHALLENGE_METHOD": ("plain", "S256")},
)
async def no_code_for_a_plain_challenge(place: Place) -> None:
    reply = await authorized(place.owner, code_challenge_method="plain")
    assert "code=" not in reply.headers["location"]


@without(
    47,
    verifier={"domain.oauth2.judging:_Pkce.validate_code_verifier": lambda *_: None},
)
async def a_stolen_code_is_worth_nothing(place: Place) -> None:
    reply = await exchanged(place, await code_of(place.owner), code_verifier="w" * 60)
    assert reply.http == 400


def _any_client(self: Any, code: str, client: Any) -> Any:
    from domain.oauth2.judging import _Row

    return _Row(self.request.known.grant)


@without(
    47,
    client={"domain.oauth2.judging:_CodeGrant.query_authorization_code": _any_client},
)
async def a_code_is_its_clients(place: Place) -> None:
    reply = await exchanged(place, await code_of(place.owner), client_id="other")
    assert reply.http == 400


@without(47, once={f"{STORE}.use_code": unit_of(True)})
async def an_authorization_code_is_good_once(place: Place) -> None:
    code = await code_of(place.owner)
    assert (await exchanged(place, code)).http == 200
    assert (await exchanged(place, code)).http == 400


@without(
    47,
    whole={
        "domain.oauth2.clients:Client.check_redirect_uri": lambda self, uri: uri.startswith(
            self.redirect_uris[0]
        )
    },
)
async def a_redirect_uri_is_compared_whole(place: Place) -> None:
    reply = await authorized(place.owner, redirect_uri=f"{OAUTH_BACK}.evil.example")
    assert (reply.http, "location" in reply.headers) == (400, False)


@without(4, once={f"{STORE}.use_refresh": unit_of(True)})
@without(4, family={f"{STORE}.revoke": unit_of(False)})
async def a_refresh_token_that_comes_twice_ends_its_family(place: Place) -> None:
    first = (await exchanged(place, await code_of(place.owner))).json()
    second = (await refreshed(place, first["refresh_token"])).json()
    assert (await refreshed(place, first["refresh_token"])).http == 400
    assert (await refreshed(place, second["refresh_token"])).http == 400
    assert (await userinfo(place, second["access_token"])).http == 401


@without(5, holds={"storage.oauth_grants:Grant.holds": lambda self, now: True})
async def logging_out_ends_what_was_granted(place: Place) -> None:
    leaver = await place.account("leaver")
    tokens = (await exchanged(place, await code_of(leaver))).json()
    assert (await userinfo(place, tokens["access_token"])).http == 200
    assert (await leaver.ask("POST", "/api/auth/logout", {})).http == 200
    assert (await userinfo(place, tokens["access_token"])).http == 401
    assert (await refreshed(place, tokens["refresh_token"])).http == 400


@without(
    46,
    listed={"domain.identity.destinations:Destinations.safe": lambda self, wanted: wanted or "/"},
)
async def a_login_leads_to_our_pages_alone(place: Place) -> None:
    for wanted in ("//evil.example", "https://evil.example/", "/\\evil.example", "/%2f/evil"):
        reply = await place.ask("GET", f"/login?next={quote(wanted, safe='')}")
        assert re.findall(r'data-next="([^"]*)"', reply.body.decode()) == ["/"]


@without(
    46,
    gate={"domain.identity.destinations:Destinations.safe": lambda self, wanted: wanted or "/"},
)
async def the_gate_leads_to_our_pages_alone(place: Place) -> None:
    """The one before Jaeger, for those who are logged in and for those who are not."""
    enter = "/api/observability/jaeger/login"
    for wanted in ("//evil.example", "https://evil.example/", "/\\evil.example", "/%2f/evil"):
        for asking in (place.admin.ask, place.ask):
            reply = await asking("GET", f"{enter}?next={quote(wanted, safe='')}")
            assert reply.http in (302, 307), reply
            assert "evil" not in reply.headers["location"], wanted


@without(44, site={"server.lane.access:Door._same_site": lambda self, headers: None})
async def another_site_agrees_to_nothing(place: Place) -> None:
    someone = await place.account("browsing")
    login = await place.identity.login(someone.username, PASSWORD, address=fresh_address())
    for said in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        reply = await asgi.ask(
            place.application,
            "POST",
            f"/consent?{request(client_id='asks')}",
            body=json.dumps({"allow": True}).encode(),
            headers={
                "content-type": "application/json",
                "cookie": f"sage_session={login.cookie}",
                **said,
            },
        )
        assert reply.http == 403
