"""E-mail addresses."""

import re

from domain.errors import Unusable

# The addr-spec of RFC 5321 §4.1.2 without quoted local parts and address literals, which nobody
# registers with; letters beyond ASCII as RFC 6531 allows.
_ATOM = r"[^\s\x00-\x20\x7f()<>\[\]:;@\\,.\"]+"
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+")


def mail_address(text: str) -> str:
    """An address that mail can be sent to, without surrounding space.

    Raises Unusable("registration.email_invalid").
    """
    address = text.strip()
    local, _, _ = address.rpartition("@")
    if len(address) > 254 or len(local) > 64 or not address.isprintable():
        raise Unusable("registration.email_invalid")
    if not _ADDRESS.fullmatch(address):
        raise Unusable("registration.email_invalid")
    return address
