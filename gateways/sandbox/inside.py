"""The first process inside a sandbox: starts programs, and kills them with all that they started.

Runs by `python -I -S -c` with the number of a SOCK_SEQPACKET socket, the limits as JSON, the path
at which programs look for the display, "" where there can be none, and the port at which they look
for a proxy, "" where there is none. Each message is a JSON object, with descriptors beside it where
a program is to have them:

    {"do": "start", "id", "argv", "cwd", "env", "terminal", "display"}, descriptors for the program:
        from 0 on; with a terminal from 3 on, and 0 to 2 are the terminal; the X server has the
        socket that programs connect to as 3, before the others → {"id", "started"}, the terminal's
        other end beside it; later {"id", "ended": status}
    {"do": "kill", "id"}  the program and all its descendants, those that left it, too
    {"do": "connect", "id", "path"}  → {"id", "connected"}, the connection beside it
    any of them → {"id", "error"}
    {"do": "watch", "refuse"}  say when a program looks for the display, which runs no more or did
        not start; in that case (`refuse`) those who look for it now are turned away
    ← {"id": 0, "started": true}  the first of all, the proxy's socket beside it
    ← {"id": 0, "wanted": true}  a program looks for the display: start it, as it is said once

The programs run as the same user as this process and could take its place: whoever reads the
answers trusts none of them.
"""

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import termios
from contextlib import suppress
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
MESSAGE_MAX = 128 * 1024
DESCRIPTORS_MAX = 8
WAITING_MAX = 64

keepers: dict[int, int] = {}
"""The program's id → the process that keeps all its descendants (PR_SET_CHILD_SUBREAPER)."""


def tell(channel: socket.socket, message: dict[str, object], descriptors: list[int] = []) -> None:  # noqa: B006
    with suppress(OSError):
        socket.send_fds(channel, [json.dumps(message).encode()], descriptors)


def limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))


def listen(path: str) -> socket.socket:
    """The socket of the display, there before the X server is: who needs it waits for it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(WAITING_MAX)
    return listening


def listen_for_proxy(port: str) -> list[socket.socket]:
    """The socket that programs take for a proxy; whoever gets it answers."""
    if not port:
        return []
    listening = socket.create_server(("127.0.0.1", int(port)), backlog=WAITING_MAX)
    return [listening]


def refuse(listening: socket.socket) -> None:
    """Turn away who waits now."""
    listening.setblocking(False)
    with suppress(OSError):
        while True:
            listening.accept()[0].close()


def start(channel: socket.socket, message: dict[str, Any], given: list[int]) -> None:
    master = slave = -1
    if message["terminal"]:
        master, slave = os.openpty()
        modes = termios.tcgetattr(slave)
        modes[1] &= ~termios.ONLCR  # lines end as programs wrote them
        termios.tcsetattr(slave, termios.TCSANOW, modes)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        with suppress(BaseException):
            keep(channel, message, [slave, slave, slave, *given] if slave >= 0 else given, master)
        os._exit(0)
    keepers[message["id"]] = pid
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    tell(channel, {"id": message["id"], "started": True}, [master] if master >= 0 else [])
    for descriptor in (master, slave):
        if descriptor >= 0:
            os.close(descriptor)


def keep(
    channel: socket.socket, message: dict[str, Any], descriptors: list[int], master: int
) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.setsid()
    program = os.fork()
    if program == 0:
        become(message, descriptors)
    for descriptor in {*descriptors, master} - {-1}:
        os.close(descriptor)
    # What the program leaves behind is this process's until it ends, or until it is killed.
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return
        if pid == program:
            ended = os.waitstatus_to_exitcode(status)
            tell(channel, {"id": message["id"], "ended": ended})


def become(message: dict[str, Any], descriptors: list[int]) -> None:
    try:
        os.setsid()
        if message["terminal"]:
            fcntl.ioctl(descriptors[0], termios.TIOCSCTTY, 0)
        above = [fcntl.fcntl(each, fcntl.F_DUPFD, 64) for each in descriptors]
        for number, descriptor in enumerate(above):
            os.dup2(descriptor, number)
        os.closerange(len(above), 1024)
        os.chdir(message["cwd"])
        os.execvpe(message["argv"][0], message["argv"], {**os.environ, **message["env"]})  # noqa: S606
    except BaseException as error:
        with suppress(OSError):
            os.write(2, f"{message['argv'][0]}: {error}\n".encode())
    os._exit(127)


def descendants(ancestor: int) -> dict[int, str]:
    """Process id → state, of all below a process."""
    found: dict[int, str] = {}
    parents: dict[int, tuple[int, str]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, above = file.read().rpartition(b")")[2].split()[:2]
            parents[int(name)] = (int(above), state.decode())
    for pid, (parent, said) in parents.items():
        while parent in parents and parent != ancestor:
            parent = parents[parent][0]
        if parent == ancestor:
            found[pid] = said
    return found


def kill(keeper: int) -> None:
    """Stop everyone until nobody is left who could start another; then kill them all."""
    for sent, done in ((signal.SIGSTOP, "TtZX"), (signal.SIGKILL, "ZX")):
        for _ in range(1000):
            living = [pid for pid, state in descendants(keeper).items() if state not in done]
            if not living:
                break
            for pid in living:
                with suppress(ProcessLookupError):
                    os.kill(pid, sent)


def reap(*_: object) -> None:
    """A keeper's number is nobody else's until it is forgotten here."""
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            for program, keeper in list(keepers.items()):
                if keeper == pid:
                    del keepers[program]


def connect(channel: socket.socket, message: dict[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(message["path"])
        told = {"id": message["id"], "connected": True}
        tell(channel, told, [connection.fileno()])


def serve(channel: socket.socket, message: dict[str, Any], given: list[int], display: int) -> None:
    try:
        if message["do"] == "start":
            shown = [display] if message["display"] else []
            start(channel, message, given[:3] + shown + given[3:])
        elif message["do"] == "connect":
            connect(channel, message)
        elif (keeper := keepers.get(message["id"])) is not None:
            kill(keeper)
    except OSError as error:
        tell(channel, {"id": message["id"], "error": str(error)})


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    limit(json.loads(sys.argv[2]))
    os.umask(0o022)
    signal.signal(signal.SIGCHLD, reap)
    display = listen(sys.argv[3]) if sys.argv[3] else None
    watched = [channel, display] if display else [channel]
    proxy = listen_for_proxy(sys.argv[4])
    tell(channel, {"id": 0, "started": True}, [each.fileno() for each in proxy])
    for each in proxy:
        each.close()
    while True:
        if channel not in select.select(watched, [], [])[0]:
            watched = [channel]
            tell(channel, {"id": 0, "wanted": True})
            continue
        data, given, _, _ = socket.recv_fds(channel, MESSAGE_MAX, DESCRIPTORS_MAX)
        if not data:
            return
        message = json.loads(data)
        if message["do"] != "watch":
            serve(channel, message, given, display.fileno() if display else -1)
        elif display:
            if message["refuse"]:
                refuse(display)
            watched = [channel, display]
        for descriptor in given:
            os.close(descriptor)


if __name__ == "__main__":
    main()
