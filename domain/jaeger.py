"""The gate before a Jaeger that a proxy serves: administrators alone may look at traces.

The proxy asks `check` before each request to Jaeger (nginx: auth_request); people come in by
`enter`.
"""

from urllib.parse import quote

from domain.caller import Caller
from domain.errors import Forbidden, Unauthenticated, Unavailable
from domain.identity.destinations import Destinations
from domain.system import System

HOME = "/api/observability/jaeger"
_KEPT = "/:@!$&'()*+,;=~-._"
"""What RFC 3986 §3.3 lets stand in a path."""


class JaegerGate:
    """`url` is where browsers reach Jaeger, "" where there is none; `root` the path under which a
    proxy serves this server."""

    def __init__(
        self, system: System, destinations: Destinations, *, url: str, root: str = ""
    ) -> None:
        self._system = system
        self._destinations = destinations
        self._url = url.rstrip("/")
        self._root = root

    async def enter(self, caller: Caller, wanted: str | None) -> str:
        """Where a browser that wants to see `wanted` goes: there, if that is a place of ours and
        the caller an administrator; to the login, if nobody is logged in.

        Raises Forbidden("auth.forbidden"), Unavailable("jaeger.absent").
        """
        self._base()
        if wanted is None or self._destinations.safe(wanted) != wanted:
            wanted = self._root + HOME
        if caller.is_admin:
            return wanted
        if caller.user_id:
            raise Forbidden("auth.forbidden")
        if not (await self._system.info()).has_local_auth:
            raise Unavailable("jaeger.absent")
        return f"{self._root}/sage/login?next={quote(wanted, safe='')}&local_only=1"

    def check(self, caller: Caller) -> None:
        """Raises Unauthenticated("auth.required"), Forbidden("auth.forbidden")."""
        if not caller.user_id:
            raise Unauthenticated("auth.required")
        if not caller.is_admin:
            raise Forbidden("auth.forbidden")

    def location(self, path: str, query: str) -> str:
        """Where Jaeger itself has that path and query (percent-encoded). Raises
        Unavailable("jaeger.absent")."""
        below = f"{self._base()}/{quote(path, safe=_KEPT)}" if path else f"{self._base()}/"
        return f"{below}?{query}" if query else below

    def _base(self) -> str:
        if not self._url:
            raise Unavailable("jaeger.absent")
        return self._url
