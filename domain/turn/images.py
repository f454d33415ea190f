"""Images that a message names by their address, for a model to see."""

import base64
from collections.abc import Awaitable, Callable

from gateways.errors import OutboundFailed
from gateways.outbound import Outbound

PURPOSE = "image"
MAX_BYTES = 10 * 1024 * 1024
TIMEOUT_S = 20.0
TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})


def loader(outbound: Outbound) -> Callable[[str], Awaitable[str]]:
    """What reads an image through the one outbound client and gives it as a `data:` URL. Raises
    OutboundError."""

    async def load(url: str) -> str:
        found = await outbound.fetch(PURPOSE, url, max_bytes=MAX_BYTES, timeout=TIMEOUT_S)
        if found.status >= 400:
            raise OutboundFailed(f"the address answers {found.status}")
        if found.media_type not in TYPES:
            raise OutboundFailed("the address holds no image of a known type")
        return f"data:{found.media_type};base64,{base64.b64encode(found.body).decode()}"

    return load
