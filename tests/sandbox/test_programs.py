"""Programs with pipes."""

import asyncio

import pytest

from gateways.sandbox.errors import SandboxError
from gateways.sandbox.sandboxes import Sandbox


async def test_a_conversation_by_lines(sandbox: Sandbox) -> None:
    program = await sandbox.run(["cat"])
    for line in (b"one\n", b"two\n"):
        program.stdin.write(line)
        assert await program.stdout.readline() == line
    program.stdin.close()
    assert await program.stdout.read() == b""
    assert await program.wait() == 0
    assert not program.running


async def test_streams_and_exit_codes(sandbox: Sandbox) -> None:
    program = await sandbox.run(["sh", "-c", "echo out; echo err > /dev/stderr; exit 5"])
    said = await asyncio.gather(program.stdout.read(), program.stderr.read(), program.wait())
    assert said == [b"out\n", b"err\n", 5]


async def test_arguments_are_no_shell_text(sandbox: Sandbox) -> None:
    program = await sandbox.run(["printf", "%s|", "$HOME", "a b; id", "*"])
    assert await program.stdout.read() == b"$HOME|a b; id|*|"


async def test_environment_and_directory(sandbox: Sandbox) -> None:
    program = await sandbox.run(
        ["sh", "-c", "echo $WORD $HOME $PWD"], cwd="/tmp", env={"WORD": "w"}
    )
    assert await program.stdout.read() == b"w /home/ubuntu /tmp\n"


async def test_much_in_both_directions(sandbox: Sandbox) -> None:
    program = await sandbox.run(["cat"])
    data = bytes(range(256)) * 8192

    async def feed() -> None:
        program.stdin.write(data)
        await program.stdin.drain()
        program.stdin.close()

    assert (await asyncio.gather(feed(), program.stdout.read()))[1] == data


async def test_a_program_that_is_not_there(sandbox: Sandbox) -> None:
    program = await sandbox.run(["no-such-program"])
    assert b"no-such-program" in await program.stderr.read()
    assert await program.wait() == 127


async def test_an_argument_that_is_too_long_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError):
        await sandbox.run(["echo", "x" * 200_000])
    assert await (await sandbox.run(["true"])).wait() == 0


async def test_killing_ends_what_it_started(sandbox: Sandbox) -> None:
    script = "setsid sh -c 'setsid sleep 61 & sleep 62' & echo on; sleep 63"
    program = await sandbox.run(["sh", "-c", script])
    assert await program.stdout.readline() == b"on\n"
    assert await _sleeping(sandbox, 3) == 3
    await program.kill()
    assert await program.wait() == -9
    assert await _sleeping(sandbox, 0) == 0


async def test_killing_leaves_the_others_alone(sandbox: Sandbox) -> None:
    killed, kept = [await sandbox.run(["cat"]) for _ in range(2)]
    await killed.kill()
    kept.stdin.write(b"on\n")
    assert await kept.stdout.readline() == b"on\n"


async def test_a_file_is_read_as_programs_see_it(sandbox: Sandbox) -> None:
    await sandbox.shell(
        "a", "printf 'a\\0b' > /tmp/x; ln -s x /tmp/y; : > /tmp/empty; mkfifo /tmp/p"
    )
    await sandbox.shell("a", "touch /tmp/mine; chmod 000 /tmp/mine")
    assert await sandbox.read_file("/tmp/x", 10) == b"a\0b"
    assert await sandbox.read_file("/tmp/y", 2) == b"a\0"
    assert await sandbox.read_file("/tmp/empty", 10) == b""
    for path in ("/tmp/none", "/tmp", "/tmp/p", "/dev/zero", "/tmp/mine", "-n", "a\0b", ""):
        assert await sandbox.read_file(path, 10) is None
    assert sandbox.ended == ""


async def test_a_reader_that_hangs_is_not_waited_for(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.sandbox.sandboxes.READ_S", 0.2)
    await sandbox.shell("a", "kill -STOP 2; sleep 60", timeout_s=0.5)
    monkeypatch.setattr("gateways.sandbox.channel.ANSWER_S", 0.5)
    with pytest.raises(SandboxError):
        await sandbox.read_file("/etc/passwd", 10)


async def _sleeping(sandbox: Sandbox, wanted: int) -> int:
    """How many sleeps run, once they are as many as wanted, or at a deadline."""
    found = -1
    for _ in range(200):
        counter = await sandbox.run(["sh", "-c", "ps ax -o comm= | grep -c '^sleep$'"])
        found = int(await counter.stdout.read())
        if found == wanted:
            break
        await asyncio.sleep(0.05)
    return found
