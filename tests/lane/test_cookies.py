"""Cookies of ours: what is set, and what is read of what a browser sends."""

import pytest

from server.lane.cookies import Cookies

PLAIN, SECURE = Cookies(secure=False), Cookies(secure=True)


def test_what_is_set() -> None:
    assert PLAIN.header("sage_upstream", "x", 600) == (
        b"set-cookie",
        b"sage_upstream=x; Max-Age=600; Path=/; HttpOnly; SameSite=Lax",
    )
    assert SECURE.header("sage_upstream", "x", 600) == (
        b"set-cookie",
        b"__Host-sage_upstream=x; Max-Age=600; Path=/; HttpOnly; SameSite=Lax; Secure",
    )
    assert b"sage_upstream=; Max-Age=0;" in PLAIN.header("sage_upstream", "", 600)[1]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"sage_upstream=x", "x"),
        (b"a=b; sage_upstream=x; c=d", "x"),
        (b"a=b;sage_upstream=x", "x"),
        (b"sage_upstream=first; sage_upstream=second", "first"),
        (b"sage_upstream=a=b", "a=b"),
        (b"sage_upstream=\xff", "\xff"),
        (b"sage_upstream=", ""),
        (b"sage_upstream", None),
        (b"xsage_upstream=x", None),
        (b"sage_upstream_=x", None),
        (b"SAGE_UPSTREAM=x", None),
        (b"__Host-sage_upstream=x", None),
        (b"a=sage_upstream=x", None),
        (b"", None),
    ],
)
def test_what_is_read(sent: bytes, expected: str | None) -> None:
    assert PLAIN.read({b"cookie": sent}, "sage_upstream") == expected
    secure = SECURE.read({b"cookie": b"__Host-" + sent}, "sage_upstream")
    assert secure == (None if sent.startswith((b"__Host-", b"a=b")) else expected)
    assert PLAIN.read({}, "sage_upstream") is None
