"""sage: registration, login, login sessions (document 000, "Authentication and user")."""

from typing import Any

from domain.caller import Caller
from domain.identity.upstream import LOGIN_S
from domain.quartet import Quartet
from domain.system import AuthProvider
from generated.sage import models
from handlers.wire import Answer, Origin, Redirect
from storage.users import User

_NATIVE = {
    "zh": ("账号密码登录", "使用本地账号登录"),
    "en": ("Log in with a password", "Log in with a local account"),
}
_UPSTREAM = {
    "zh": ("使用 {name} 登录", "使用 {name} 账号登录"),
    "en": ("Log in with {name}", "Log in with an account at {name}"),
}
BROWSER = "sage_upstream"
"""The cookie of the browser that a login at a provider belongs to."""


async def send_code(
    quartet: Quartet, body: models.RegistrationCodeRequest, origin: Origin
) -> models.RegistrationCode:
    expires_in, retry_after = await quartet.registration.send_code(
        body.email, language=origin.language
    )
    return models.RegistrationCode(expires_in=expires_in, retry_after=retry_after)


async def register(
    quartet: Quartet, body: models.RegisterRequest, origin: Origin
) -> models.Registered:
    user = await quartet.registration.register(
        username=body.username,
        password=body.password,
        email=body.email or None,
        code=body.verification_code,
        phonenum=body.phonenum or None,
        address=origin.address,
    )
    return models.Registered(user_id=user.id)


async def login(quartet: Quartet, body: models.LoginRequest, origin: Origin) -> Answer:
    login = await quartet.identity.login(
        body.username_or_email,
        body.password,
        address=origin.address,
        user_agent=origin.user_agent,
        claims=shown,
    )
    tokens = models.Tokens(
        access_token=login.access_token,
        refresh_token=login.refresh_token,
        expires_in=login.expires_in,
    )
    return Answer(tokens, session=login.cookie)


async def get_session(quartet: Quartet, caller: Caller) -> models.LoginSession:
    user = await quartet.users.get(caller.user_id)
    has_provider, has_agent = await quartet.users.owns(caller.user_id)
    return models.LoginSession(
        user=models.LoginUser(**shown(user)), has_provider=has_provider, has_agent=has_agent
    )


async def list_providers(quartet: Quartet, origin: Origin) -> list[models.AuthProvider]:
    return [described(provider, origin.language) for provider in quartet.system.providers()]


async def begin_upstream(
    quartet: Quartet, provider_id: str, next: str, redirect_uri: str | None
) -> Redirect:
    begun = await quartet.upstream.begin(provider_id, next=next, redirect_uri=redirect_uri)
    return Redirect(begun.location, cookies=((BROWSER, begun.browser, LOGIN_S),))


async def begin_upstream_default(quartet: Quartet, next: str, redirect_uri: str | None) -> Redirect:
    begun = await quartet.upstream.begin(None, next=next, redirect_uri=redirect_uri)
    return Redirect(begun.location, cookies=((BROWSER, begun.browser, LOGIN_S),))


async def finish_upstream(
    quartet: Quartet,
    provider_id: str,
    state: str,
    code: str | None,
    error: str | None,
    iss: str | None,
    sage_upstream: str | None,
    origin: Origin,
) -> Redirect:
    finished = await quartet.upstream.finish(
        provider_id,
        state=state,
        browser=sage_upstream or "",
        code=code or "",
        error=error or "",
        issuer=iss or "",
        address=origin.address,
        user_agent=origin.user_agent,
    )
    session = finished.login.cookie if finished.login else ""
    return Redirect(finished.location, session=session, cookies=((BROWSER, "", 0),))


async def logout(quartet: Quartet, caller: Caller, origin: Origin) -> Answer:
    await quartet.identity.logout(caller, address=origin.address)
    return Answer({}, end_session=True)


def shown(user: User) -> dict[str, Any]:
    """An account as sage's login session shows it and its access tokens carry it."""
    return {
        "userid": user.id,
        "username": user.username,
        "nickname": user.nickname,
        "phonenum": user.phonenum,
        "email": user.email,
        "role": role_shown(user.role),
        "avatar": user.avatar,
        "avatar_url": user.avatar,
    }


def role_shown(role: str) -> Any:
    """sage knows `admin` and `user`; operators and viewers are users."""
    return "admin" if role == "admin" else "user"


def described(provider: AuthProvider, language: str) -> models.AuthProvider:
    """A way to log in, with what a login page writes on it."""
    texts = (_NATIVE if provider.type == "native" else _UPSTREAM)[language]
    name = provider.name or provider.id
    button_text, description = (text.format(name=name) for text in texts)
    return models.AuthProvider(
        id=provider.id,
        type=provider.type,
        name=name,
        button_text=button_text,
        description=description,
        icon=provider.icon,
    )
