"""The secret box: security checklist 3, 53 and 54."""

import base64
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateways.errors import SealBroken, WrongKey
from gateways.secretbox import SecretBox, load_keys, mask, parse_key

KEY, OTHER = (hashlib.sha256(name).digest() for name in (b"key", b"other"))


@pytest.fixture
def box() -> SecretBox:
    return SecretBox([KEY])


@pytest.mark.parametrize("secret", ["", "sk-1234567890", "schlüssel 🔑", "x" * 100_000])
def test_what_is_sealed_opens_again(box: SecretBox, secret: str) -> None:
    sealed = box.seal(secret, "provider:1:api_key")
    assert box.open(sealed, "provider:1:api_key") == secret
    assert not secret or secret not in sealed
    assert box.seal(secret, "provider:1:api_key") != sealed


def test_it_opens_in_its_own_context_only(box: SecretBox) -> None:
    sealed = box.seal("secret", "provider:1:api_key")
    for context in ("provider:2:api_key", "provider:1:api_keY", ""):
        with pytest.raises(SealBroken):
            box.open(sealed, context)
        with pytest.raises(SealBroken):
            SecretBox([OTHER, KEY]).rotate(sealed, context)


def test_every_change_is_noticed(box: SecretBox) -> None:
    sealed = box.seal("secret", "c")
    for at in range(len(sealed)):
        for put in ("A", "B", ".", ""):
            changed = sealed[:at] + put + sealed[at + 1 :]
            if changed == sealed:
                continue
            with pytest.raises((SealBroken, WrongKey)):
                box.open(changed, "c")


def test_parts_of_two_values_do_not_mix(box: SecretBox) -> None:
    one, two = (box.seal(text, "c").split(".") for text in ("one", "two"))
    with pytest.raises(SealBroken):
        box.open(".".join([*one[:3], two[3]]), "c")


@pytest.mark.parametrize("text", ["", "plain", "q1.x.y", "q2.a.b.c", "q1.!!.??.--", "a.b.c.d.e"])
def test_what_was_never_sealed_does_not_open(box: SecretBox, text: str) -> None:
    with pytest.raises((SealBroken, WrongKey)):
        box.open(text, "c")


def test_a_wrong_key_is_refused_at_start(box: SecretBox) -> None:
    canary = box.canary()
    SecretBox([KEY]).check(canary)
    SecretBox([OTHER, KEY]).check(canary)
    for wrong in (canary, "nonsense", ""):
        with pytest.raises(WrongKey, match="former key"):
            SecretBox([OTHER]).check(wrong)
    with pytest.raises(WrongKey):
        SecretBox([OTHER]).open(box.seal("secret", "c"), "c")


def test_rotation_wraps_anew_and_keeps_the_value(box: SecretBox) -> None:
    sealed = box.seal("secret", "c")
    both = SecretBox([OTHER, KEY])
    rotated = both.rotate(sealed, "c")
    assert rotated.split(".")[3] == sealed.split(".")[3]
    assert both.rotate(rotated, "c") == rotated
    assert SecretBox([OTHER]).open(rotated, "c") == "secret"
    with pytest.raises(WrongKey):
        box.open(rotated, "c")


def test_the_first_start_makes_a_private_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    keys = load_keys(data, None, {})
    assert stat.S_IMODE((data / "secrets.key").stat().st_mode) == 0o600
    assert load_keys(data, None, {}) == keys
    assert os.listdir(data) == ["secrets.key"]
    assert load_keys(tmp_path / "other", None, {}) != keys


def test_starts_at_the_same_time_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda _: load_keys(tmp_path, None, {})[0], range(64)))
    assert len(set(keys)) == 1


def test_where_keys_come_from(tmp_path: Path) -> None:
    text, other = base64.b64encode(KEY).decode(), OTHER.hex()
    file = tmp_path / "key"
    file.write_text(f"# new, then old\n{text}\n\n{other}\n")
    assert load_keys(tmp_path, file, {"SECRETS_KEY": other}) == [KEY, OTHER]
    assert load_keys(tmp_path, None, {"SECRETS_KEY": f"{other},{text}"}) == [OTHER, KEY]
    assert not (tmp_path / "secrets.key").exists()
    assert parse_key(base64.urlsafe_b64encode(KEY).decode().rstrip("=")) == KEY


@pytest.mark.parametrize(
    "text", ["short", "0" * 64, base64.b64encode(b"\1" * 32).decode(), "é" * 44, KEY.hex()[:-2]]
)
def test_keys_that_are_none_stop_the_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError) as refused:
        load_keys(tmp_path, None, {"SECRETS_KEY": text})
    assert text not in str(refused.value)
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ValueError):
        load_keys(tmp_path, file, {})


def test_files_that_are_empty_missing_or_open_to_others_stop_the_start(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n# nothing\n")
    with pytest.raises(ValueError, match="no key"):
        load_keys(tmp_path, empty, {})
    with pytest.raises(OSError):
        load_keys(tmp_path, tmp_path / "missing", {})
    load_keys(tmp_path, None, {})
    (tmp_path / "secrets.key").chmod(0o644)
    with pytest.raises(ValueError, match="0600"):
        load_keys(tmp_path, None, {})


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("sk-abcdef123456", "****3456"),
        ("12345678", "****5678"),
        ("1234567", "****"),
        ("abc", "****"),
        ("", "****"),
    ],
)
def test_a_mask_shows_at_most_four_characters(secret: str, shown: str) -> None:
    assert mask(secret) == shown


def test_nothing_of_a_key_is_shown(box: SecretBox) -> None:
    assert KEY.hex() not in repr(box)
    assert base64.b64encode(KEY).decode() not in repr(vars(box))
