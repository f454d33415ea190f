"""The locks: one version of each package, each with its hashes, from no named host."""

import re
from pathlib import Path

import pytest

LOCKS = Path(__file__).parent.parent.parent / "requirements"


def versions(name: str) -> dict[str, str]:
    text = (LOCKS / name).read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==([^ \\]+)", text, re.MULTILINE))


def test_what_is_tested_is_what_runs() -> None:
    runtime, dev = versions("runtime.txt"), versions("dev.txt")
    assert runtime
    assert {name: dev.get(name) for name in runtime} == runtime


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt", "bootstrap.txt"])
def test_locks_have_hashes_and_name_no_host(name: str) -> None:
    text = (LOCKS / name).read_text()
    assert "://" not in text
    entries = re.split(r"^(?=[a-z0-9._-]+(?:\[.*\])?==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
