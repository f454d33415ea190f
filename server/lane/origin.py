"""Where a request comes from: the client's address behind trusted proxies, its language."""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from handlers.wire import Origin

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """The peers whose forwarding headers are believed (`TRUSTED_PROXIES`, empty by default)."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(
            ipaddress.ip_network(network, strict=False) for network in networks
        )

    def trusts(self, address: str) -> bool:
        """Whether `address` is one of them; never true for what is not an IP address."""
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded: bytes | None) -> str:
        """The nearest address that is not one of ours, read from right to left.

        `forwarded` is `X-Forwarded-For`; it counts only when the peer itself is trusted.
        """
        if forwarded is None or not self.trusts(peer):
            return peer
        for part in reversed(forwarded.decode("latin-1").split(",")):
            address = part.strip()
            try:
                ipaddress.ip_address(address)
            except ValueError:
                return peer
            if not self.trusts(address):
                return address
            peer = address
        return peer


def language_of(headers: Mapping[bytes, bytes]) -> str:
    """ "en" when the first preference of Accept-Language is English, else "zh"."""
    accepted = headers.get(b"accept-language")
    if accepted is None:
        return "zh"
    return "en" if accepted.lstrip()[:2].lower() == b"en" else "zh"


def origin_of(scope: Mapping[str, Any], headers: Mapping[bytes, bytes], proxies: Proxies) -> Origin:
    """The Origin that handlers see."""
    client = scope.get("client")
    return Origin(
        address=proxies.client(client[0] if client else "", headers.get(b"x-forwarded-for")),
        language=language_of(headers),
        user_agent=headers.get(b"user-agent", b"")[:256].decode("latin-1"),
        idempotency_key=headers.get(b"idempotency-key", b"").decode("latin-1"),
        authorization=headers.get(b"authorization", b"").decode("latin-1"),
        query=scope.get("query_string", b"").decode("latin-1"),
        last_event_id=headers.get(b"last-event-id", b"").decode("latin-1"),
    )
