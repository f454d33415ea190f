"""Names of files: text that people chose, made safe to show, to save under and to put into a URL.

No path of this server is ever made of one.
"""

import re
import unicodedata

NAME_MAX = 150
ENDING_MAX = 11
BYTES_MAX = 255
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\"<>|:*?%;]')


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
        cut = stem[: NAME_MAX - 1 - ENDING_MAX] + dot + ending[:ENDING_MAX]
        kept = cut if dot and stem else kept[:NAME_MAX]
    return kept.strip(". ") or "file"


def numbered(name: str, number: int) -> str:
    """A file's name beside others of that name: from 2 on with the number before its ending, as in
    `report (2).csv`; cut to the 255 bytes that a file system takes."""
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending) > ENDING_MAX:
        stem, dot, ending = name, "", ""
    tail = (f" ({number})" if number > 1 else "") + dot + ending
    stem = stem.encode()[: BYTES_MAX - len(tail.encode())].decode(errors="ignore")
    return f"{stem}{tail}".rstrip(". ")


def object_name(name: str) -> str:
    """A file's name as the last segment of an object's key: letters, digits, `.`, `_`, `-`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]", "_", plain).lstrip(".")[-96:] or "file"
