"""sandbox: registration, login, the own profile (document 002, "Auth Module")."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from domain.caller import Caller
from domain.errors import Unusable
from domain.identity.identity import Login
from domain.quartet import Quartet
from generated.sandbox import models
from handlers.wire import Answer, Origin, Redirect
from storage.users import User

ACCESS_TTL_S = 30 * 60
"""Seconds an access token of this contract lives (rules, "Accounts, roles, tokens")."""


async def register(
    quartet: Quartet, body: models.RegisterRequest, origin: Origin
) -> models.LoginResponse:
    user = await quartet.registration.register_unproven(
        username=body.username or None,
        email=body.email or None,
        password=body.password,
        nickname=body.nickname or None,
        address=origin.address,
    )
    login = await quartet.identity.open_session(
        user,
        via="password",
        address=origin.address,
        user_agent=origin.user_agent,
        claims=claimed,
        access_ttl_s=ACCESS_TTL_S,
    )
    return logged_in(login)


async def login(
    quartet: Quartet, body: models.LoginRequest, origin: Origin
) -> models.LoginResponse:
    name = body.username or body.email
    if not name:
        raise Unusable("registration.unnamed")
    login = await quartet.identity.login(
        name,
        body.password,
        address=origin.address,
        user_agent=origin.user_agent,
        claims=claimed,
        access_ttl_s=ACCESS_TTL_S,
    )
    return logged_in(login)


async def refresh(
    quartet: Quartet, body: models.RefreshTokenRequest, origin: Origin
) -> models.TokenResponse:
    login = await quartet.identity.refresh(
        body.refresh_token, address=origin.address, claims=claimed, access_ttl_s=ACCESS_TTL_S
    )
    return logged_in(login).tokens


async def get_me(quartet: Quartet, caller: Caller) -> Answer:
    user = await quartet.users.get(caller.user_id)
    return Answer(shown(user), version=user.version)


async def update_me(
    quartet: Quartet, caller: Caller, body: models.UpdateUserRequest, if_match: int | None
) -> Answer:
    user = await quartet.users.update_profile(
        caller, nickname=body.nickname or None, avatar=body.avatar or None, version=if_match
    )
    return Answer(shown(user), version=user.version)


async def authorize_wechat(
    quartet: Quartet, state: str | None, scope: str
) -> models.WeChatAuthorization:
    where = await quartet.wechat.begin(state=state or "", scope=scope)
    return models.WeChatAuthorization(authorize_url=where)


async def finish_wechat(quartet: Quartet, code: str, state: str | None, origin: Origin) -> Redirect:
    return Redirect(
        await quartet.wechat.finish(
            code=code,
            state=state or "",
            address=origin.address,
            user_agent=origin.user_agent,
            claims=claimed,
            access_ttl_s=ACCESS_TTL_S,
        )
    )


def logged_in(login: Login) -> models.LoginResponse:
    """A login as every way to log in answers it."""
    tokens = models.TokenResponse(
        access_token=login.access_token,
        refresh_token=login.refresh_token,
        token_type="bearer",  # noqa: S106
    )
    return models.LoginResponse(user=shown(login.user), tokens=tokens)


def claimed(user: User) -> Mapping[str, Any]:
    """What the contract's access tokens say beside the common claims."""
    return {"username": user.username, "role": role_shown(user.role)}


def shown(user: User) -> models.UserResponse:
    return models.UserResponse(
        id=user.id,
        username=user.username,
        email=user.email,
        nickname=user.nickname,
        avatar=user.avatar,
        role=role_shown(user.role),
        status=cast(Any, user.status),
        created_at=datetime.fromtimestamp(user.created_at, UTC).isoformat(),
    )


def role_shown(role: str) -> Any:
    """sandbox knows `super_admin` and `user`; operators and viewers are users."""
    return "super_admin" if role == "admin" else "user"
