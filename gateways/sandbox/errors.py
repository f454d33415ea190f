"""What goes wrong with sandboxes."""

from gateways.errors import GatewayError


class SandboxError(GatewayError):
    """A sandbox did not do what was asked of it. The message is fit to be shown."""


class SandboxUnavailable(SandboxError):
    """No command can run on this machine, or no display be shown; the message says why."""


class SandboxStalled(SandboxUnavailable):
    """A sandbox did not come up in time, for no reason that anybody gave."""


class SandboxEnded(SandboxError):
    """The sandbox is no more: `reason` is `closed`, `idle`, `memory`, `disk`, `files` or `died`.
    Opening the session again makes a new one over the same workspace."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the sandbox has ended ({reason})")
        self.reason = reason


class NoSuchShell(SandboxError):
    """There is no shell of that id."""


class ShellBusy(SandboxError):
    """A command runs in the shell; wait for it, interrupt it or kill the shell."""


class ShellIdle(SandboxError):
    """No command runs in the shell that could read what was written."""
