"""The key that signs access tokens."""

KEY_BYTES = 32

_WEAK = frozenset(
    word.ljust(KEY_BYTES, b"\0")[:KEY_BYTES]
    for word in (
        b"secret",
        b"changeme",
        b"change-me",
        b"change_me",
        b"password",
        b"quartet",
        b"default",
        b"test",
        b"development",
        b"your-secret-key",
        b"your-256-bit-secret",
        b"supersecret",
        b"mysecretkey",
    )
)


class WeakKey(ValueError):
    """The key can be guessed, or is too short (RFC 7518 §3.2 asks for 256 bits)."""


def refuse_weak(key: bytes) -> bytes:
    """The key itself. Raises WeakKey."""
    if len(key) < KEY_BYTES:
        raise WeakKey(f"a signing key has at least {KEY_BYTES} bytes, this one has {len(key)}")
    shown = key.strip().lower()
    repeated = any(shown == (shown[:n] * len(shown))[: len(shown)] for n in range(1, 9))
    padded = shown.rstrip(b"\0=0-_. !1").ljust(KEY_BYTES, b"\0")[:KEY_BYTES]
    if repeated or padded in _WEAK or shown.startswith((b"your-256-bit", b"your_secret")):
        raise WeakKey(
            "the signing key is a well-known or repeated text; delete it to get a new one"
        )
    return key
