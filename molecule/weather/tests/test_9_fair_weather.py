"""After the bad weather: a backup, its proof, and nothing to put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.live import Play

testinfra_hosts = ["backup-1"]


def test_a_backup_is_made_and_proven(play: Callable[..., Play]) -> None:
    for playbook in ("playbooks/backup-now.yml", "playbooks/restore-drill.yml"):
        done = play(playbook)
        assert done.code == 0, done.output[-3000:]


def test_monitoring_is_content_and_every_backup_can_be_read(hosts: dict[str, Any]) -> None:
    for command in ("check", "verify --all"):
        hosts["backup-1"].run_expect([0], f"runuser -u redis-backup -- redis-backup {command}")


def test_a_second_run_changes_nothing(play: Callable[..., Play]) -> None:
    again = play("site.yml")
    assert again.code == 0, again.output[-3000:]
    assert again.total_changed == 0, again.output[-3000:]
