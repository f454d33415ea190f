"""Addresses that administrators give for everybody."""

import asyncio
import re
import string

from domain.errors import Unusable
from gateways.errors import OutboundFailed, OutboundRefused
from gateways.outbound import Outbound, literal, parse, target

LOOKUP_S = 5.0
"""How long saving an address waits for its name to resolve."""
_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")


async def checked(outbound: Outbound, purpose: str, url: str) -> str:
    """An address that may be connected to; a name that does not resolve is left to the connection,
    which then fails. Raises Unusable: platform.address_invalid, platform.address_refused."""
    url = url.strip()
    try:
        if parse(url).fragment:
            raise Unusable("platform.address_invalid")
    except OutboundRefused:
        raise Unusable("platform.address_invalid") from None
    try:
        async with asyncio.timeout(LOOKUP_S):
            await outbound.check(purpose, url)
    except OutboundRefused:
        raise Unusable("platform.address_refused") from None
    except (OutboundFailed, TimeoutError):
        pass
    return url


def normalised(url: str) -> str:
    """An address in one spelling of those that mean the same (RFC 3986 §6.2.2, §6.2.3): case of
    scheme and host, the scheme's own port, needless escapes, dot segments. Raises
    OutboundRefused."""
    parse(url)  # as it is: unescaping must not make an address of what is none
    place = target(_ESCAPE.sub(_unescaped, url))
    host = str(literal(place.host) or place.host)
    host = f"[{host}]" if ":" in host else host
    port = "" if place.port == _PORTS[place.scheme] else f":{place.port}"
    return f"{place.scheme}://{host}{port}{place.path.decode()}"


def _unescaped(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if character in _UNRESERVED else escape[0].upper()
