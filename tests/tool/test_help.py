"""The help of every command: what it does, on which host and as which user, its exit codes."""

from __future__ import annotations

import re

import pytest
from redis_backup.commands import cli

from tests.tool.backup_lab import run

COMMANDS = sorted(cli._COMMANDS)


def test_every_command_is_in_the_help() -> None:
    result = run("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert re.search(rf"^    {command}( |$)", result.out, re.MULTILINE), command
    assert "Exit codes: 0 done, 1 failed or disproved, 2 usage, 75 locked" in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command(command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    usage, description, *_ = result.out.split("\n\n")
    assert usage.startswith(f"usage: redis-backup {command}")
    # A description of its own, not the line in the list of commands.
    assert len(description) > 40
    assert re.search(
        r"^Runs on (a Redis host|the backup server|the drill host|any host), as (the|any) user\b",
        result.out,
        re.MULTILINE,
    )
    codes = result.out.rpartition("\nExit codes:\n")[2]
    numbers = [int(line.split()[0]) for line in codes.splitlines()]
    assert numbers == sorted(numbers)
    assert set(numbers) >= {0, 1, 2}
    # Only these two may have to leave it to another run or host.
    assert (75 in numbers) == (command in ("create", "accept"))
    assert all(len(line.split(maxsplit=1)[1]) > 4 for line in codes.splitlines())
