"""The first process of a sandbox, outside it: gives up what the server has, and becomes bwrap.

Runs by `python -I -S -c` with a JSON object as its argument: `parent`, the server's process id;
`argv`, of bwrap; and, where the server is root, `uid` and `shown`: directories ([source, name])
that the session's user may not reach by their own paths and that bwrap finds at /mnt/<name>.
"""

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress

CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
NICENESS = 5

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        sys.exit(f"{name}: {os.strerror(number)}")


def die_with(parent: int) -> None:
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the server has gone")


def show(shown: list[list[str]]) -> None:
    call("unshare", CLONE_NEWNS)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    call("mount", b"none", b"/mnt", b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=755,size=64k")
    for source, name in shown:
        os.mkdir(f"/mnt/{name}")
        call("mount", os.fsencode(source), f"/mnt/{name}".encode(), None, MS_BIND, None)


def main() -> None:
    given = json.loads(sys.argv[1])
    die_with(given["parent"])
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    os.nice(NICENESS)
    if "uid" in given:
        show(given["shown"])
        os.setgroups([])
        os.setresgid(given["uid"], given["uid"], given["uid"])
        os.setresuid(given["uid"], given["uid"], given["uid"])
        die_with(given["parent"])
    os.chdir("/")
    os.execve(given["argv"][0], given["argv"], {})  # noqa: S606


if __name__ == "__main__":
    main()
