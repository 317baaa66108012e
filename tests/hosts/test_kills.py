"""A deployment that is killed at one point after the other ends like one that was left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play, ask, info, play_until, setting

REDIS = ("redis-1", "redis-2", "redis-3")

# Killed when the task behind the interesting one begins: that one has just ended everywhere.
KILL_AT = [
    "redis_common : packages | ",  # the marker is there, nothing else
    "redis : prepare | Let the kernel overcommit",  # right after the installation
    "redis : configure | Configure the server",
    "redis : start | Start the master",  # configured, nothing runs
    "redis : start | Start the replicas",  # an empty master alone
    "redis_common : units | ",  # replication is up, the backup server has its files
    "redis_backup : schedule | ",  # the backup is half deployed
]


def test_a_dry_run_works_where_the_data_directory_is_there_and_nothing_else(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    """Such as the mount point of the classic setup."""
    for name in REDIS:
        hosts[name].check_output("mkdir -p /mnt/redis_data")
    dry = play("playbooks/deploy_redis.yml", "--check")
    assert dry.code == 0, dry.output[-3000:]
    assert not hosts["redis-1"].file("/etc/redis").exists


@pytest.mark.parametrize("task", KILL_AT)
def test_a_run_is_killed(inventory: Path, task: str) -> None:
    play_until(inventory, "site.yml", f"TASK [proven.redis.{task}")


def test_the_next_run_ends_as_if_nothing_had_happened(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    done = play("site.yml")
    assert done.code == 0, done.output[-3000:]
    master = info(hosts["redis-1"], "replication")
    assert master["role"] == "master"
    assert master["connected_slaves"] == 2
    for name in REDIS:
        assert setting(hosts[name], "dir") == "/mnt/redis_data"
        assert info(hosts[name], "persistence")["aof_enabled"] == 1
    assert ask(hosts["redis-1"], "SET", "after", "the storm")
    assert play("playbooks/backup_now.yml").code == 0
    assert play("playbooks/restore_drill.yml").code == 0


def test_and_the_one_after_it_changes_nothing(play: Callable[..., Play]) -> None:
    again = play("site.yml")
    assert again.code == 0
    assert again.total_changed == 0, again.output[-3000:]


def test_a_unit_that_was_only_written_is_restarted_by_the_next_run(
    play: Callable[..., Play], hosts: dict[str, Any], inventory: Path
) -> None:
    server = hosts["backup-1"]
    change = ("-e", "redis_backup_server_rsync_port=8873")
    play_until(
        inventory,
        "playbooks/deploy_backup.yml",
        "TASK [proven.redis.redis_common : units | ",
        *change,
    )
    # Whatever reloads systemd makes it forget that it had not read the file.
    server.check_output("systemctl daemon-reload")
    assert not server.socket("tcp://0.0.0.0:8873").is_listening, "the run was not killed in time"
    done = play("playbooks/deploy_backup.yml", *change)
    assert done.code == 0, done.output[-3000:]
    assert server.socket("tcp://0.0.0.0:8873").is_listening
    assert play("playbooks/deploy_backup.yml", *change).total_changed == 0


def test_a_secret_that_a_killed_run_left_half_written_counts_for_nothing(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    server = hosts["backup-1"]
    folder = "/etc/redis-backup/rsync-secrets.d"
    server.check_output(f"echo redis-1:an-old-one > {folder}/.redis-1.abcdefgh")
    limited = play("playbooks/deploy_backup.yml", "--limit", "redis-1")
    assert limited.code == 0, limited.output[-3000:]
    assert "an-old-one" not in server.check_output("cat /etc/redis-backup/rsyncd.secrets")
    assert play("playbooks/deploy_backup.yml").code == 0
    names = server.check_output(f"ls -A {folder}").split()
    assert sorted(names) == ["drill-1", "redis-1", "redis-2", "redis-3"]
