"""The names and attributes of this server's cookies."""

from collections.abc import Mapping


class Cookies:
    """Cookies for this host alone, hidden from scripts, sent along when another site links here.

    Over https a name carries `__Host-` on the wire: bound to this host and path (RFC 6265bis
    §4.1.3). Handlers and specs say it without.
    """

    def __init__(self, *, secure: bool) -> None:
        self._prefix = "__Host-" if secure else ""
        self._attributes = "Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    def name(self, name: str) -> str:
        """What browsers call it."""
        return self._prefix + name

    def header(self, name: str, value: str, age: int) -> tuple[bytes, bytes]:
        """Sets a cookie for `age` seconds; an empty value clears it."""
        lasts = age if value else 0
        said = f"{self.name(name)}={value}; Max-Age={lasts}; {self._attributes}"
        return (b"set-cookie", said.encode())

    def read(self, headers: Mapping[bytes, bytes], name: str) -> str | None:
        """The value that a request carries, the first of several."""
        wanted = self.name(name).encode() + b"="
        for part in headers.get(b"cookie", b"").split(b";"):
            part = part.strip()
            if part.startswith(wanted):
                return part[len(wanted) :].decode("latin-1")
        return None
