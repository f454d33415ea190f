"""Logging in with WeChat (document 002, "Auth Module").

The document hands the tokens to the one frontend that the operator names, in the address that the
browser is sent to. Its page fetches the address of WeChat by a script, which leaves no cookie to
bind a login to a browser: the state is good once and for ten minutes, and what the page gave as
`state` comes back to it, so that it can tell a login that it did not begin.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

import msgspec

from domain.errors import Disabled, DomainError, Unauthenticated
from domain.identity.identity import Identity, Login, MakeClaims
from domain.identity.subjects import Subjects
from domain.identity.upstream_providers import Person
from gateways.errors import UpstreamUnavailable, UpstreamUntrusted
from gateways.wechat import WeChatApp, WeChatClient, WeChatPerson
from storage.database import Database
from storage.upstream import UpstreamLogin, UpstreamStore

ID = "wechat"
LOGIN_S = 600

logger = logging.getLogger("quartet.wechat")


class WeChatPolicy(msgspec.Struct, frozen=True):
    """`app` is None where nobody logs in with WeChat. `frontend_url` is the page that gets the
    tokens, `base` where browsers reach this server."""

    app: WeChatApp | None = None
    frontend_url: str = ""
    base: str = ""


class WeChat:
    """Logins with WeChat, of one application."""

    def __init__(
        self,
        database: Database,
        *,
        store: UpstreamStore,
        subjects: Subjects,
        identity: Identity,
        client: WeChatClient,
        policy: WeChatPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._store = store
        self._subjects = subjects
        self._identity = identity
        self._client = client
        self._policy = policy
        self._clock = clock

    async def begin(self, *, state: str, scope: str) -> str:
        """Where a browser goes to log in; `state` comes back to the frontend. Raises
        Disabled("wechat.not_configured")."""
        app = self._app()
        callback = f"{self._policy.base}/sandbox/api/auth/wechat/callback"
        login = UpstreamLogin(
            state=secrets.token_urlsafe(32),
            browser="",
            provider=ID,
            next=state,
            redirect_uri=callback,
            expires_at=self._clock() + LOGIN_S,
        )
        await self._database.write(lambda: self._store.begin(login))
        return self._client.authorize_url(
            app, redirect_uri=callback, scope=scope, state=login.state
        )

    async def finish(
        self,
        *,
        code: str,
        state: str,
        address: str,
        user_agent: str,
        claims: MakeClaims,
        access_ttl_s: int,
    ) -> str:
        """Where the browser goes: the frontend, with tokens or an error, and its own `state`.

        Raises Disabled("wechat.not_configured"): there is no frontend to go to.
        """
        app = self._app()
        now = self._clock()
        began = await self._database.write(
            lambda: self._store.take(state, browser="", provider=ID, now=now)
        )
        given = {"state": began.next} if began is not None and began.next else {}
        try:
            if began is None:
                raise Unauthenticated("upstream.expired")
            login = await self._login(
                app, code, address, user_agent=user_agent, claims=claims, ttl_s=access_ttl_s
            )
        except DomainError as failure:
            logger.info("a login with WeChat failed: %s", failure.key)
            return self._frontend({"error": failure.key.rpartition(".")[2], **given})
        tokens = {
            "access_token": login.access_token,
            "refresh_token": login.refresh_token,
            "token_type": "bearer",
        }
        return self._frontend({**tokens, **given})

    async def _login(
        self,
        app: WeChatApp,
        code: str,
        address: str,
        *,
        user_agent: str,
        claims: MakeClaims,
        ttl_s: int,
    ) -> Login:
        try:
            found = await self._client.person(app, code)
        except UpstreamUnavailable as error:
            logger.warning("%s", error)
            raise Unauthenticated("upstream.unavailable") from error
        except UpstreamUntrusted as error:
            logger.warning("%s", error)
            raise Unauthenticated("upstream.refused") from error
        user = await self._subjects.account(
            _key(app, found), ID, _person(found), admits=True, address=address
        )
        return await self._identity.open_session(
            user,
            via=ID,
            address=address,
            user_agent=user_agent,
            claims=claims,
            access_ttl_s=ttl_s,
        )

    def _app(self) -> WeChatApp:
        if self._policy.app is None:
            raise Disabled("wechat.not_configured")
        return self._policy.app

    def _frontend(self, query: dict[str, str]) -> str:
        where = urlsplit(self._policy.frontend_url)
        joined = "&".join(part for part in (where.query, urlencode(query)) if part)
        return where._replace(query=joined).geturl()


def _key(app: WeChatApp, found: WeChatPerson) -> str:
    """What a person is kept under: an `openid` is one of its application, a `unionid` of all."""
    scope = "" if found.unionid else app.app_id
    return hashlib.sha256(f"wechat {scope}".encode()).hexdigest()


def _person(found: WeChatPerson) -> Person:
    return Person(
        subject=found.unionid or found.openid,
        username=f"wechat-{secrets.token_hex(4)}",
        email=None,
        name=found.nickname[:64] or None,
        picture=found.headimgurl[:512] or None,
    )
