"""Images that a message names by their address, for a model to see."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from domain.errors import NotFound
from gateways.errors import GatewayError, ModelRefused, OutboundFailed, OutboundTooLarge
from gateways.outbound import Outbound

PURPOSE = "image"
MAX_BYTES = 10 * 1024 * 1024
TIMEOUT_S = 20.0
TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})

IMAGES_MAX = 16
CHARACTERS_MAX = 32 * 1024 * 1024
"""Images of one prompt, and the characters of their `data:` URLs: all are in memory at once."""

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


async def with_images(
    messages: list[dict[str, Any]], load: LoadImage, owner_id: str
) -> list[dict[str, Any]]:
    """The messages of a prompt with images in place of their addresses: the latest IMAGES_MAX of
    them, for earlier ones the model has seen. Raises ModelRefused."""
    shown: list[dict[str, Any]] = []
    left, room = IMAGES_MAX, CHARACTERS_MAX
    for message in reversed(messages):
        content = message["content"]
        if not isinstance(content, list):
            shown.append(message)
            continue
        parts = []
        for part in reversed(content):
            if part.get("type") == "image_url":
                if left == 0:
                    parts.append({"type": "text", "text": "[an earlier image]"})
                    continue
                url = await _loaded(part["image_url"]["url"], load, owner_id)
                left, room = left - 1, room - len(url)
                if room < 0:
                    raise ModelRefused(400, "the images are too large together")
                part = {"type": "image_url", "image_url": {"url": url}}
            parts.append(part)
        shown.append({**message, "content": parts[::-1]})
    return shown[::-1]


async def _loaded(url: str, load: LoadImage, owner_id: str) -> str:
    if url.startswith("data:"):
        return url
    try:
        return await load(owner_id, url)
    except GatewayError as error:
        raise ModelRefused(400, f"an image could not be read: {error}") from None


def _data_url(media_type: str, body: bytes) -> str:
    if media_type not in TYPES:
        raise OutboundFailed("the address holds no image of a known type")
    return f"data:{media_type};base64,{base64.b64encode(body).decode()}"
