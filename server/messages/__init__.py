"""Texts of errors by key, in Chinese and English. Each module holds one noun's `MESSAGES`."""

import importlib
import pkgutil
from functools import cache
from typing import Any

Texts = dict[str, tuple[str, str]]


@cache
def catalogue() -> Texts:
    """Every key with its (zh, en) texts. Raises ValueError when two modules claim one key."""
    texts: Texts = {}
    for module in pkgutil.iter_modules(__path__):
        own: Texts = importlib.import_module(f"{__name__}.{module.name}").MESSAGES
        if clash := texts.keys() & own.keys():
            raise ValueError(f"{module.name} repeats {sorted(clash)}")
        texts.update(own)
    return texts


def text(key: str, language: str, details: dict[str, Any]) -> str:
    """The text of a key with its details filled in. Raises KeyError for an unknown key."""
    zh, en = catalogue()[key]
    return (en if language == "en" else zh).format_map(details)
