"""uvicorn's HTTP protocol with what it leaves open: a limit on headers, and on how long a request
takes to arrive.

Without the first a client can make the server keep any amount of header bytes; without the second
it can hold a connection for ever by sending one byte now and then (Slowloris). Headers have 20 s as
a whole; a body may take as long as it needs while some of it arrives every 30 s.

And a client of HTTP/1.0 does not know chunks: what has no length is ended by the close for it
(RFC 9112 §6.1, §6.3).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEADERS_TIMEOUT_S = 20.0
BODY_TIMEOUT_S = 30.0
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _HeadersTooLarge(Exception):
    pass


class _Ambiguous(Exception):
    """A transfer coding other than one `chunked`: what stands before us may frame it otherwise
    (RFC 9112 §6.1, §11.2)."""


def limited(headers_max: int) -> type[HttpToolsProtocol]:
    """The protocol class with `headers_max` bytes of URL and headers a request."""

    class LimitedProtocol(HttpToolsProtocol):
        _size = 0
        _unparsed = 0
        _messages = 0
        _chunked = False
        _refused = False
        _body_size = 0
        _in_head = True
        _awaiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._awaiting = self.loop.call_later(HEADERS_TIMEOUT_S, self._refuse, _TOO_SLOW)

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """The parser gives a header when it has all of it: what it holds back counts too."""
            if self._refused:
                return
            messages = self._messages
            super().data_received(data)
            if not self._in_head or messages != self._messages:
                self._unparsed = 0
                return
            self._unparsed += len(data)
            if self._unparsed > headers_max:
                self._refuse(_TOO_LARGE)

        def send_400_response(self, msg: str) -> None:
            """httptools turns what a callback raises into its own error, which ends here."""
            if self._size > headers_max:
                self._refuse(_TOO_LARGE)
            else:
                super().send_400_response(msg)

        def on_message_begin(self) -> None:
            self._size = 0
            self._body_size = 0
            self._chunked = False
            self._messages += 1
            self._in_head = True
            if self._awaiting is None:
                self._awaiting = self.loop.call_later(HEADERS_TIMEOUT_S, self._refuse, _TOO_SLOW)
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value))
            if len(name) == 17 and name.lower() == b"transfer-encoding":
                if self._chunked or value.strip().lower() != b"chunked":
                    raise _Ambiguous
                self._chunked = True
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._arrived()
            self._awaiting = self.loop.call_later(BODY_TIMEOUT_S, self._check_body, 0)
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._body_size += len(body)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._arrived()
            super().on_message_complete()

        def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
            if cycle.scope["http_version"] == "1.0":
                app = _ended_by_close(app, cycle)
            super()._start_asgi_task(cycle, app)

        def _check_body(self, before: int) -> None:
            """Go on while the body grows, or while we are the ones who do not read it."""
            if self._body_size == before and not self.flow.read_paused:
                self._awaiting = None
                self.transport.close()
            else:
                self._awaiting = self.loop.call_later(
                    BODY_TIMEOUT_S, self._check_body, self._body_size
                )

        def _count(self, size: int) -> None:
            self._size += size
            if self._size > headers_max:
                raise _HeadersTooLarge

        def _arrived(self) -> None:
            if self._awaiting is not None:
                self._awaiting.cancel()
                self._awaiting = None

        def _refuse(self, answer: bytes) -> None:
            self._refused = True
            self._arrived()
            if not self.transport.is_closing():
                self.transport.write(answer)
                self.transport.close()

    return LimitedProtocol


def _ended_by_close(app: Any, cycle: RequestResponseCycle) -> Any:
    """`app`, whose answer of unknown length goes out as it is. The connection closes behind it."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        sized = True

        async def sending(message: Any) -> None:
            nonlocal sized
            if message["type"] == "http.response.start":
                sized = any(name.lower() == b"content-length" for name, _ in message["headers"])
                if not sized:
                    cycle.chunked_encoding = False
            elif not sized:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, sending)

    return answer


class Sockets(WebSocketsSansIOProtocol):
    """uvicorn's websockets, which it would close with 1012 at once when it stops: ours are cut with
    the streams, when plain requests have ended, and say 1013 (rules, "Runs, events, cursors")."""

    def shutdown(self) -> None:
        if not self.handshake_complete:
            super().shutdown()
