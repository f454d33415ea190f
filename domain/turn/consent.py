"""Calls that wait for a person's yes.

The question is an assistant's message whose details keep, by the call's id, the digest of what is
agreed to; the user's next message is the answer. A model is shown neither: it reads in the call's
result what became of it.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from domain.tools import Consent
from storage.conversations import Message

KEY = "consents"
ASKED = {
    "zh": "是否允许运行以下命令？请回答“同意”或“拒绝”。",
    "en": "May this be run? Answer yes or no.",
}
_YES = frozenset(
    {
        *("yes", "y", "ok", "okay", "allow", "approve", "approved", "agree", "agreed", "confirm"),
        *("confirmed", "go ahead", "yes please", "run it", "sure"),
        *("同意", "是", "是的", "可以", "允许", "确认", "好", "好的", "继续", "批准", "同意运行"),
    }
)


class Answer(msgspec.Struct, frozen=True):
    """What the user said to a question. `digest` is what it was about."""

    digest: str
    agreed: bool
    words: str


def question(language: str, wanted: Sequence[Consent]) -> str:
    """The question about calls, each in words of its own."""
    asked = ASKED["en" if language.startswith("en") else "zh"]
    return "\n\n".join([asked, *(f"```\n{one.question}\n```" for one in wanted)])


def asked(message: Message) -> Mapping[str, str]:
    """The digests that a message asks about, by the call's id."""
    found: Mapping[str, str] = (message.details or {}).get(KEY) or {}
    return found


def answers(course: Sequence[Message]) -> Mapping[str, Answer]:
    """What was said to the questions of a run, whose messages are `course`, by the call's id."""
    found: dict[str, Answer] = {}
    open_: Mapping[str, str] = {}
    for message in course:
        if message.role == "user" and open_:
            words = message.text or ""
            yes = agreed(words)
            found |= {call: Answer(digest, yes, words) for call, digest in open_.items()}
            open_ = {}
        elif message.role == "assistant" and asked(message):
            open_ = asked(message)
    return found


def agreed(words: str) -> bool:
    """Whether an answer is a yes; whatever is not plainly one is a no."""
    plain = re.sub(r"[\s.,!。，！~～]+", " ", words.casefold()).strip()
    return plain in _YES
