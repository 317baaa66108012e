"""The status is shown when it is needed most: while hosts do not answer. Its own playbook, run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.live import play_against

# Nothing listens on port 1, the one for TCPMUX.
INVENTORY = """\
all:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1}
  children:
    redis:
      hosts: {redis-1: , redis-2: }
      children: {redis_master: {hosts: {redis-1: }}}
      vars: {redis_requirepass: of-twelve-or-more}
    backup_server: {hosts: {backup-1: }}
    restore_drill: {hosts: {drill-1: }}
"""
HERE = "{ansible_connection: local, ansible_become: false}"


def status(directory: Path, inventory: str) -> tuple[int, str, str]:
    """Exit code of the playbook, the status as it was shown, and all that was said."""
    hosts = directory / "hosts.yml"
    hosts.write_text(inventory, encoding="utf-8")
    run = play_against(str(hosts), "playbooks/show_status.yml")
    shown = run.output.rpartition("TASK [Show the status]")[2].partition("TASK [")[0]
    return run.code, " ".join(shown.split()), run.output


def test_hosts_that_cannot_be_reached_are_named(tmp_path: Path) -> None:
    code, shown, said = status(tmp_path, INVENTORY)
    for host in ("redis-1", "redis-2"):
        assert re.search(rf"{host} 127\.0\.0\.1:6379 unreachable", shown), said
    for host in ("redis-1", "redis-2", "backup-1", "drill-1"):
        assert re.search(rf"{host} did not answer: .*?Connection refused", shown), said
    assert "Nothing is known of the backups on backup-1" in shown, said
    assert code == 2, said
    silent = "The status above is not whole, redis-1, redis-2, backup-1 did not answer."
    assert silent in " ".join(said.split())
    # The two are one address here.
    assert "5 things are wrong: * redis-1 did not answer" in shown
    assert "5 things are wrong, see the end of the status above." in " ".join(said.split())


@pytest.mark.parametrize(
    ("host", "variables", "why"),
    [
        # The account is not there, or not this user's to act for: the tool is not asked either way.
        ("backup-1", "ansible_connection: local", "runuser: "),
        (
            "redis-1",
            "ansible_connection: local, ansible_python_interpreter: /no/such/python",
            "/no/such/python",
        ),
    ],
)
def test_a_host_that_fails_does_not_hide_the_others(
    tmp_path: Path, host: str, variables: str, why: str
) -> None:
    alone = INVENTORY.replace(f"{host}: ", f"{host}: {{{variables}, ansible_become: false}}", 1)
    code, shown, said = status(tmp_path, alone.replace(", redis-2: ", ""))
    assert re.search(rf"{host} did not answer: .*?{why}", shown), said
    assert re.search(r"redis-1 127\.0\.0\.1:6379 unreachable", shown), said
    assert "Nothing is known of the backups on backup-1" in shown, said
    assert code == 2, said


def test_a_host_that_answers_is_not_called_silent(tmp_path: Path) -> None:
    here = "{ansible_connection: local, ansible_become: false, redis_port: 1}"
    code, shown, said = status(tmp_path, INVENTORY.replace("redis-1: ", f"redis-1: {here}", 1))
    assert re.search(r"redis-1 127\.0\.0\.1:1 (?!unreachable)\w+", shown), said
    assert "redis-1 did not answer" not in shown, said
    assert "redis-2 did not answer" in shown, said
    assert code == 2, said
