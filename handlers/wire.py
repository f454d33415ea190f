"""What a handler may return besides plain data, and what it may learn about the wire.

Neither names the web framework: the request lane (server/lane) turns these into responses.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, BinaryIO, Protocol

import msgspec

CHUNK = 1024 * 1024


class Origin(msgspec.Struct, frozen=True):
    """Where a request came from. A handler that names an `origin` parameter receives it.

    `address` is the client's address after trusted proxies were taken off; `language` is "zh" or
    "en"; `idempotency_key` is "" when the header is absent. `authorization` is the header as sent,
    for operations that read credentials of another kind than the lane does; `query` is the query as
    sent, for those that pass it on.
    """

    address: str
    language: str = "zh"
    user_agent: str = ""
    idempotency_key: str = ""
    last_event_id: str = ""
    authorization: str = ""
    query: str = ""


class Answer(msgspec.Struct):
    """Data together with an effect on the wire.

    `session` is the opaque id of a new login session, to be set as the contract's cookie;
    `end_session` clears that cookie. `version` is the row's version where the operation carries an
    ETag (`x-etag`). `headers` are sent as given.
    """

    data: Any = None
    session: str = ""
    end_session: bool = False
    version: int = 0
    headers: tuple[tuple[str, str], ...] = ()


class Stream(msgspec.Struct):
    """Bytes sent as they are produced; the lane adds the contract's streaming headers.

    The headers go out at once, so whatever can be refused is refused before this is returned. The
    lane closes `source` (`aclose()`) when the client leaves; an exception from it ends the
    connection abnormally, so that the client knows that more was to come.
    """

    source: AsyncIterator[bytes]
    media_type: str
    headers: tuple[tuple[str, str], ...] = ()


class Text(msgspec.Struct):
    """A plain-text body."""

    text: str


class Upload:
    """An uploaded file of a form, spooled by the lane: it lives as long as its request.

    `filename` is what the client calls it, or "": text to show, never a path. `media_type` is the
    client's word, too. `size` is in bytes. `file` stands at its beginning and can be sought.
    """

    __slots__ = ("file", "filename", "media_type", "size")

    def __init__(self, file: BinaryIO, *, filename: str, media_type: str, size: int) -> None:
        self.file = file
        self.filename = filename
        self.media_type = media_type
        self.size = size

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes from the first, in pieces of at most 1 MiB; off the event loop where they may
        lie on the disk."""
        self.file.seek(0)
        if self.size <= CHUNK:
            yield self.file.read()
            return
        while chunk := await asyncio.to_thread(self.file.read, CHUNK):
            yield chunk


class File(msgspec.Struct):
    """A file to be sent under a name: `size` bytes of `source`, or as many as come if it is None.

    The lane makes the name safe and sends it as an attachment, `nosniff` and in a sandbox;
    `inline` is for images of known types alone. `source` is closed as that of a Stream is.
    """

    name: str
    media_type: str
    source: AsyncIterator[bytes]
    size: int | None = None
    inline: bool = False


class Socket(Protocol):
    """An open websocket that carries bytes both ways, whatever its subprotocol writes them as.

    The handler of a channel is called before the socket opens, so that it can refuse; what it
    returns is then called with the socket, and returns when the socket is to close. Both methods
    raise when the client is gone, which ends it.
    """

    async def receive(self) -> bytes: ...
    async def send(self, data: bytes) -> None: ...


Carry = Callable[[Socket], Awaitable[None]]
"""What the handler of a channel returns."""


class Redirect(msgspec.Struct):
    """A redirect to `location` with the status the operation documents. `session` is as in an
    Answer; of each of `cookies` the name, the value ("" clears it) and the seconds it lasts."""

    location: str
    session: str = ""
    cookies: tuple[tuple[str, str, int], ...] = ()
