"""Words to find passages by.

The full text indexes split at white space and punctuation, and know English stems. Chinese,
Japanese and Korean write without spaces: a run of their characters is indexed and asked for as
its overlapping pairs.
"""

import re

WORDS_MAX = 64
"""Words of a question that are looked for."""

_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN = re.compile(f"[{_SPACELESS}]+")
_WORD = re.compile(r"\w+")
_SILENT_TEXT = (
    "a an and are as at be been but by can could did do does for from had has have how i if in "
    "into is it its me my of on or our shall should so than that the their them then there "
    "these they this to was we were what when where which who whom why will with would you your"
)
_SILENT = frozenset(_WORD.findall(_SILENT_TEXT))
"""Words that tell nothing about what is asked for."""


def indexed(text: str) -> str:
    """A text as it is given to the index."""
    return _RUN.sub(_pairs, text)


def asked(query: str) -> list[str]:
    """The words of a question that tell something, each once, at most WORDS_MAX."""
    words = list(dict.fromkeys(_WORD.findall(indexed(query).lower())))
    telling = [word for word in words if word not in _SILENT]
    return (telling or words)[:WORDS_MAX]


def _pairs(run: re.Match[str]) -> str:
    characters = run[0]
    if len(characters) == 1:
        return f" {characters} "
    return " ".join(["", *(characters[i : i + 2] for i in range(len(characters) - 1)), ""])
