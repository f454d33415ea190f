"""Mail: the outbox on a real disk, SMTP against a real server."""

import asyncio
import email
import stat
from collections.abc import AsyncIterator
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from gateways.errors import MailFailed, MailRefused
from gateways.mail import Mail, SmtpServer

SENDER = "quartet@example.org"


class Inbox:
    """What the server was given; `refuse` is its answer to the next mail, when set."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refuse = ""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse:
            return self.refuse
        self.envelopes.append(envelope)
        return "250 OK"


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@pytest.fixture
async def smtp(inbox: Inbox) -> AsyncIterator[SmtpServer]:
    """A server that wants to know who sends."""

    def authenticate(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        known = (data.login, data.password) == (b"me", b"pass-canary")
        return AuthResult(success=known, handled=known)

    def protocol() -> SMTP:
        return SMTP(inbox, authenticator=authenticate, auth_required=True, auth_require_tls=False)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield SmtpServer(
        host="127.0.0.1", port=port, username="me", password="pass-canary", starttls=False
    )
    server.close()


async def test_without_a_server_a_mail_is_a_private_file(tmp_path: Path) -> None:
    outbox = tmp_path / "data" / "outbox"
    await Mail(SENDER, outbox).send("mei@example.com", "验证码 123456", "您的验证码：123456\n")
    (path,) = outbox.iterdir()
    assert path.suffix == ".eml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "123456" in path.read_text()
    message = email.message_from_bytes(path.read_bytes(), policy=default)
    assert message["From"] == SENDER
    assert message["To"] == "mei@example.com"
    assert message["Subject"] == "验证码 123456"
    assert message["Date"].datetime is not None
    assert message["Message-ID"].endswith("@example.org>")
    assert message.get_content().strip() == "您的验证码：123456"


async def test_with_a_server_it_is_handed_over(
    tmp_path: Path, smtp: SmtpServer, inbox: Inbox
) -> None:
    await Mail(SENDER, tmp_path / "outbox", smtp).send("mei@example.com", "Code", "It is 42.\n.\n")
    (envelope,) = inbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == (SENDER, ["mei@example.com"])
    message = email.message_from_bytes(envelope.content or b"", policy=default)
    assert message["Subject"] == "Code"
    assert message.get_content().splitlines() == ["It is 42.", "."]
    assert not (tmp_path / "outbox").exists()


BAD_ADDRESSES = [
    "", "mei", "@example.com", "mei@", "mei@example.com\r\nBcc: all@example.com",
    "mei@example.com\nBcc: all@example.com", "mei@example.com,all@example.com",
    "mei@example.com, all@example.com", "Mei <mei@example.com>", "mei@example.com\x00",
    "mei@example.com\u2028Bcc: x@y.z", "mei@exa mple.com", "a@b@c", "mei@example.com>",
    "x" * 400 + "@example.com", "mei@[127.0.0.1", '"mei@example.com',
]  # fmt: skip


@pytest.mark.parametrize("to", BAD_ADDRESSES)
async def test_an_address_that_is_none_sends_nothing(tmp_path: Path, to: str) -> None:
    with pytest.raises(MailRefused):
        await Mail(SENDER, tmp_path / "outbox").send(to, "Subject", "text")
    with pytest.raises(MailRefused):
        Mail(to, tmp_path)
    assert not (tmp_path / "outbox").exists()


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x00", "\u2028", "\x1b"])
async def test_a_subject_cannot_bring_a_header(tmp_path: Path, end: str) -> None:
    with pytest.raises(MailRefused):
        await Mail(SENDER, tmp_path / "outbox").send(
            "mei@example.com", f"Hello{end}Bcc: all@example.com", "text"
        )
    assert not (tmp_path / "outbox").exists()


async def test_a_text_stays_a_text(tmp_path: Path, smtp: SmtpServer, inbox: Inbox) -> None:
    text = "Bcc: all@example.com\r\n\r\n.\r\nRCPT TO:<all@example.com>\r\n" + "long " * 1000
    await Mail(SENDER, tmp_path, smtp).send("mei@example.com", "Subject " * 40, text)
    (envelope,) = inbox.envelopes
    assert envelope.rcpt_tos == ["mei@example.com"]
    message = email.message_from_bytes(envelope.content or b"", policy=default)
    assert message["Bcc"] is None
    assert message["Subject"].split() == ["Subject"] * 40
    assert message.get_content().split() == text.split()


async def test_failures_are_said_without_the_password(
    tmp_path: Path, smtp: SmtpServer, inbox: Inbox
) -> None:
    wrong = SmtpServer(
        host=smtp.host, port=smtp.port, username="me", password="wrong-canary", starttls=False
    )
    tls = SmtpServer(host=smtp.host, port=smtp.port, username="me", password="wrong-canary")
    nobody = SmtpServer(host="127.0.0.1", port=1, password="wrong-canary", timeout_s=2)
    for server in (wrong, tls, nobody):
        with pytest.raises(MailFailed) as failed:
            await Mail(SENDER, tmp_path, server).send("mei@example.com", "s", "t")
        assert "canary" not in str(failed.value)
        assert "canary" not in repr(server)
    inbox.refuse = "550 no such user"
    with pytest.raises(MailFailed):
        await Mail(SENDER, tmp_path, smtp).send("mei@example.com", "s", "t")
    assert inbox.envelopes == []


async def test_an_outbox_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file, not a folder")
    with pytest.raises(MailFailed):
        await Mail(SENDER, tmp_path / "outbox").send("mei@example.com", "s", "t")
