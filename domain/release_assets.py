"""Which files of a release serve which platform, told by their names.

Names are those that Tauri's bundler gives (Tauri 2, "Distribute"): the system by the ending, the
processor by a word such as `aarch64` or `x64`. A file with a `.sig` beside it updates; the others
install.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

SIGNATURE = ".sig"
_ENDINGS: Mapping[str, tuple[str, bool]] = {
    ".app.tar.gz": ("darwin", False),
    ".dmg": ("darwin", True),
    ".nsis.zip": ("windows", False),
    ".msi.zip": ("windows", False),
    ".exe": ("windows", True),
    ".msi": ("windows", True),
    ".appimage.tar.gz": ("linux", False),
    ".appimage": ("linux", True),
    ".deb": ("linux", True),
    ".rpm": ("linux", True),
}
"""Ending → the system, and whether such a file installs by itself; the better ones first."""

_PROCESSORS = (
    (re.compile(r"(?<![a-z0-9])(?:aarch64|arm64)(?![a-z0-9])"), ("aarch64",)),
    (re.compile(r"(?<![a-z0-9])(?:x86_64|x86-64|x64|amd64)(?![a-z0-9])"), ("x86_64",)),
    (re.compile(r"(?<![a-z0-9])universal(?![a-z0-9])"), ("aarch64", "x86_64")),
)


class Files(NamedTuple):
    """The names of a platform's files, "" where there is none. The updater's signature is the file
    of its name with `.sig`."""

    installer: str = ""
    updater: str = ""


def by_platform(names: Iterable[str]) -> dict[str, Files]:
    """Platform (`darwin-aarch64`) → its files. Names that say no platform are passed over."""
    every = list(names)
    signed = {name.removesuffix(SIGNATURE) for name in every if name.endswith(SIGNATURE)}
    found: dict[str, Files] = {}
    for ending, (system, installs) in _ENDINGS.items():
        for name in every:
            if not name.lower().endswith(ending):
                continue
            for processor in _processors(name):
                platform = f"{system}-{processor}"
                files = found.get(platform, Files())
                if installs and not files.installer:
                    files = files._replace(installer=name)
                if name in signed and not files.updater:
                    files = files._replace(updater=name)
                if files != Files():
                    found[platform] = files
    return dict(sorted(found.items()))


def _processors(name: str) -> tuple[str, ...]:
    for pattern, processors in _PROCESSORS:
        if pattern.search(name.lower()):
            return processors
    return ()
