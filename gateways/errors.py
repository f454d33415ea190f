"""Errors of the outside world. None of them carries a key, a password or an address's credentials.

Callers catch the class of the door they used (ModelError, OutboundError …) or a subclass.
"""


class GatewayError(Exception):
    """Something outside this process did not do what was asked of it."""


class ModelError(GatewayError):
    """A model call did not end well. What was streamed before stays valid."""


class ModelRefused(ModelError):
    """The model's server answered with an error: `status` is its HTTP status, `message` its text
    (at most 500 characters, without the key that was sent)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the model refused the call ({status}): {message}")
        self.status = status
        self.message = message


class ModelUnreachable(ModelError):
    """No connection to the model's server came about; the call was not made."""


class ModelTimeout(ModelError):
    """The model's server said nothing for longer than the call allows."""


class ModelDropped(ModelError):
    """The connection, or the process, ended before the answer did."""


class ModelMalformed(ModelError):
    """What the model's server sent is not what its protocol promises."""


class ModelCancelled(ModelError):
    """The cancel event of the call was set."""


class OutboundError(GatewayError):
    """An HTTP request to the outside did not end well."""


class OutboundRefused(OutboundError):
    """The request may not be made: its URL, an address it leads to, or a redirect on the way is
    not allowed. Nothing was sent to the refused address. `reason` says what was wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OutboundFailed(OutboundError):
    """The other side could not be reached, did not answer in time, or broke the protocol."""


class OutboundTooLarge(OutboundError):
    """The answer is larger than the caller allows, as sent or once decompressed."""


class McpError(GatewayError):
    """An MCP server did not do what was asked of it."""


class McpUnreachable(McpError):
    """The server may not be reached, does not answer, or does not speak the protocol."""


class McpRefused(McpError):
    """The operator does not let this server be started or reached."""


class McpFailed(McpError):
    """The server answered with an error of the protocol; the text is the server's own."""


class A2aError(GatewayError):
    """An A2A agent did not do what was asked of it."""


class A2aUnreachable(A2aError):
    """The agent may not be reached, does not answer, or does not speak the protocol."""


class A2aFailed(A2aError):
    """The agent answered with an error, or with a task that did not end well."""


class MailFailed(GatewayError):
    """The mail was not handed over: neither to the SMTP server nor to the outbox."""


class MailRefused(MailFailed):
    """The mail cannot be sent as it is (an address or a header that breaks RFC 5322)."""


class UpstreamUnavailable(GatewayError):
    """A login provider does not answer, or not as its protocol wants."""


class UpstreamUntrusted(GatewayError):
    """What a login provider sent proves nobody: it refused the code, or its token does not hold."""


class SearchUnavailable(GatewayError):
    """No search provider is configured."""


class SearchFailed(GatewayError):
    """The search provider did not answer, or not with a list of results."""


class PageUnreadable(GatewayError):
    """The address was read but holds no text to show: its media type, status or bytes."""


class WrongKey(GatewayError):
    """The key-encryption key at hand is not the one that sealed the value."""


class SealBroken(GatewayError):
    """A sealed value was changed, cut, or sealed for another context."""
