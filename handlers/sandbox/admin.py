"""sandbox: accounts, for administrators (document 002, "Admin Module")."""

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sandbox import models
from handlers.sandbox.auth import shown
from handlers.wire import Answer, Origin


async def list_users(quartet: Quartet, skip: int, limit: int) -> models.UserListResponse:
    users, total = await quartet.users.slice(skip, limit)
    return models.UserListResponse(users=[shown(user) for user in users], total=total)


async def get_user(quartet: Quartet, user_id: str) -> Answer:
    user = await quartet.users.get(user_id)
    return Answer(shown(user), version=user.version)


async def update_status(
    quartet: Quartet,
    caller: Caller,
    user_id: str,
    body: models.UserStatusUpdateRequest,
    origin: Origin,
    if_match: int | None,
) -> None:
    await quartet.users.set_status(
        caller, user_id, body.status, address=origin.address, version=if_match
    )


async def delete_user(
    quartet: Quartet, caller: Caller, user_id: str, origin: Origin, if_match: int | None
) -> None:
    await quartet.users.delete(caller, user_id, address=origin.address, version=if_match)
