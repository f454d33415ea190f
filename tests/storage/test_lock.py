"""A data directory has one holder."""

import subprocess
import sys
from pathlib import Path

import pytest

from storage.lock import DirectoryLock, Locked

HOLD = """
import pathlib, sys
from storage.lock import DirectoryLock
lock = DirectoryLock(pathlib.Path(sys.argv[1]))
lock.acquire(0.0)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_process_learns_who_holds_it_until_that_one_is_killed(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Locked, match=rf"process {holder.pid} on .* since 1970-01-01 00:00:00"):
            lock.acquire()
        holder.kill()
    lock.acquire()
    lock.release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.acquire()
    with pytest.raises(Locked):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
