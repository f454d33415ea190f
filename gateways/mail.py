"""Mail: by SMTP where a server is configured, else as a readable file per mail in the outbox."""

import asyncio
import contextlib
import os
import re
import secrets
import time
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime
from pathlib import Path

import msgspec

from gateways.errors import MailFailed, MailRefused

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")


class SmtpServer(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail is handed over. With `starttls` the connection is encrypted or the mail fails."""

    host: str
    port: int = 587
    username: str = ""
    password: str = ""
    starttls: bool = True
    timeout_s: float = 15.0

    def __repr__(self) -> str:
        return f"SmtpServer({self.host!r}, {self.port})"


class Mail:
    """Sends mail from `sender` through `server`, or into the folder `outbox` when it is None."""

    def __init__(self, sender: str, outbox: Path, server: SmtpServer | None = None) -> None:
        """Raises MailRefused for a sender that is no address."""
        self._sender = address(sender)
        self._outbox = outbox
        self._server = server

    async def send(self, to: str, subject: str, text: str) -> None:
        """Hand one plain-text mail over; on return the server, or the disk, has it.

        Raises MailRefused (an address or subject that breaks RFC 5322: control characters are
        refused, not escaped) and MailFailed.
        """
        message = compose(self._sender, to, subject, text, plain=self._server is None)
        if self._server is None:
            await asyncio.to_thread(write, self._outbox, message)
        else:
            await _submit(self._server, message)


def address(text: str) -> Address:
    """An addr-spec (RFC 5322, 3.4.1), without a display name. Raises MailRefused."""
    if _CONTROL.search(text) or len(text) > 320:
        raise MailRefused("a mail address holds a control character or is too long")
    try:
        parsed = Address(addr_spec=text)
    except (ValueError, IndexError, UnicodeError):
        raise MailRefused("a mail address cannot be read") from None
    except Exception as error:  # email.errors.HeaderParseError and its kin share no useful base
        raise MailRefused("a mail address cannot be read") from error
    if not parsed.username or not parsed.domain or parsed.addr_spec != text:
        raise MailRefused("a mail address cannot be read")
    return parsed


def compose(sender: Address, to: str, subject: str, text: str, *, plain: bool) -> EmailMessage:
    """The mail as a message; `plain` leaves its text readable for people, else it is fit for
    servers that take seven bits. Raises MailRefused."""
    if _CONTROL.search(subject):
        raise MailRefused("a mail's subject holds a control character")
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = address(to)
    message["Subject"] = subject
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = f"<{secrets.token_hex(16)}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text, charset="utf-8", cte=_encoding(text, plain))
    return message


def _encoding(text: str, plain: bool) -> str:
    if any(len(line.encode()) > 998 for line in text.splitlines()):  # RFC 5321, 4.5.3.1.6
        return "base64"
    if text.isascii():
        return "7bit"
    return "8bit" if plain else "base64"


def write(outbox: Path, message: EmailMessage) -> Path:
    """Put the mail into the outbox as `<time>-<random>.eml`: whole or not at all, and readable by
    the owner only, for it may hold a code. Raises MailFailed."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    path = outbox / f"{stamp}-{secrets.token_hex(6)}.eml"
    draft = path.with_suffix(".part")
    try:
        outbox.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(message.as_bytes())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise MailFailed(f"the outbox cannot be written: {error.strerror}") from error
    return path


async def _submit(server: SmtpServer, message: EmailMessage) -> None:
    import aiosmtplib

    try:
        await aiosmtplib.send(
            message,
            hostname=server.host,
            port=server.port,
            username=server.username or None,
            password=server.password or None,
            start_tls=server.starttls and server.port != 465,
            use_tls=server.port == 465,
            timeout=server.timeout_s,
        )
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise MailFailed(f"the mail server did not take the mail: {type(error).__name__}") from None
