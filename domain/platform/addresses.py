"""Addresses that administrators give for everybody."""

import asyncio

from domain.errors import Unusable
from gateways.errors import OutboundFailed, OutboundRefused
from gateways.outbound import Outbound, parse

LOOKUP_S = 5.0
"""How long saving an address waits for its name to resolve."""


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
