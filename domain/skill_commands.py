"""Commands that no skill needs. What runs is confined whatever it does; these are refused so that
whoever installs a skill hears of them.

A command is read by words, as a shell reads it: quotes, substitutions, and programs that run
another one hide nothing that is written out. What is put together while it runs is not looked for.
"""

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

_FETCH = r"\b(?:curl|wget)\b.*\|\s*(?:\S*/)?(?:env\s+)?"
_TEXTS = (
    (r"--no-preserve-root", "it removes everything"),
    (r">\s*/dev/(sd|hd|vd|xvd|nvme|mem|kmem)", "it works on devices"),
    (_FETCH + r"([a-z]{0,3}sh|python[\d.]*|perl|ruby|node|php)\b", "it runs what it downloads"),
    (r"sh\s+(-c\s+\S?)?[<$]\(\s*(curl|wget)\b", "it runs what it downloads"),
    (r"\bbase64\s+(-d|-D|--decode)\b.*\|\s*(\S*/)?[a-z]{0,3}sh\b", "it runs what it hides"),
    (r":\s*\(\s*\)\s*\{.*\|.*&\s*\}", "it forks without end"),
    (r"\bchmod\s+(-\S+\s+)*(u\+s|[0-7]*777\s+/(\s|$))", "it opens everything"),
    (r"/etc/(shadow|sudoers)\b", "it wants passwords"),
    (r"/dev/(tcp|udp)/", "it opens a connection by the shell"),
    (r"\bauthorized_keys\b", "it opens the machine to others"),
)
"""What stands in a command, wherever it does."""
_PROGRAMS = (
    (r"mkfs(\.\w+)?|fdisk|parted|wipefs", "it works on disks"),
    (r"sudo|doas|su|pkexec", "it wants another account"),
    (r"shutdown|reboot|halt|poweroff", "it ends the machine"),
)
_ARGUMENTS = (
    (r"rm", r"(/|~|\$HOME|\$\{HOME\})[/.*]*", "it removes everything"),
    (r"dd", r"of=/dev/.*", "it works on disks"),
    (r"nc|ncat|netcat", r"-\w*[ec]", "it opens a shell to the network"),
)
"""Programs, each with an argument."""

_OPERATOR = re.compile(r"[;&|()<>]+")
_REDIRECTION = re.compile(r"[&|]*[<>][<>&|]*")
_LOOSE_WORD = re.compile(r"[;&|()<>]+|[^\s;&|()<>]+")
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=.*", re.DOTALL)
_SHELL = re.compile(r"[a-z]{0,3}sh")
_KEYWORDS = frozenset({"!", "{", "}", "if", "then", "elif", "else", "while", "until", "do"})
_PREFIXES: Mapping[str, str] = {
    **dict.fromkeys(("builtin", "busybox", "chroot", "command", "eval", "nohup", "setsid"), ""),
    **{"env": "uC", "exec": "a", "ionice": "cn", "nice": "n", "stdbuf": "ioe", "time": "fo"},
    **{"timeout": "sk", "xargs": "adEILnPs"},
}
"""Programs that run the one named after them, and their options that take a word of their own."""
_LEADS = frozenset({"chroot", "timeout"})
"""Those of them that take another word before it."""
_HANDS_OVER = frozenset({"-exec", "-execdir", "-ok", "-okdir"})
"""What find runs stands behind these."""


def refusal(command: str) -> str:
    """Why a command is refused; "" where it is not."""
    for pattern, what in _TEXTS:
        if re.search(pattern, command):
            return what
    for part in _parts(command):
        for call in _calls(_words(part)):
            if what := _judged(call):
                return what
    return ""


def _parts(command: str) -> Iterator[str]:
    """What a command runs in places of its own, `…` and $(…), and then the command without it."""
    ticks = command.split("`")
    yield from ticks[1::2]
    rest = "x".join(ticks[::2])
    while found := _SUBSTITUTION.search(rest):
        yield found[1]
        rest = f"{rest[: found.start()]}x{rest[found.end() :]}"
    yield rest


def _words(part: str) -> list[str]:
    """Words and operators; where quotes do not end, what stands between blanks."""
    reader = shlex.shlex(part, posix=True, punctuation_chars=";&|()<>")
    reader.whitespace_split = True
    reader.commenters = ""
    try:
        return list(reader)
    except ValueError:
        return _LOOSE_WORD.findall(part.replace("'", "").replace('"', ""))


def _calls(words: Sequence[str]) -> Iterator[list[str]]:
    """The programs that are called, each with its arguments, without redirections."""
    call: list[str] = []
    is_target = False
    for word in words:
        if is_target:
            is_target = False
        elif _REDIRECTION.fullmatch(word):
            is_target = True
            if call and call[-1].isdigit():  # the descriptor
                call.pop()
        elif _OPERATOR.fullmatch(word) or word in _HANDS_OVER:
            yield call
            call = []
        else:
            call.append(word)
    yield call


def _judged(call: Sequence[str]) -> str:
    """Why a call is refused; "" where it is not."""
    while call:
        name, arguments = posixpath.basename(call[0]), call[1:]
        if call[0] in _KEYWORDS or _ASSIGNMENT.fullmatch(call[0]):
            call = arguments
        elif name in _PREFIXES:
            call = _behind(name, arguments)
            if name == "eval" and any(re.search(r"\s", word) for word in call):
                return refusal(" ".join(call))
        elif _SHELL.fullmatch(name):
            return refusal(_given(arguments))
        else:
            return _named(name, arguments)
    return ""


def _behind(prefix: str, arguments: Sequence[str]) -> Sequence[str]:
    """What a program runs that runs another one."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        option = arguments[at]
        at += 2 if len(option) == 2 and option[1] in _PREFIXES[prefix] else 1
    return arguments[at + (prefix in _LEADS) :]


def _given(arguments: Sequence[str]) -> str:
    """The command that a shell is given with -c; "" where there is none."""
    options = [word for word in arguments if word.startswith("-")]
    if not any(re.fullmatch(r"-\w*c\w*", option) for option in options):
        return ""
    return next((word for word in arguments if not word.startswith(("-", "+"))), "")


def _named(name: str, arguments: Sequence[str]) -> str:
    for programs, what in _PROGRAMS:
        if re.fullmatch(programs, name):
            return what
    for programs, argument, what in _ARGUMENTS:
        if re.fullmatch(programs, name) and any(re.fullmatch(argument, one) for one in arguments):
            return what
    return ""
