"""How a file that somebody made is sent, so that no browser takes it for a page of ours (security
checklist 35)."""

import re
import unicodedata
from urllib.parse import quote

from domain.file_names import safe_name
from handlers.wire import File

INLINE = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What a browser may show: images that hold no script."""

SANDBOX = (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'")
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"
"""Beside letters and digits, what RFC 8187 §3.2.1 leaves as it is."""


def disposition(name: str, *, inline: bool) -> bytes:
    """`Content-Disposition` (RFC 6266): an ASCII name for old clients, the real one beside it."""
    name = safe_name(name)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", plain).strip(". ") or "file"
    kind = "inline" if inline else "attachment"
    extended = quote(name, safe=_ATTRIBUTE_CHARACTERS)
    return f"{kind}; filename=\"{plain}\"; filename*=utf-8''{extended}".encode()


def headers_of(file: File) -> list[tuple[bytes, bytes]]:
    """Everything but the content type. `inline` is for images alone, whatever a handler says."""
    inline = file.inline and file.media_type in INLINE
    made = [(b"content-disposition", disposition(file.name, inline=inline)), SANDBOX]
    if file.size is not None:
        made.append((b"content-length", b"%d" % file.size))
    return made
