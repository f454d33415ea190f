"""sage: the gate before Jaeger (document, "observability/jaeger")."""

from urllib.parse import quote

from domain.caller import Caller
from domain.quartet import Quartet
from handlers.wire import Answer, Origin, Redirect


async def login(quartet: Quartet, caller: Caller, next: str | None) -> Redirect:
    return Redirect(await quartet.jaeger.enter(caller, next))


async def check(quartet: Quartet, caller: Caller) -> Answer:
    quartet.jaeger.check(caller)
    return Answer(
        headers=(
            ("X-Sage-UserId", caller.user_id),
            ("X-Sage-Username", quote(caller.username, safe="!#$&'()*+,/:;=?@[]~")),
            ("X-Sage-Role", caller.role),
        )
    )


async def redirect(quartet: Quartet, origin: Origin) -> Redirect:
    return Redirect(quartet.jaeger.location("", origin.query))


async def redirect_path(quartet: Quartet, full_path: str, origin: Origin) -> Redirect:
    return Redirect(quartet.jaeger.location(full_path, origin.query))
