"""Which network addresses the outside may be, and what an operator's allow-list opens.

Public means: globally routable unicast by the IANA special-purpose registries (RFC 6890 and its
updates), written as itself. An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo) is
refused as a form, whatever it holds. Addresses that clouds answer with credentials are refused
even where the operator lists their range.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SPECIAL_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
GLOBAL_V6 = IPv6Network("2000::/3")
SPECIAL_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
METADATA: frozenset[Address] = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google, OpenStack, DigitalOcean
        "169.254.170.2",  # AWS ECS
        "169.254.170.23",  # AWS EKS
        "169.254.0.23",  # Tencent
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure's host agent
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS
        "fd20:ce::254",  # Google
    )
)


def embedded(address: Address) -> tuple[Address, ...]:
    """The address and every IPv4 address that its bits may hold (RFC 4291, 6052, 3056, 4380)."""
    if isinstance(address, IPv4Address):
        return (address,)
    bits = int(address)
    low, sixtofour = IPv4Address(bits & 0xFFFFFFFF), IPv4Address(bits >> 80 & 0xFFFFFFFF)
    return (address, low, sixtofour, IPv4Address(~bits & 0xFFFFFFFF))


def is_metadata(address: Address) -> bool:
    """Whether a cloud would answer there with the machine's credentials."""
    return any(form in METADATA for form in embedded(address))


def is_public(address: Address) -> bool:
    """Whether the address is globally routable unicast, as defined above."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in SPECIAL_V4)
    return (
        address in GLOBAL_V6
        and address.scope_id is None
        and not any(address in network for network in SPECIAL_V6)
    )


class Opening(msgspec.Struct, frozen=True):
    """One entry of the allow-list: a host with an optional port, or a network, for a purpose
    ("" for all)."""

    purpose: str
    host: str
    port: int | None
    network: Network | None

    @classmethod
    def parse(cls, entry: str) -> "Opening":
        """`[purpose=]host[:port]`, `[purpose=]address[:port]` or `[purpose=]network/prefix`;
        an IPv6 address with a port is written in brackets. Raises ValueError."""
        purpose, equals, target = entry.strip().rpartition("=")
        if (equals and not purpose.isidentifier()) or not target:
            raise ValueError(f"{entry!r} is not [purpose=]host[:port] or [purpose=]network")
        if "/" in target:
            return cls(purpose, "", None, ip_network(target, strict=False))
        host, port = target, ""
        if target.startswith("["):
            host, bracket, port = target[1:].partition("]")
            if not bracket or (port and not port.startswith(":")):
                raise ValueError(f"{entry!r}: an IPv6 address with a port is [address]:port")
            port = port[1:]
        elif target.count(":") == 1:
            host, _, port = target.partition(":")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"{entry!r}: {port!r} is not a port")
        return cls(purpose, host.lower().rstrip("."), int(port) if port else None, None)

    def covers(self, purpose: str, host: str, port: int, address: Address) -> bool:
        """Whether the operator opened `address`, reached by the name `host`, for `purpose`."""
        if self.purpose not in ("", purpose):
            return False
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return self.host == host and self.port in (None, port)


class AllowList:
    """What the operator opened (`OUTBOUND_ALLOW`)."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Raises ValueError naming the entry that cannot be read."""
        self._openings = tuple(Opening.parse(entry) for entry in entries)

    def refusal(self, purpose: str, host: str, port: int, address: Address) -> str | None:
        """Why `address` may not be reached for `purpose`, or None if it may."""
        if is_metadata(address):
            return f"{address} is a metadata address"
        if is_public(address):
            return None
        if any(opening.covers(purpose, host, port, address) for opening in self._openings):
            return None
        return f"{address} is not a public address"
