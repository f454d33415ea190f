"""Models of the sage contract. Generated, do not edit: run `scripts/generate`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType


class AuthProvider(Struct, kw_only=True):
    """
    One way to log in.
    """

    id: str
    type: Literal['native', 'oidc']
    name: str
    button_text: str
    description: str
    icon: str


class BadRequestError(Struct, kw_only=True):
    code: Literal[400]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class BadRequestOrBusinessError(Struct, kw_only=True):
    code: Literal[400, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class BodyTooLargeError(Struct, kw_only=True):
    code: Literal[413]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class BusinessError(Struct, kw_only=True):
    """
    A business failure with the document's code 500 beside a truthful HTTP status.
    """

    code: Literal[500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ConflictError(Struct, kw_only=True):
    code: Literal[409]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ConflictOrBusinessError(Struct, kw_only=True):
    code: Literal[409, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class FaultError(Struct, kw_only=True):
    code: Literal[500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ForbiddenError(Struct, kw_only=True):
    code: Literal[403]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ForbiddenOrBusinessError(Struct, kw_only=True):
    code: Literal[403, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class Health(Struct, kw_only=True):
    status: Literal['healthy']
    timestamp: float
    service: str


class LoginRequest(Struct, kw_only=True):
    username_or_email: str
    password: str


class LoginUser(Struct, kw_only=True):
    userid: str
    username: str
    nickname: str | None
    phonenum: str | None
    email: str | None
    role: Literal['admin', 'user']
    avatar: str | None
    avatar_url: str | None


class MediaTypeError(Struct, kw_only=True):
    code: Literal[415]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class NotAcceptableError(Struct, kw_only=True):
    code: Literal[406]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class PasswordChange(Struct, kw_only=True):
    old_password: str
    new_password: str


class RegisterRequest(Struct, kw_only=True):
    username: str
    password: str
    verification_code: str
    email: str | None | UnsetType = UNSET
    phonenum: str | None | UnsetType = UNSET


class Registered(Struct, kw_only=True):
    user_id: str


class RegistrationCode(Struct, kw_only=True):
    expires_in: int
    retry_after: int


class RegistrationCodeRequest(Struct, kw_only=True):
    email: str


class SoftError(Struct, kw_only=True):
    """
    A refusal that the document answers with HTTP 200: only `code` tells it from a success.

    """

    code: Literal[400, 403, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class StorageFullError(Struct, kw_only=True):
    code: Literal[507]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class SystemInfo(Struct, kw_only=True):
    """
    What a client needs to know before anybody has logged in. Holds no secret.
    """

    allow_registration: bool
    auth_mode: Literal['native', 'trusted_proxy', 'oauth']
    auth_providers: list[AuthProvider]
    default_auth_provider: str | None
    has_local_auth: bool
    has_oauth_auth: bool
    oauth_enabled: bool
    oauth_provider_name: str
    native_login_admin_only: bool


class SystemSettings(Struct, kw_only=True):
    allow_registration: bool


class ThrottledError(Struct, kw_only=True):
    code: Literal[429]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ThrottledOrBusinessError(Struct, kw_only=True):
    code: Literal[429, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class Tokens(Struct, kw_only=True):
    access_token: str
    refresh_token: str
    expires_in: int


class UnauthorizedError(Struct, kw_only=True):
    code: Literal[401]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class UnauthorizedOrBusinessError(Struct, kw_only=True):
    code: Literal[401, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class UnavailableError(Struct, kw_only=True):
    code: Literal[503]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class Usage(Struct, kw_only=True):
    usage: dict[str, int]


class UsageRequest(Struct, kw_only=True):
    days: int
    agent_id: str | None | UnsetType = UNSET


class User(Struct, kw_only=True):
    user_id: str
    username: str
    email: str | None
    phonenum: str | None
    role: Literal['admin', 'user']
    created_at: str


class UserAddRequest(Struct, kw_only=True):
    username: str
    password: str
    email: str | None | UnsetType = UNSET
    phonenum: str | None | UnsetType = UNSET
    role: Literal['admin', 'user'] | UnsetType = 'user'


class UserAdded(Struct, kw_only=True):
    user_id: str


class UserConfig(Struct, kw_only=True):
    config: dict[str, Any]


class UserDeleteRequest(Struct, kw_only=True):
    user_id: str


class UserOption(Struct, kw_only=True):
    label: str
    value: str


class UserPage(Struct, kw_only=True):
    items: list[User]
    total: int


class Violation(Struct, kw_only=True):
    """
    One place where the request breaks its schema. Never repeats the value that was sent.
    """

    loc: list[str | int]
    msg: str
    type: str


class Data(Struct, kw_only=True):
    errors: list[Violation]


class InvalidError(Struct, kw_only=True):
    code: Literal[422]
    message: str
    data: Data
    timestamp: float


class LoginSession(Struct, kw_only=True):
    user: LoginUser
    has_provider: bool
    has_agent: bool
