"""The signing key (security 3)."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domain.identity.keys import WeakKey, load_or_create_key, refuse_weak


def test_a_new_key_is_random_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token.key"
    key = load_or_create_key(path)
    assert len(key) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path) == key
    assert load_or_create_key(tmp_path / "other.key") != key
    assert os.listdir(path.parent) == ["token.key"]


def test_processes_that_start_together_use_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: load_or_create_key(tmp_path / "key"), range(32)))
    assert len(set(keys)) == 1
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize(
    "weak",
    [
        b"",
        b"secret",
        b"x" * 31,
        b"a" * 64,
        b"0" * 32,
        b"ab" * 32,
        b"secret".ljust(32, b"0"),
        b"changeme" * 8,
        b"your-256-bit-secret-goes-here-....",
        b"change-me".ljust(40, b"!"),
        b"\n" * 40,
    ],
)
def test_a_known_weak_key_is_refused(weak: bytes, tmp_path: Path) -> None:
    with pytest.raises(WeakKey):
        refuse_weak(weak)
    path = tmp_path / "key"
    path.write_bytes(weak)
    with pytest.raises(WeakKey):
        load_or_create_key(path)
    assert path.read_bytes() == weak


def test_an_operator_s_own_key_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"3fJ9s0dKq8Lm2Zx7Vb5Nc1Rt6Yw4Ue0P\n")
    assert load_or_create_key(path) == b"3fJ9s0dKq8Lm2Zx7Vb5Nc1Rt6Yw4Ue0P"
