"""Whether what a model wrote makes sense: a small one fills a schema with letters.

Rough on purpose: what passes may be poor, what does not is noise, or about something else.
"""

import re

LETTERS_LEAST = 0.65
"""The share of letters among all characters but white space."""
WORD_MAX = 40
"""Characters of a word, in scripts that put spaces between words."""
DISTINCT_LEAST = 0.3
"""The share of different words in a text of MANY words or more."""
MANY = 12
STEM = 5
"""Characters in which words of one stem agree."""

_RUN = re.compile(r"[^\W\d_]+")
_SPACED = re.compile(r"[^\W\d_\u2e80-\U0010ffff]+")
_UNSPACED = re.compile(r"[\u2e80-\U0010ffff]+")
_COMMON = frozenset(
    [
        *("about", "agent", "also", "answer", "assistant", "every", "from", "have", "help"),
        *("helper", "helpful", "helps", "into", "make", "more", "must", "only", "other", "should"),
        *("some", "that", "their", "them", "then", "there", "they", "this", "user", "users"),
        *("want", "what", "when", "where", "which", "will", "with", "would", "write", "your"),
        *("一个", "助手", "可以", "帮我", "用户", "需要"),
    ]
)
"""Words that say nothing of what a text is about."""


def is_language(text: str) -> bool:
    """Whether a text looks like words of some language."""
    solid = "".join(text.split())
    words = [word.lower() for word in _RUN.findall(text)]
    if not solid or sum(map(str.isalpha, solid)) < LETTERS_LEAST * len(solid):
        return False
    if any(len(word) > WORD_MAX for word in _SPACED.findall(text)):
        return False
    return len(words) < MANY or len(set(words)) >= DISTINCT_LEAST * len(words)


def is_about(text: str, *subjects: str) -> bool:
    """Whether a text shares a word that matters with one of the subjects; true where they have
    none."""
    wanted = {stem for subject in subjects for stem in _stems(subject)}
    return not wanted or not wanted.isdisjoint(_stems(text))


def _stems(text: str) -> set[str]:
    """The stems of its words; of scripts without spaces, pairs of characters."""
    lowered = text.lower()
    words = {word for word in _SPACED.findall(lowered) if len(word) >= 4 and word not in _COMMON}
    pairs = {run[at : at + 2] for run in _UNSPACED.findall(lowered) for at in range(len(run) - 1)}
    return {word[:STEM] for word in words} | (pairs - _COMMON)
