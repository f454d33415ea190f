"""The one door for HTTP requests to the outside (security checklist 23 to 28).

A name is resolved once per connection, every address it has is checked, and the connection goes
to a checked address; TLS and the Host header keep the name. So what was checked is what is
reached, and a name that changes its address between check and use gains nothing. Redirects pass
through the same door hop by hop. Proxies named in the environment are not used: behind a proxy
nobody could say which address is reached.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import msgspec

from gateways.addresses import Address, AllowList
from gateways.errors import OutboundFailed, OutboundRefused, OutboundTooLarge

if TYPE_CHECKING:
    import httpx2

MAX_REDIRECTS = 3
MAX_BYTES = 64 * 1024 * 1024
CONNECT_S = 10.0
USER_AGENT = "quartet"

UNPACKED_BY_CALLER = "quartet.unpacked"
"""A request's extension: the codings that whoever asks unpacks, up to a limit of its own. Any other
is refused: the client would unpack it whole, whatever its size."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host name, as text. Raises OSError when it has none."""

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ufeff]")
_CREDENTIALS = {"authorization", "cookie", "proxy-authorization", "x-api-key", "api-key"}


class Fetched(msgspec.Struct, frozen=True):
    """An answer read whole. `url` is where it came from, after redirects."""

    url: str
    status: int
    media_type: str
    charset: str
    body: bytes


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def parse(url: str) -> "httpx2.URL":
    """The URL, if it is one that may be tried: http or https, no credentials, a plain host.

    Hosts are taken in one spelling only: a DNS name or a canonical address. The many others
    (octal, hexadecimal, short, percent-encoded, zoned) exist to slip past checks. Raises
    OutboundRefused.
    """
    import httpx2

    if len(url) > 8192:
        raise OutboundRefused("the URL is longer than 8192 characters")
    if _FORBIDDEN.search(url):
        raise OutboundRefused("the URL holds a space, a control character or a backslash")
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise OutboundRefused("the URL is not an absolute http or https URL")
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError, UnicodeError):
        raise OutboundRefused("the URL cannot be read") from None
    authority = re.split(r"[/?#]", url.split("://", 1)[1], maxsplit=1)[0]
    if parsed.userinfo or "@" in authority:
        raise OutboundRefused("the URL carries credentials")
    if "%" in authority:
        raise OutboundRefused("the URL's host is percent-encoded or has a zone")
    if not 0 < _port(parsed) < 65536:
        raise OutboundRefused("the URL's port is no port")
    _check_host(_host(parsed))
    return parsed


class Target(msgspec.Struct, frozen=True):
    """Where a URL leads: `authority` and `path` (with its query) as they are sent."""

    scheme: str
    host: str
    port: int
    authority: bytes
    path: bytes


def target(url: str) -> Target:
    """Take a URL apart that may be tried. Raises OutboundRefused."""
    parsed = parse(url)
    return Target(parsed.scheme, _host(parsed), _port(parsed), parsed.netloc, parsed.raw_path)


def _host(url: "httpx2.URL") -> str:
    return url.raw_host.decode("ascii").lower().rstrip(".")


def _check_host(host: str) -> None:
    if literal(host) is not None:
        return
    if len(host) > 253 or not _NAME.fullmatch(host) or _NUMBER.fullmatch(host.split(".")[-1]):
        raise OutboundRefused("the URL's host is neither a name nor an address in its usual form")


def literal(host: str) -> Address | None:
    """The address that `host` spells in canonical form, if it spells one."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return address if not isinstance(address, IPv4Address) or str(address) == host else None


class Outbound:
    """HTTP requests to the outside, per purpose.

    Purposes are words of ours ("model", "search", "fetch", "webhook" …); `allow` is the
    operator's list, read by gateways.addresses.AllowList. One Outbound serves a whole process;
    `close()` ends its connections.
    """

    def __init__(self, allow: Iterable[str] = (), *, resolve: Resolve = resolve) -> None:
        self._allow = AllowList(allow)
        self._resolve = resolve
        self._clients: dict[str, httpx2.AsyncClient] = {}
        self._tls: ssl.SSLContext | None = None

    def client(self, purpose: str) -> "httpx2.AsyncClient":
        """The client of a purpose, shared: do not close it.

        Its requests raise OutboundRefused, OutboundTooLarge (over 64 MiB) and httpx2's own
        errors. It follows no redirect unless a request asks for it (`follow_redirects=True`,
        at most 3). Answers come uncompressed. It keeps no cookies: it is shared by all users.
        """
        if (client := self._clients.get(purpose)) is None:
            import httpx2

            from gateways.outbound_transport import Transport

            client = self._clients[purpose] = httpx2.AsyncClient(
                transport=Transport(self, purpose),
                headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
                timeout=httpx2.Timeout(30.0, connect=CONNECT_S),
                max_redirects=MAX_REDIRECTS,
                follow_redirects=False,
                trust_env=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            )
        return client

    def session(
        self, purpose: str, *, headers: Mapping[str, str], timeout: float, max_bytes: int
    ) -> "httpx2.AsyncClient":
        """A client of its own for one conversation with one server: its headers, credentials
        among them, and its cookies are nobody else's. The caller closes it.

        As `client`, but an answer is at most `max_bytes` long, and each wait at most `timeout`
        seconds.
        """
        import httpx2

        from gateways.outbound_transport import Transport

        return httpx2.AsyncClient(
            transport=Transport(self, purpose, max_bytes=max_bytes),
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity", **headers},
            timeout=httpx2.Timeout(timeout, connect=CONNECT_S),
            max_redirects=MAX_REDIRECTS,
            follow_redirects=False,
            trust_env=False,
        )

    async def check(self, purpose: str, url: str) -> None:
        """Refuse at save what would be refused at use. Raises OutboundRefused, OutboundFailed
        (the name has no address)."""
        parsed = parse(url)
        try:
            await self.addresses(purpose, _host(parsed), _port(parsed))
        except OSError as error:
            raise OutboundFailed(f"{parsed.host} has no address") from error

    async def connect(
        self, purpose: str, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to an address of `host`, the first that takes it. Raises OutboundRefused,
        OutboundFailed."""
        try:
            async with asyncio.timeout(CONNECT_S):
                addresses = await self.addresses(purpose, host, port)
        except OSError as error:
            raise OutboundFailed(f"{host} has no address") from error
        for address in addresses:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(str(address), port)
        raise OutboundFailed(f"{host} does not answer")

    async def addresses(self, purpose: str, host: str, port: int) -> list[Address]:
        """Every address of `host`, all of them allowed. One bad address refuses them all: a name
        that points both outside and inside is a trap. Raises OutboundRefused, OSError."""
        host = host.lower().rstrip(".")
        _check_host(host)
        if (address := literal(host)) is not None:
            addresses = [address]
        else:
            try:
                addresses = [ip_address(text) for text in await self._resolve(host, port)]
            except (ValueError, UnicodeError):
                raise OutboundRefused(f"{host} resolves to something that is no address") from None
        if not addresses:
            raise OSError(f"{host} has no address")
        for address in addresses:
            if (reason := self._allow.refusal(purpose, host, port, address)) is not None:
                if literal(host) is None:  # an inner name's address is not for whoever asks
                    reason = f"{host} does not lead to a public address"
                raise OutboundRefused(reason)
        return addresses

    async def fetch(
        self,
        purpose: str,
        url: str,
        *,
        max_bytes: int,
        timeout: float,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Fetched:
        """Read an answer whole: at most `max_bytes` both as sent and decompressed, within
        `timeout` seconds in all, over at most 3 redirects (each checked; another host gets no
        credentials; everything but GET and HEAD is sent once and not redirected).

        Raises OutboundRefused, OutboundFailed, OutboundTooLarge. A status of 400 or more is an
        answer, not an error.
        """
        import httpx2

        try:
            async with asyncio.timeout(timeout):
                return await self._follow(purpose, url, max_bytes, method, headers, content)
        except TimeoutError:
            raise OutboundFailed(f"no whole answer within {timeout:g} s") from None
        except httpx2.HTTPError as error:
            raise OutboundFailed(type(error).__name__) from error

    async def close(self) -> None:
        """End every connection."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    def tls(self) -> ssl.SSLContext:
        """The TLS settings of every connection, made on first use: reading the certificates
        takes milliseconds."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    async def _follow(
        self,
        purpose: str,
        url: str,
        max_bytes: int,
        method: str,
        headers: Mapping[str, str] | None,
        content: bytes | None,
    ) -> Fetched:
        client = self.client(purpose)
        sent = {**(headers or {}), "accept-encoding": "gzip"}
        for _ in range(MAX_REDIRECTS + 1):
            parsed = parse(url)
            request = client.build_request(
                method,
                parsed,
                headers=sent,
                content=content,
                extensions={UNPACKED_BY_CALLER: ("gzip",)},
            )
            response = await client.send(request, stream=True)
            try:
                target = response.headers.get("location")
                if not (response.is_redirect and target and method in ("GET", "HEAD")):
                    body = b"" if method == "HEAD" else await _read(response, max_bytes)
                    media_type = response.headers.get("content-type", "").partition(";")[0]
                    return Fetched(
                        str(parsed),
                        response.status_code,
                        media_type.strip().lower(),
                        response.charset_encoding or "",
                        body,
                    )
            finally:
                await response.aclose()
            url = urljoin(str(parsed), target)
            if _origin(parse(url)) != _origin(parsed):
                sent = {k: v for k, v in sent.items() if k.lower() not in _CREDENTIALS}
        raise OutboundRefused(f"more than {MAX_REDIRECTS} redirects")


def _port(url: "httpx2.URL") -> int:
    if url.port is None:
        return 443 if url.scheme == "https" else 80
    return url.port


def _origin(url: "httpx2.URL") -> tuple[str, str, int]:
    return url.scheme, _host(url), _port(url)


async def _read(response: "httpx2.Response", max_bytes: int) -> bytes:
    """The body, decompressed piece by piece and never beyond `max_bytes`."""
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise OutboundTooLarge(f"the answer is larger than {max_bytes} bytes")
    gzip = response.headers.get("content-encoding", "").lower() == "gzip"
    inflate = zlib.decompressobj(wbits=31) if gzip else None
    body, sent = bytearray(), 0
    async for piece in response.aiter_raw():
        sent += len(piece)
        if inflate is not None:
            try:
                piece = inflate.decompress(piece, max_bytes + 1 - len(body))
            except zlib.error:
                raise OutboundFailed("the answer's compression is broken") from None
        body += piece
        if sent > max_bytes or len(body) > max_bytes:
            raise OutboundTooLarge(f"the answer is larger than {max_bytes} bytes")
    if inflate is not None and not inflate.eof:
        raise OutboundFailed("the answer's compression is broken")
    return bytes(body)
