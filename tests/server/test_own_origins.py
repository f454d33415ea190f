"""Which pages are the server's own, as `Origin` names them."""

import pytest

from server.configured import own_origins
from server.settings import Settings


@pytest.mark.parametrize(
    ("given", "own", "foreign"),
    [
        (
            {},
            ("http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:3005"),
            ("http://127.0.0.1", "https://localhost:8000", "http://evil.example:8000", "null"),
        ),
        (
            {"public_url": "https://agents.example/"},
            ("https://agents.example",),
            ("http://localhost:8000", "http://agents.example"),
        ),
        ({"host": "10.1.2.3"}, ("http://10.1.2.3:8000",), ("http://localhost:8000",)),
    ],
)
def test_own_origins(given: dict[str, str], own: tuple[str, ...], foreign: tuple[str, ...]) -> None:
    found = own_origins(Settings(_env_file=None, **given))
    assert set(own) <= found
    assert found.isdisjoint(foreign)
