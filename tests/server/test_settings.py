"""server/settings.py and .env.example say the same."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from server.settings import Settings
from tests.serving import ROOT

EXAMPLE = (ROOT / ".env.example").read_text()


def listed() -> dict[str, str]:
    return dict(re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_listed_and_no_other() -> None:
    assert listed().keys() == {name.upper() for name in Settings.model_fields}


def test_the_listed_values_are_the_defaults(tmp_path: Path) -> None:
    given = "\n".join(f"{name}={value}" for name, value in listed().items() if value)
    (tmp_path / ".env").write_text(given)
    assert Settings() == Settings(_env_file=None)
    for name, value in listed().items():
        default = getattr(Settings(_env_file=None), name.lower())
        assert bool(value) == (default not in (None, "", ())), name


def test_each_setting_is_explained() -> None:
    explained = False
    for line in EXAMPLE.splitlines():
        if re.match(r"#[A-Z_]+=", line):
            assert explained, line
        else:
            explained = line.startswith("# ") and not line.startswith("# ---")


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1 ,")
    assert Settings().trusted_proxies == ("10.0.0.0/8", "127.0.0.1")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in Settings.model_fields.items():
        if "SecretStr" in str(field.annotation):
            monkeypatch.setenv(name.upper(), "S3CRET-S3CRET")
    settings = Settings()
    assert isinstance(settings.admin_password, SecretStr)
    assert "S3CRET" not in repr(settings) + str(settings.model_dump())
