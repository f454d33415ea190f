"""YAML is read as the JSON that an author means."""

from pathlib import Path

import pytest

from scripts.pipeline.source import Unreadable, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("12:30", "12:30"),
        ("2024-03-09", "2024-03-09"),
        ("007", 7),
        ("-3", -3),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.0.0", "1.0.0"),
        ("0x10", "0x10"),
        ("null", None),
        ("~", None),
        ("''", ""),
        ("'200'", "200"),
        ("你好", "你好"),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"key: {text}\n")
    found = read(file)["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_names_and_anchors_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("200: &ok {yes: 1}\n404: *ok\n")
    assert read(file) == {"200": {"yes": 1}, "404": {"yes": 1}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2\n", "the key 'a' stands twice"),
        ("a: {b: 1, c: 2, b: 3}\n", "the key 'b' stands twice"),
        ("a: {description: One, two}\n", "the key 'two' has no value"),
        ("a:\n", "the key 'a' has no value"),
        ("[a]: 1\n", "a key is a name"),
        ("- 1\n", "not a mapping"),
        ("", "not a mapping"),
        ("a: [1\n", "did not find expected"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
    ],
)
def test_what_json_could_not_say_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(Unreadable, match=reason):
        read(file)


def test_a_file_that_is_not_there_or_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(Unreadable):
        read(tmp_path / "latin.yaml")
