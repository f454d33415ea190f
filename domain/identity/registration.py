"""The one door through which people make accounts for themselves."""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable

from domain.errors import Disabled, Forbidden, Throttled, Unavailable, Unusable
from domain.identity.passwords import Passwords
from domain.identity.policy import IdentityPolicy
from domain.identity.trail import Trail
from domain.ids import uuid7
from domain.mail_address import mail_address
from domain.system import System
from domain.users import add_under_free_name, add_unique, new_user
from gateways.errors import MailFailed, MailRefused
from storage.database import Database, Unit
from storage.email_codes import EmailCode, EmailCodeStore
from storage.users import User, UserStore, folded

Send = Callable[[str, str, str], Awaitable[None]]
"""Sends a plain-text mail: to, subject, text. Raises MailFailed, or MailRefused for an address that
no mail can go to (gateways.mail.Mail.send)."""

DAY_S = 24 * 3600


class Registration:
    """Accounts for people who can read the mail of the address they give.

    Nobody learns here whether an address has an account: the answers, the waiting times and the
    work are the same, and only the mail differs. A code is six digits, good once, for a few
    attempts and minutes, and only the newest of an address counts; how many an address gets in a
    day is limited, so that guessing stays hopeless.
    """

    def __init__(
        self,
        database: Database,
        *,
        users: UserStore,
        codes: EmailCodeStore,
        trail: Trail,
        passwords: Passwords,
        system: System,
        send: Send,
        key: bytes,
        policy: IdentityPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._users = users
        self._codes = codes
        self._trail = trail
        self._passwords = passwords
        self._system = system
        self._send = send
        self._key = hashlib.sha256(b"quartet e-mail codes " + key).digest()
        self._policy = policy
        self._clock = clock

    async def send_code(self, email: str, *, language: str = "zh") -> tuple[int, int]:
        """Mail a code; returns (seconds it is good for, seconds until the next may be asked for).

        Raises Disabled("registration.disabled"), Forbidden("registration.closed"),
        Unusable("registration.email_missing" | "registration.email_invalid"),
        Throttled("registration.too_soon"), Unavailable("registration.mail_failed").
        """
        await self._refuse_closed()
        address = _required_address(email)
        digits = f"{secrets.randbelow(1_000_000):06}"
        now = self._clock()
        code = EmailCode(
            id=uuid7(),
            email_key=folded(address),
            code_hash=self._hash(address, digits),
            created_at=now,
            expires_at=now + self._policy.code_ttl_s,
        )
        # A row is kept in either case, so that the next request answers alike too.
        taken = await self._users.find_by_email(address) is not None
        await self._database.write(lambda: self._add_code(code))
        subject, text = _mail(language, "" if taken else digits, self._policy.code_ttl_s)
        try:
            await self._send(address, subject, text)
        except MailFailed as error:
            await self._database.write(lambda: self._codes.delete(code.id))
            if isinstance(error, MailRefused):
                raise Unusable("registration.email_invalid") from error
            raise Unavailable("registration.mail_failed") from error
        return self._policy.code_ttl_s, self._policy.code_retry_s

    async def register(
        self,
        *,
        username: str,
        password: str,
        email: str | None,
        code: str,
        phonenum: str | None = None,
        address: str = "",
    ) -> User:
        """Make an operator's account against a code; `address` is where the request comes from.

        Raises Disabled("registration.disabled"), Forbidden("registration.closed"),
        Unusable("registration.email_missing" | "registration.email_invalid" |
        "registration.code_wrong" | "user.username_invalid" | "password.length"),
        Conflict("user.exists" | "user.email_exists"), after which the code is still good.
        """
        await self._refuse_closed()
        mailbox = _required_address(email or "")
        user = new_user(username, mailbox, phonenum, "operator", now=self._clock())
        user.email_verified = True
        self._passwords.check(password)
        code_id = await self._check_code(mailbox, code)
        user.password_hash = await self._passwords.hash(password)
        now = self._clock()

        def unit() -> Unit[None]:
            if not (yield from self._codes.use(code_id, now)):
                raise Unusable("registration.code_wrong")
            yield from add_unique(self._users, user)
            yield from self._trail.tell(
                user.id, "user.registered", actor=user.id, address=address, role=user.role
            )

        await self._database.write(unit)
        return user

    async def register_unproven(
        self,
        *,
        username: str | None,
        email: str | None,
        password: str,
        nickname: str | None = None,
        address: str = "",
    ) -> User:
        """Make an operator's account without a code, so that nobody has proved to read `email`.
        Without a username it is called after the address.

        Raises Disabled("registration.disabled"), Forbidden("registration.closed" |
        "registration.needs_code"), Unusable("registration.unnamed" | "registration.email_invalid" |
        "user.username_invalid" | "password.length"), Conflict("user.exists" | "user.email_exists").
        """
        await self._refuse_closed()
        if self._policy.registration_verify_email:
            raise Forbidden("registration.needs_code")
        named = (username or "").strip()
        mailbox = mail_address(email) if email and email.strip() else None
        if not named and mailbox is None:
            raise Unusable("registration.unnamed")
        wished = named or (mailbox or "").partition("@")[0]
        user = new_user(wished, mailbox, None, "operator", now=self._clock())
        user.nickname = nickname or user.username
        self._passwords.check(password)
        user.password_hash = await self._passwords.hash(password)
        add = add_unique if named else add_under_free_name

        def unit() -> Unit[None]:
            yield from add(self._users, user)
            yield from self._trail.tell(
                user.id, "user.registered", actor=user.id, address=address, role=user.role
            )

        await self._database.write(unit)
        return user

    async def purge(self) -> int:
        """Forget codes that ran out a day ago or earlier; how many."""
        before = self._clock() - DAY_S
        return await self._database.write(lambda: self._codes.purge(before))

    async def _refuse_closed(self) -> None:
        if self._policy.mode != "native":
            raise Disabled("registration.disabled")
        if not await self._system.allows_registration():
            raise Forbidden("registration.closed")

    def _add_code(self, code: EmailCode) -> Unit[None]:
        count, last = yield from self._codes.sent_since(code.email_key, code.created_at - DAY_S)
        wait = last + self._policy.code_retry_s - code.created_at
        if wait > 0:
            raise Throttled("registration.too_soon", retry_after=int(wait) + 1)
        if count >= self._policy.codes_per_day:
            raise Throttled("registration.too_soon", retry_after=3600)
        yield from self._codes.add(code)

    async def _check_code(self, email: str, digits: str) -> str:
        """The id of the code, if it is the newest of the address and right. The attempt counts
        even if the registration fails later: it is committed by itself."""
        now = self._clock()
        tried = await self._database.write(
            lambda: self._codes.try_newest(folded(email), most=self._policy.code_attempts, now=now)
        )
        given = self._hash(email, digits.strip())
        if tried is None or not hmac.compare_digest(given, tried[1]):
            raise Unusable("registration.code_wrong")
        return tried[0]

    def _hash(self, email: str, digits: str) -> str:
        text = f"{folded(email)}\n{digits}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def _required_address(email: str) -> str:
    if not email.strip():
        raise Unusable("registration.email_missing")
    return mail_address(email)


def _mail(language: str, digits: str, ttl_s: int) -> tuple[str, str]:
    """Subject and text; without digits, for an address that has an account."""
    minutes = max(1, ttl_s // 60)
    if language == "en":
        if digits:
            return (
                f"Your verification code: {digits}",
                f"Your verification code is {digits}. It is good for {minutes} minutes.\n\n"
                "If you did not ask for it, ignore this mail.\n",
            )
        return (
            "You have an account already",
            "Somebody asked to register with this address, which has an account already.\n\n"
            "If that was you, log in. If it was not, ignore this mail.\n",
        )
    if digits:
        return (
            f"您的验证码:{digits}",
            f"您的验证码是 {digits}，{minutes} 分钟内有效。\n\n如非本人操作，请忽略此邮件。\n",
        )
    return (
        "该邮箱已注册账号",
        "有人使用此邮箱申请注册，但该邮箱已有账号。\n\n如是本人操作，请直接登录；否则请忽略此邮件。\n",
    )
