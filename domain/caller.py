"""Who makes a request."""

from typing import Literal

import msgspec

Role = Literal["admin", "operator", "viewer"]


class Caller(msgspec.Struct, frozen=True, gc=False):
    """An authenticated account as every contract sees it (rules, "Accounts, roles, tokens").

    `session_id` names the login session (`sid`), or is empty for an identity that a trusted proxy
    asserted. `via` says which credential proved it; "client" is an OAuth2 access token, which
    opens userinfo alone, within its `scope`.
    """

    user_id: str
    role: Role
    username: str = ""
    session_id: str = ""
    via: Literal["bearer", "cookie", "proxy", "client", "none"] = "none"
    scope: str = ""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


ANONYMOUS = Caller(user_id="", role="viewer")
"""The caller of a public operation that carried no credential."""
