"""After the bad weather: a backup, its proof, and nothing to put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support import runbooks
from tests.support.live import Play

testinfra_hosts = ["backup-1"]


# What the pages end with, when their trouble is over.
BACKUP = ("backup-server-unreachable#backup", "clock#backup", "damaged-backup#backup")
DRILL = ("damaged-backup#drill",)


def test_a_backup_is_made_and_proven(play: Callable[..., Play]) -> None:
    for references in (BACKUP, DRILL):
        (command,) = {runbooks.block(reference) for reference in references}
        done = play(*command.split()[3:])
        assert done.code == 0, done.output[-3000:]


def test_monitoring_is_content_and_every_backup_can_be_read(hosts: dict[str, Any]) -> None:
    for command in ("check", "verify --all"):
        hosts["backup-1"].run_expect([0], f"runuser -u redis-backup -- redis-backup {command}")


def test_a_second_run_changes_nothing(play: Callable[..., Play]) -> None:
    again = play(*runbooks.playbook("stale-replica#deploy"))
    assert again.code == 0, again.output[-3000:]
    assert again.total_changed == 0, again.output[-3000:]
