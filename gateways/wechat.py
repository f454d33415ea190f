"""WeChat's login for web pages ("网页授权": developers.weixin.qq.com, OA, Web page authorization).

It is OAuth 2 with names of its own: the answer to a bad request is HTTP 200 with an `errcode`, the
credentials of the application go into the query, and whoever logs in is an `openid`, which is one
of this application, or a `unionid`, which is the same in all applications of its owner.
"""

from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from gateways.errors import OutboundError, UpstreamUnavailable, UpstreamUntrusted
from gateways.outbound import Outbound

PURPOSE = "oauth"
MAX_BYTES = 64 * 1024
TIMEOUT_S = 10.0
T = TypeVar("T")


class WeChatApp(msgspec.Struct, frozen=True):
    """An application as WeChat knows it, and WeChat's addresses."""

    app_id: str
    secret: str
    authorize_url: str = "https://open.weixin.qq.com/connect/oauth2/authorize"
    api_url: str = "https://api.weixin.qq.com"

    def __repr__(self) -> str:
        """Without the secret."""
        return f"WeChatApp({self.app_id!r})"


class WeChatPerson(msgspec.Struct, frozen=True):
    """Who logged in; name and picture are "" where they were not asked for (`snsapi_base`)."""

    openid: str
    unionid: str = ""
    nickname: str = ""
    headimgurl: str = ""


class _Token(msgspec.Struct, frozen=True):
    openid: str = ""
    access_token: str = ""
    scope: str = ""
    unionid: str = ""
    errcode: int = 0


class _Info(msgspec.Struct, frozen=True):
    openid: str = ""
    unionid: str = ""
    nickname: str = ""
    headimgurl: str = ""
    errcode: int = 0


class WeChatClient:
    """Asks WeChat about logins of an application."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    def authorize_url(self, app: WeChatApp, *, redirect_uri: str, scope: str, state: str) -> str:
        """Where a browser asks for a login. WeChat wants the parameters in this order, and the
        fragment."""
        asked = (
            ("appid", app.app_id),
            ("redirect_uri", redirect_uri),
            ("response_type", "code"),
            ("scope", scope),
            ("state", state),
        )
        return f"{app.authorize_url}?{urlencode(asked, quote_via=quote)}#wechat_redirect"

    async def person(self, app: WeChatApp, code: str) -> WeChatPerson:
        """Who a code stands for. Raises UpstreamUnavailable; UpstreamUntrusted where WeChat does
        not take the code, or tells of somebody else."""
        token = await self._ask(
            app,
            "oauth2/access_token",
            _Token,
            appid=app.app_id,
            secret=app.secret,
            code=code,
            grant_type="authorization_code",
        )
        if token.errcode or not token.openid or not token.access_token:
            raise UpstreamUntrusted(f"WeChat does not take the code (errcode {token.errcode})")
        if "snsapi_userinfo" not in token.scope.split(","):
            return WeChatPerson(token.openid, token.unionid)
        info = await self._ask(
            app,
            "userinfo",
            _Info,
            access_token=token.access_token,
            openid=token.openid,
            lang="zh_CN",
        )
        if info.errcode or info.openid != token.openid:
            raise UpstreamUntrusted(f"WeChat tells of nobody (errcode {info.errcode})")
        unionid = info.unionid or token.unionid
        return WeChatPerson(info.openid, unionid, info.nickname, info.headimgurl)

    async def _ask(self, app: WeChatApp, route: str, type_: type[T], **query: str) -> T:
        url = f"{app.api_url.rstrip('/')}/sns/{route}?{urlencode(query)}"
        try:
            answer = await self._outbound.fetch(
                PURPOSE, url, max_bytes=MAX_BYTES, timeout=TIMEOUT_S
            )
        except OutboundError as error:
            # What failed may name the address, which holds the secret.
            raise UpstreamUnavailable(f"WeChat: {type(error).__name__}") from None
        if answer.status != 200:
            raise UpstreamUnavailable(f"WeChat answers HTTP {answer.status}")
        try:
            return msgspec.json.decode(answer.body, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamUntrusted("WeChat's answer is not what it documents") from error
