"""Images that a message names by their address, for a model to see."""

import base64
from collections.abc import Awaitable, Callable
from typing import Protocol

from domain.errors import NotFound
from gateways.errors import OutboundFailed, OutboundTooLarge
from gateways.outbound import Outbound

PURPOSE = "image"
MAX_BYTES = 10 * 1024 * 1024
TIMEOUT_S = 20.0
TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})

LoadImage = Callable[[str, str], Awaitable[str]]
"""(whose run it is, an address) → the image as a `data:` URL. Raises GatewayError."""


class OwnImages(Protocol):
    """Images that this server keeps itself."""

    async def read_image(self, user_id: str, url: str, max_bytes: int) -> tuple[str, bytes] | None:
        """Media type and bytes of the image at an address of ours, read with the user's rights;
        None for any other address. Raises NotFound, and ValueError for more than `max_bytes`."""


def loader(outbound: Outbound, *own: OwnImages) -> LoadImage:
    """What reads an image: from this server itself with the rights of the run's owner, else through
    the one outbound client."""

    async def load(user_id: str, url: str) -> str:
        for place in own:
            try:
                kept = await place.read_image(user_id, url, MAX_BYTES)
            except NotFound:
                raise OutboundFailed("this server has no such image") from None
            except ValueError:
                raise OutboundTooLarge(f"the image is larger than {MAX_BYTES} bytes") from None
            if kept is not None:
                return _data_url(*kept)
        found = await outbound.fetch(PURPOSE, url, max_bytes=MAX_BYTES, timeout=TIMEOUT_S)
        if found.status >= 400:
            raise OutboundFailed(f"the address answers {found.status}")
        return _data_url(found.media_type, found.body)

    return load


def _data_url(media_type: str, body: bytes) -> str:
    if media_type not in TYPES:
        raise OutboundFailed("the address holds no image of a known type")
    return f"data:{media_type};base64,{base64.b64encode(body).decode()}"
