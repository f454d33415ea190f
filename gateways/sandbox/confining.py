"""What bubblewrap is told: which namespaces, what is seen of the machine, as whom (bwrap(1))."""

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateways.sandbox import filtering

HOME = "/home/ubuntu"
WORKSPACE = f"{HOME}/workspace"
UID = 1000
"""Everybody's number inside."""
SPARE_UIDS = range(1 << 30, 1 << 31)
FEW_UIDS = range(20_000, 60_000)
"""Numbers outside that belong to nobody; the few where a container has no others."""

_PASSWD = f"""root:x:0:0:root:/root:/usr/sbin/nologin
ubuntu:x:{UID}:{UID}:ubuntu:{HOME}:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = f"root:x:0:\nubuntu:x:{UID}:\nnogroup:x:65534:\n"
_HOSTS = "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n"
_ETC = (
    *("X11", "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf"),
    *("os-release", "perl", "protocols", "python3", "python3.11", "services", "ssl/certs"),
    *("ssl/openssl.cnf", "timezone"),
)
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games",
    "HOME": HOME,
    "USER": "ubuntu",
    "LOGNAME": "ubuntu",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "DISPLAY": ":0",
    "XDG_RUNTIME_DIR": "/run",
}
PROXY_PORT = 3128
_PROXIES = {
    **dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), f"http://127.0.0.1:{PROXY_PORT}"
    ),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
    "NODE_USE_ENV_PROXY": "1",
}


class SandboxLimits(msgspec.Struct, frozen=True):
    """What one sandbox may use.

    Bound by the kernel: `processes` (threads counted), `file_bytes` (one file), `open_files` and
    `cpu_s` (of one process), `scratch_bytes` (each of /tmp, the home directory and /dev/shm, which
    lie in memory beside `memory_bytes`). Bound by being watched: `memory_bytes` (all processes;
    the kernel binds the data of each to as much), `disk_bytes` and `files` (the workspace): beyond
    them the sandbox ends. `idle_s` without a command, a program or a display ends it, too.
    """

    memory_bytes: int = 1 << 30
    processes: int = 256
    open_files: int = 1024
    file_bytes: int = 256 << 20
    cpu_s: int = 3600
    scratch_bytes: int = 256 << 20
    disk_bytes: int = 1 << 30
    files: int = 50_000
    idle_s: float = 900.0
    shells: int = 16
    records: int = 100
    output_bytes: int = 64 << 10

    def of_processes(self) -> dict[str, int]:
        """Resource limits (setrlimit(2)) by name."""
        return {
            "NPROC": self.processes,
            "DATA": self.memory_bytes,
            "FSIZE": self.file_bytes,
            "CPU": self.cpu_s,
            "NOFILE": self.open_files,
            "CORE": 0,
            "MSGQUEUE": 0,
            "MEMLOCK": 64 << 10,
        }


def uid_of(session_id: str) -> int:
    """The number of a session's user outside, where the server is root: always the same, so that
    its files stay its own."""
    mapped = Path("/proc/self/uid_map").read_text().split()
    spare = SPARE_UIDS if int(mapped[0]) + int(mapped[2]) >= SPARE_UIDS.stop else FEW_UIDS
    digest = hashlib.sha256(session_id.encode()).digest()
    return spare[int.from_bytes(digest[:8]) % len(spare)]


def interpreter() -> tuple[str, str | None]:
    """The Python that runs inside.py, and the directory it needs where that is not below /usr."""
    real, base = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    if base == "/usr" or base.startswith("/usr/"):
        return real, None
    return f"/opt/python/{os.path.relpath(real, base)}", base


def arguments(
    bwrap: str,
    *,
    workspace: str,
    python: str | None,
    limits: SandboxLimits,
    network: bool,
    descriptors: list[int],
) -> list[str]:
    """bwrap's command line up to the command. Descriptors that it is to read are opened here and
    added to `descriptors`; they are the caller's to pass on and to close. With `network` programs
    are told of a proxy at PROXY_PORT."""
    argv = [bwrap, "--unshare-user", "--unshare-all", "--disable-userns"]
    argv += ["--uid", str(UID), "--gid", str(UID), "--hostname", "sandbox"]
    argv += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    environment = _ENVIRONMENT | (_PROXIES if network else {})
    if python is not None:
        environment["PATH"] += ":/opt/python/bin"
    for name, value in environment.items():
        argv += ["--setenv", name, value]
    argv += ["--ro-bind", "/usr", "/usr", *_merged()]
    if python is not None:
        argv += ["--ro-bind", python, "/opt/python"]
    for name in _ETC:
        argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for text, path in ((_PASSWD, "passwd"), (_GROUP, "group"), (_HOSTS, "hosts")):
        argv += ["--perms", "0444", "--ro-bind-data"]
        argv += [_file(text.encode(), descriptors), f"/etc/{path}"]
    scratch = str(limits.scratch_bytes)
    # ruff's S108 is about the host's /tmp; these are the sandbox's own.
    argv += ["--proc", "/proc", "--dev", "/dev"]
    argv += ["--perms", "0444", "--ro-bind-data", _file(b"", descriptors), "/proc/cmdline"]
    for mode, path in (("1777", "/dev/shm"), ("1777", "/tmp"), ("0755", HOME)):  # noqa: S108
        argv += ["--perms", mode, "--size", scratch, "--tmpfs", path]
    argv += ["--perms", "0755", "--size", str(1 << 20), "--tmpfs", "/run"]
    argv += ["--symlink", "/tmp", "/var/tmp", "--bind", workspace, WORKSPACE]  # noqa: S108
    argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORKSPACE]
    if calls := filtering.system_calls():
        argv += ["--seccomp", _file(calls, descriptors)]
    return argv


def _merged() -> Iterable[str]:
    """/bin, /lib and the like: links into /usr where the machine has them so."""
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")):
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path).lstrip("/"), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))


def _file(content: bytes, descriptors: list[int]) -> str:
    """The number of a descriptor that the content is read from: a file in memory, as a pipe has no
    end while another process holds it."""
    descriptor = os.memfd_create("content", os.MFD_CLOEXEC)
    descriptors.append(descriptor)
    os.pwrite(descriptor, content, 0)
    return str(descriptor)
