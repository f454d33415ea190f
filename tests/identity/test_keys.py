"""The signing key (security 3)."""

import pytest

from domain.identity.keys import WeakKey, refuse_weak


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
def test_a_known_weak_key_is_refused(weak: bytes) -> None:
    with pytest.raises(WeakKey):
        refuse_weak(weak)


def test_an_operator_s_own_key_is_taken() -> None:
    own = b"3fJ9s0dKq8Lm2Zx7Vb5Nc1Rt6Yw4Ue0P"
    assert refuse_weak(own) == own
