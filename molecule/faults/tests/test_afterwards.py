"""After all the faults: a backup, its proof, and nothing to put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import runbooks
from tests.support.live import Play, accept

pytestmark = pytest.mark.last


# What the pages end with, when their trouble is over.
BACKUP = ("backup-server-unreachable#backup", "clock#backup", "damaged-backup#backup")
DRILL = ("damaged-backup#drill",)


def test_a_backup_is_made_and_proven(play: Callable[..., Play], hosts: dict[str, Any]) -> None:
    for references in (BACKUP, DRILL):
        (command,) = {runbooks.block(reference) for reference in references}
        done = play(*command.split()[3:])
        assert done.code == 0, done.output[-3000:]
    accept(hosts["backup-1"])


def test_monitoring_is_content_and_every_backup_can_be_read(hosts: dict[str, Any]) -> None:
    for command in ("check", "verify --all"):
        hosts["backup-1"].run_expect([0], f"runuser -u redis-backup -- redis-backup {command}")


def test_a_second_run_changes_nothing(play: Callable[..., Play]) -> None:
    again = play(*runbooks.playbook("stale-replica#deploy"))
    assert again.code == 0, again.output[-3000:]
    assert again.total_changed == 0, again.output[-3000:]


def test_backups_move_to_another_directory_and_go_on_there(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    server = hosts["backup-1"]
    elsewhere = ["-e", "redis_backup_server_directory=/srv/redis-backup"]
    list_backups = "runuser -u redis-backup -- redis-backup list"
    before = server.check_output(list_backups)
    refused = play(*runbooks.playbook("moving-the-backups#deploy"), *elsewhere)
    assert refused.code != 0
    assert refused.total_changed == 0, refused.output
    assert runbooks.is_seen("moving-the-backups#refused", refused.output), refused.output

    for step in (
        "moving-the-backups#stop",
        "moving-the-backups#unmount",
        "moving-the-backups#move",
    ):
        server.check_output("bash -ec %s", runbooks.block(step))
    moved = play(*runbooks.playbook("moving-the-backups#deploy"), *elsewhere)
    assert moved.code == 0, moved.output[-3000:]
    assert server.check_output(list_backups) == before
    server.check_output(runbooks.block("moving-the-backups#verify"))
    mounted = server.check_output("findmnt --list --noheadings --output TARGET").splitlines()
    inboxes = [line for line in mounted if "/inbox/" in line]
    assert len(inboxes) == 4, mounted
    assert all("/srv/redis-backup/inbox/" in line for line in inboxes), mounted
    made = play(*runbooks.playbook(BACKUP[0]))
    assert made.code == 0, made.output[-3000:]
