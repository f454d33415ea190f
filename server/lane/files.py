"""How a file that somebody made is sent, so that no browser takes it for a page of ours (security
checklist 35)."""

import re
import unicodedata
from urllib.parse import quote

from handlers.wire import File

INLINE = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What a browser may show: images that hold no script."""

NAME_MAX = 150
SANDBOX = (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\"<>|:*?%;]')
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"
"""Beside letters and digits, what RFC 8187 §3.2.1 leaves as it is."""


def safe_name(name: str) -> str:
    """A file name as it may be shown and saved: one segment, no control or formatting characters,
    no leading or trailing dot; "file" when nothing is left."""
    kept = "".join(
        "_" if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else each
        for each in unicodedata.normalize("NFC", name)
    )
    kept = _UNSAFE.sub("_", kept).strip(". ")
    if len(kept) > NAME_MAX:
        stem, dot, ending = kept.rpartition(".")
        kept = stem[: NAME_MAX - 12] + dot + ending[:11] if dot and stem else kept[:NAME_MAX]
    return kept.strip(". ") or "file"


def disposition(name: str, *, inline: bool) -> bytes:
    """`Content-Disposition` (RFC 6266): an ASCII name for old clients, the real one beside it."""
    name = safe_name(name)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", plain).strip(". ") or "file"
    kind = "inline" if inline else "attachment"
    extended = quote(name, safe=_ATTRIBUTE_CHARACTERS)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{extended}".encode()


def headers_of(file: File) -> list[tuple[bytes, bytes]]:
    """Everything but the content type. `inline` is for images alone, whatever a handler says."""
    inline = file.inline and file.media_type in INLINE
    made = [(b"content-disposition", disposition(file.name, inline=inline)), SANDBOX]
    if file.size is not None:
        made.append((b"content-length", b"%d" % file.size))
    return made
