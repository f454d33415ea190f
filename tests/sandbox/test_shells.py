"""Shells: what stays, what is recorded, what can be done to a program that runs."""

import asyncio
import shlex

import pytest

from gateways.sandbox.errors import NoSuchShell, SandboxError, ShellBusy, ShellIdle
from gateways.sandbox.sandboxes import Sandbox, Sandboxes
from gateways.sandbox.shells import ConsoleRecord
from tests.sandbox.conftest import SMALL


async def test_a_shell_keeps_its_directory_and_variables(sandbox: Sandbox) -> None:
    first = await sandbox.shell("a", "cd /tmp; word=kept; declare -i n=41; f() { n+=1; }; f")
    assert (first.output, first.exit_code) == ("", 0)
    assert (await sandbox.shell("a", "echo $PWD $word $n")).output == "/tmp kept 42\n"


async def test_shells_are_apart_but_share_the_workspace(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "word=mine; echo shared > file")
    assert (await sandbox.shell("b", 'echo "<$word>" $(cat file)')).output == "<> shared\n"
    assert sandbox.shells() == ["a", "b"]


@pytest.mark.parametrize(
    ("command", "code"), [("true", 0), ("false", 1), ("(exit 42)", 42), ("nothing-like-it", 127)]
)
async def test_exit_codes(sandbox: Sandbox, command: str, code: int) -> None:
    assert (await sandbox.shell("a", command)).exit_code == code


async def test_console_records(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "echo one")
    await sandbox.shell("a", "cd /tmp; echo two >&2")
    await sandbox.shell("a", "cat <<end\na  b\nend")
    assert sandbox.records("a") == [
        ConsoleRecord("ubuntu@sandbox:~/workspace$ ", "echo one", "one\n"),
        ConsoleRecord("ubuntu@sandbox:~/workspace$ ", "cd /tmp; echo two >&2", "two\n"),
        ConsoleRecord("ubuntu@sandbox:/tmp$ ", "cat <<end\na  b\nend", "a  b\n"),
    ]
    assert sandbox.view_shell("a").output == "a  b\n"


async def test_old_records_go(sandbox: Sandbox) -> None:
    for n in range(SMALL.records + 2):
        await sandbox.shell("a", f"echo {n}")
    kept = [record.command for record in sandbox.records("a")]
    assert kept == [f"echo {n}" for n in range(2, SMALL.records + 2)]


@pytest.mark.parametrize("command", ["if", "echo 'open", "for x", ")", "echo $((1/0))"])
async def test_a_broken_command_fails_alone(sandbox: Sandbox, command: str) -> None:
    assert (await sandbox.shell("a", command)).exit_code not in (0, None)
    assert (await sandbox.shell("a", "echo on")).output == "on\n"


@pytest.mark.parametrize("command", ["break", "break 9", "continue 9", "return 3"])
async def test_a_command_does_not_leave_the_loop(sandbox: Sandbox, command: str) -> None:
    assert not (await sandbox.shell("a", command, timeout_s=20)).running
    assert (await sandbox.shell("a", "echo on")).output == "on\n"


async def test_output_is_capped_in_the_middle(sandbox: Sandbox) -> None:
    result = await sandbox.shell("a", "echo first; seq 100000; echo last")
    assert result.output.startswith("first\n1\n2\n")
    assert result.output.endswith("\n100000\nlast\n")
    assert "bytes left out]" in result.output
    assert len(result.output) < SMALL.output_bytes + 100


async def test_all_that_a_command_wrote_is_there_when_it_ends(sandbox: Sandbox) -> None:
    for n in range(20):
        assert (await sandbox.shell("a", f"seq {n} 1000")).output.endswith("\n1000\n")


async def test_output_is_text_whatever_the_bytes(sandbox: Sandbox) -> None:
    assert (await sandbox.shell("a", r"printf '\xff\x00é'")).output == "\ufffd\x00é"


async def test_a_long_command_goes_on_and_can_be_waited_for(sandbox: Sandbox) -> None:
    result = await sandbox.shell("a", "echo begun; read line; echo $line; (exit 3)", timeout_s=0)
    assert result.running
    with pytest.raises(ShellBusy):
        await sandbox.shell("a", "echo too early")
    await _until_output(sandbox, "begun\n")
    await sandbox.write_shell("a", "fed\n")
    result = await sandbox.wait_shell("a", timeout_s=20)
    assert (result.exit_code, result.output) == (3, "begun\nfed\nfed\n"), "the terminal echoes"


async def test_a_timeout_leaves_the_program_running(sandbox: Sandbox) -> None:
    assert (await sandbox.shell("a", "sleep 60", timeout_s=0.2)).running
    assert sandbox.view_shell("a").running


async def test_interrupting(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "cd /tmp; word=kept")
    await sandbox.shell("a", "trap '' USR1; while true; do sleep 60; done", timeout_s=0)
    await _until_foreground(sandbox, "sleep")
    # Of a job that ends before bash has noted that it runs bash does not see how: press again.
    async with asyncio.timeout(30):
        await sandbox.interrupt_shell("a")
        while (ended := await sandbox.wait_shell("a", timeout_s=2)).running:
            await sandbox.interrupt_shell("a")
    assert ended.exit_code == 130
    assert (await sandbox.shell("a", "echo $PWD $word")).output == "/tmp kept\n"


async def test_a_stopped_program_gives_the_shell_back(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "sleep 60", timeout_s=0)
    await _until_foreground(sandbox, "sleep")
    await sandbox.write_shell("a", "\x1a")
    assert (await sandbox.wait_shell("a", timeout_s=20)).exit_code == 148
    assert (await sandbox.shell("a", "echo on")).output == "on\n"


async def test_nothing_is_fed_to_an_idle_shell(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "true")
    with pytest.raises(ShellIdle):
        await sandbox.write_shell("a", "rm -r .\n")
    await sandbox.interrupt_shell("a")
    assert (await sandbox.shell("a", "echo on")).output == "on\n"


async def test_a_program_that_reads_nothing_is_not_waited_for(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "stty -icanon; echo on; sleep 60", timeout_s=0)
    await _until_output(sandbox, "on\n")
    with pytest.raises(SandboxError):
        await sandbox.write_shell("a", "x" * 60_000, timeout_s=0.5)


async def test_a_shell_that_exits_begins_anew(sandbox: Sandbox) -> None:
    result = await sandbox.shell("a", "word=lost; exit 7")
    assert (result.exit_code, result.alive) == (7, False)
    assert (await sandbox.shell("a", 'echo "<$word>"')).output == "<>\n"
    assert sandbox.records("a")[0].command == "word=lost; exit 7"


async def test_killing_a_shell_keeps_its_records(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "echo on; sleep 60", timeout_s=0)
    await _until_output(sandbox, "on\n")
    await sandbox.kill_shell("a")
    assert sandbox.view_shell("a").exit_code == 137
    assert (await sandbox.shell("a", "echo again")).output == "again\n"
    assert [record.output for record in sandbox.records("a")] == ["on\n", "again\n"]


async def test_stopping_ends_whatever_runs_in_shells(sandbox: Sandbox) -> None:
    """What takes no Ctrl-C, what runs in the background, and what an earlier bash left behind."""
    await sandbox.shell("old", "(setsid sleep 1111 &); exit")
    await sandbox.shell("old", "word=kept")
    await sandbox.shell("jobs", "sleep 1112 & nohup sleep 1113 >/dev/null 2>&1 &")
    await sandbox.shell("deaf", "trap '' INT; sleep 1114; sleep 1115", timeout_s=0)
    await _until_foreground(sandbox, "sleep")
    all_run = "until [ $(pgrep -c sleep) = 4 ]; do :; done"
    assert await (await sandbox.run(["timeout", "20", "sh", "-c", all_run])).wait() == 0
    await sandbox.stop_shells(0.2)
    assert await (await sandbox.run(["pgrep", "sleep"])).wait() == 1
    assert sandbox.view_shell("deaf").exit_code == 137
    assert [record.command for record in sandbox.records("old")][1:] == ["word=kept"]
    assert (await sandbox.shell("old", 'echo "<$word>"')).output == "<>\n"


async def test_a_stopped_command_may_clean_up(sandbox: Sandbox) -> None:
    cleans = "trap 'sleep 0.2; echo clean > left' INT; while :; do sleep 60 || break; done"
    await sandbox.shell("a", f"bash -c {shlex.quote(cleans)}", timeout_s=0)
    await _until_foreground(sandbox, "sleep")
    await sandbox.stop_shells(60.0)
    assert (sandbox.workspace / "left").read_text() == "clean\n"


async def test_programs_see_a_terminal(sandbox: Sandbox) -> None:
    assert (await sandbox.shell("a", "tty; test -t 0 -a -t 1 -a -t 2; echo $?")).output == (
        "/dev/pts/0\n0\n"
    )


async def test_two_commands_at_once_in_one_shell(sandbox: Sandbox) -> None:
    results = await asyncio.gather(
        *(sandbox.shell("a", "sleep 0.2; echo on") for _ in range(3)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == [
        "ShellBusy",
        "ShellBusy",
        "ShellResult",
    ]


async def test_shells_are_counted(sandbox: Sandbox) -> None:
    for n in range(SMALL.shells):
        await sandbox.shell(str(n), "true")
    with pytest.raises(SandboxError):
        await sandbox.shell("one more", "true")


async def test_a_shell_that_does_not_exist(sandbox: Sandbox) -> None:
    for asked in (sandbox.records, sandbox.view_shell):
        with pytest.raises(NoSuchShell):
            asked("none")
    for wait in (sandbox.wait_shell, sandbox.kill_shell, sandbox.interrupt_shell):
        with pytest.raises(NoSuchShell):
            await wait("none")


async def test_a_command_that_is_none(sandbox: Sandbox) -> None:
    for command in ("echo \0", "x" * (1 << 20)):
        with pytest.raises(SandboxError):
            await sandbox.shell("a", command)
    long = "x" * 200_000
    assert (await sandbox.shell("a", f": {long}; echo on")).output == "on\n"


async def test_what_was_said_is_there_after_the_end(sandboxes: Sandboxes) -> None:
    sandbox = await sandboxes.open("session")
    await sandbox.shell("a", "echo on")
    await sandbox.end("idle")
    assert sandboxes.get("session") is sandbox
    assert sandbox.records("a")[0].output == "on\n"


async def _until_foreground(sandbox: Sandbox, program: str) -> None:
    """What is typed before a program has the terminal is bash's, which takes no Ctrl-Z."""
    look = f"until ps -o stat= -C {program} | grep -q +; do sleep 0.02; done"
    assert (await sandbox.shell("looking", look, timeout_s=20)).exit_code == 0


async def _until_output(sandbox: Sandbox, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in sandbox.view_shell("a").output:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
