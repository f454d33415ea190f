"""The system call filter of a sandbox, as classic BPF (seccomp(2), linux/filter.h).

A filter of what is refused, not of what is allowed: programs of any kind run inside. Refused is
memory that belongs to no process and so to no limit (memfd, System V shared memory), looking into
other processes, and parts of the kernel that are large, privileged in other ways and needed by
nothing that agents run.
"""

import errno
import platform
import struct

X86_64, AARCH64 = 0xC000003E, 0xC00000B7
REFUSED: dict[str, tuple[int, int]] = {
    # name: number on x86_64 (asm/unistd_64.h), on aarch64 (asm-generic/unistd.h)
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "unshare": (272, 97),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000


def system_calls() -> bytes:
    """The filter for this machine; b"" on one that it does not know. System calls of another
    architecture (32 bit, x32), which the numbers do not fit, end the process."""
    machines = {"x86_64": (X86_64, 0), "aarch64": (AARCH64, 1)}
    if platform.machine() not in machines:
        return b""
    architecture, column = machines[platform.machine()]
    numbers = [row[column] for row in REFUSED.values()]
    program = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, len(numbers) + 1, 0, _X32),
        *((_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
