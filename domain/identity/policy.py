"""What an operator may decide about accounts (server/settings.py, "identity")."""

from typing import Literal

import msgspec


class IdentityPolicy(msgspec.Struct, frozen=True):
    """Times are in seconds, password lengths in characters.

    `lockout_failures` holds for one account from one address; an address as a whole has
    `address_failures`, since many people may share it.
    """

    mode: Literal["native", "trusted_proxy", "oauth"] = "native"
    password_min: int = 8
    password_max: int = 128
    session_ttl_s: int = 14 * 24 * 3600
    access_ttl_s: int = 24 * 3600
    refresh_ttl_s: int = 7 * 24 * 3600
    lockout_failures: int = 10
    lockout_s: int = 300
    address_failures: int = 100
    code_ttl_s: int = 300
    code_retry_s: int = 30
    code_attempts: int = 5
    codes_per_day: int = 20
    allow_registration: bool = True
    registration_verify_email: bool = False
