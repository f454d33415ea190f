"""A server whose embeddings come from another process: configured, changed, away, refused."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.knowledge.conftest import EMBEDDING_KEY, Embeddings
from tests.knowledge.test_server import DONE_S, PASSWORD, SETTINGS, Account, results
from tests.serving import serving, spawn

FIRST, SECOND = "trigrams-256", "others-512"
FILES = [
    ("tides.md", b"The harbour floods at spring tide."),
    ("cats.md", b"Cats sleep through the afternoon."),
    ("stars.md", b"Astronomers measure parallaxes."),
]
MISSPELT, WRITTEN = "harbbour flloods", "harbour"
"""No word of the first stands in a document; its trigrams do."""


def uploaded(account: Account, base: str, *files: tuple[str, bytes]) -> dict[str, Any]:
    return account.done(base, account.upload(base, *files).json()["data"]["taskId"])


def sources(account: Account, base: str, query: str) -> list[str]:
    asked = {"kdb_id": base, "query": query, "top_k": 1}
    found = account.post("/knowledge-base/retrieve", asked)["results"]
    return [one["source"]["document"] for one in found]


def made_by(data: Path) -> set[tuple[str, int]]:
    """Who made the vectors that are kept, and their lengths in bytes."""
    query = "SELECT embedder, length(vector) FROM knowledge_chunks"
    with contextlib.closing(sqlite3.connect(data / "quartet.sqlite")) as rows:
        return set(rows.execute(query))


def awaited(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + DONE_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_change_of_embedder_makes_every_vector_anew(
    tmp_path: Path, embeddings: Embeddings
) -> None:
    data = tmp_path / "data"
    with serving(data, given={**SETTINGS, **embeddings.settings(FIRST)}) as server:
        admin = Account(server, "admin", PASSWORD)
        base = admin.base()
        assert uploaded(admin, base, *FILES)["success"] == len(FILES)
        assert embeddings.texts(FIRST) == len(FILES)
        assert sources(admin, base, MISSPELT) == ["tides.md"]
        assert made_by(data) == {(f"{FIRST}:256", 1024)}
    with serving(data, given={**SETTINGS, **embeddings.settings(SECOND)}) as server:
        admin = Account(server, "admin", PASSWORD)
        awaited(lambda: made_by(data) == {(f"{SECOND}:512", 2048)})
        awaited(lambda: sources(admin, base, MISSPELT) == ["tides.md"])
        assert embeddings.texts(FIRST) == len(FILES) + 1, "the first is not asked any more"
        assert uploaded(admin, base, ("new.md", b"Volcanoes erupt."))["success"] == 1
        assert sources(admin, base, "vollcanoess") == ["new.md"]
    asked = embeddings.texts(SECOND)
    with serving(data, given={**SETTINGS, **embeddings.settings(SECOND)}) as server:
        admin = Account(server, "admin", PASSWORD)
        assert sources(admin, base, MISSPELT) == ["tides.md"]
    assert embeddings.texts(SECOND) == asked + 1, "what is made is not made again"


def test_without_the_embedder_words_are_enough(tmp_path: Path, embeddings: Embeddings) -> None:
    with serving(tmp_path / "data", given={**SETTINGS, **embeddings.settings(FIRST)}) as server:
        admin = Account(server, "admin", PASSWORD)
        base = admin.base()
        uploaded(admin, base, *FILES)
        look = [{"call": "knowledge_search", "args": {"query": WRITTEN}}, {"say": "See [1]."}]
        told = results(admin.chat(look, available_knowledge_bases=[base]))
        assert "[1] tides.md" in told
        assert "by words alone" not in told
        assert "by their words alone" not in server.logged()

        embeddings.stop()
        assert sources(admin, base, WRITTEN) == ["tides.md"]
        assert sources(admin, base, MISSPELT) == []
        told = results(admin.chat(look, available_knowledge_bases=[base]))
        assert "by words alone" in told
        assert "[1] tides.md" in told
        assert "by their words alone" in server.logged()
        assert EMBEDDING_KEY not in server.logged()
        assert uploaded(admin, base, ("new.md", b"Volcanoes erupt."))["fail"] == 1

        embeddings.start()
        assert sources(admin, base, MISSPELT) == ["tides.md"]
        admin.post("/knowledge-base/redo_all", {"kdb_id": base})
        awaited(lambda: sources(admin, base, "vollcanoess") == ["new.md"])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"EMBEDDING_KEY": "another"}, "status 401"),
        ({"EMBEDDING_DIMENSIONS": "255"}, "256 dimensions, not 255"),
        ({"OUTBOUND_ALLOW": ""}, "may not be reached"),
    ],
)
def test_a_wrong_setting_fails_documents_and_says_why(
    tmp_path: Path, embeddings: Embeddings, more: dict[str, str], why: str
) -> None:
    with serving(
        tmp_path / "data", given={**SETTINGS, **embeddings.settings(FIRST, **more)}
    ) as server:
        admin = Account(server, "admin", PASSWORD)
        base = admin.base()
        assert uploaded(admin, base, *FILES)["fail"] == len(FILES)
        assert why in server.logged()
        assert EMBEDDING_KEY not in server.logged()
        assert sources(admin, base, WRITTEN) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"EMBEDDING_MODEL": ""}, "EMBEDDING_MODEL"),
        ({"EMBEDDING_DIMENSIONS": "0"}, "EMBEDDING_DIMENSIONS"),
        ({"EMBEDDING_URL": "ftp://127.0.0.1"}, "EMBEDDING_URL"),
    ],
)
def test_half_a_configuration_does_not_start(
    tmp_path: Path, embeddings: Embeddings, given: dict[str, str], why: str
) -> None:
    server = spawn(tmp_path / "data", given={**SETTINGS, **embeddings.settings(FIRST, **given)})
    assert server.process.wait(60) == 1
    assert why in server.printed() + server.logged()
