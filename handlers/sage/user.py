"""sage: accounts (document 000, "Authentication and user")."""

from datetime import UTC, datetime
from typing import Any

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage import models
from handlers.sage.auth import role_shown
from handlers.wire import Origin
from storage.users import User


async def list_options(quartet: Quartet) -> list[models.UserOption]:
    return [models.UserOption(label=name, value=id_) for id_, name in await quartet.users.names()]


async def change_password(
    quartet: Quartet, caller: Caller, body: models.PasswordChange, origin: Origin
) -> dict[str, Any]:
    await quartet.users.change_password(
        caller, body.old_password, body.new_password, address=origin.address
    )
    return {}


async def list_(quartet: Quartet, page: int, page_size: int) -> models.UserPage:
    users, total = await quartet.users.page(page, page_size)
    return models.UserPage(items=[_listed(user) for user in users], total=total)


async def create(
    quartet: Quartet, caller: Caller, body: models.UserAddRequest, origin: Origin
) -> models.UserAdded:
    user = await quartet.users.add(
        caller,
        username=body.username,
        password=body.password,
        email=body.email or None,
        phonenum=body.phonenum or None,
        role="admin" if body.role == "admin" else "operator",
        address=origin.address,
    )
    return models.UserAdded(user_id=user.id)


async def delete(
    quartet: Quartet, caller: Caller, body: models.UserDeleteRequest, origin: Origin
) -> dict[str, Any]:
    await quartet.users.delete(caller, body.user_id, address=origin.address)
    return {}


async def get_config(quartet: Quartet, caller: Caller) -> models.UserConfig:
    return models.UserConfig(config=await quartet.users.get_config(caller.user_id))


async def update_config(
    quartet: Quartet, caller: Caller, body: models.UserConfig
) -> models.UserConfig:
    config = await quartet.users.merge_config(caller.user_id, body.config)
    return models.UserConfig(config=config)


def _listed(user: User) -> models.User:
    return models.User(
        user_id=user.id,
        username=user.username,
        email=user.email,
        phonenum=user.phonenum,
        role=role_shown(user.role),
        created_at=datetime.fromtimestamp(user.created_at, UTC).isoformat(),
    )
