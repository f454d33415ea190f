"""Identifiers."""

import os
import time
import uuid


def uuid7() -> str:
    """A time-ordered UUID, version 7 (RFC 9562 §5.7), in its canonical text form."""
    stamp = time.time_ns() // 1_000_000
    value = stamp << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
