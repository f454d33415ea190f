"""Where logging in may lead to (security 46): an allow-list, compared before decoding."""

import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]{1,8192}", re.ASCII)
_BELOW = re.compile(r"(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]*/?)*", re.ASCII)
_OWN = (
    "/",
    "/consent",
    "/oauth2/authorize",
    "/api/oauth2/authorize",
    "/sage/oauth2/authorize",
    "/sage/api/oauth2/authorize",
    "/sage/docs",
    "/sage/redoc",
    "/api/observability/jaeger",
    "/api/observability/jaeger/",
    "/sage/api/observability/jaeger",
    "/sage/api/observability/jaeger/",
)


class Destinations:
    """This server's own pages and what an operator lists (`LOGIN_NEXT`).

    A path is compared as it stands, without its query: an encoded, doubled or dotted spelling of
    an allowed one is not on the list. An entry that ends in a slash allows the plain paths below
    it, too. An entry with a scheme is compared whole.
    """

    def __init__(self, listed: Iterable[str] = (), root: str = "") -> None:
        entries = [*(root + path for path in _OWN), *listed]
        self._root = root
        self._whole = frozenset(entry for entry in entries if "://" in entry)
        self._paths = frozenset(entry for entry in entries if entry.startswith("/"))
        self._folders = tuple(
            entry for entry in self._paths if entry.endswith("/") and entry != f"{root}/"
        )

    def safe(self, wanted: str | None) -> str:
        """`wanted` if it is on the list, else the front page."""
        if wanted and (wanted in self._whole or self._is_own(wanted)):
            return wanted
        return f"{self._root}/"

    def _is_own(self, wanted: str) -> bool:
        path = wanted.partition("?")[0]
        if not _PLAIN.fullmatch(wanted) or path[:1] != "/" or path[1:2] == "/":
            return False
        if path in self._paths:
            return True
        return any(
            path.startswith(folder) and _BELOW.fullmatch(path, len(folder))
            for folder in self._folders
        )
