"""The secret of the transport, which the first run that changes anything makes, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play, play_against

INVENTORY = """\
all:
  vars: {ansible_connection: local, redis_requirepass: of-twelve-or-more}
  children:
    redis: {hosts: {redis-1: }}
    backup_server: {hosts: {backup-1: }}
    restore_drill: {hosts: {drill-1: }}
"""
PLAY = """\
- hosts: redis-1
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: proven.redis.redis_backup, tasks_from: schedule}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    directory = tmp_path / "inventory"
    directory.mkdir()
    (directory / "hosts.yml").write_text(INVENTORY, encoding="utf-8")
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    return directory


def schedule(inventory: Path, *arguments: str) -> Play:
    """The stage of the role that writes the secret to its host, here to a directory of the test."""
    target = inventory.parent / "etc"
    paths = {
        "__redis_backup_config_file": str(target / "redis.json"),
        "__redis_backup_cron_file": str(target / "cron"),
        "__redis_backup_user": "root",
    }
    play = str(inventory.parent / "play.yml")
    return play_against(str(inventory / "hosts.yml"), play, "-e", json.dumps(paths), *arguments)


def test_a_dry_run_makes_none_and_a_run_makes_one(inventory: Path) -> None:
    kept = inventory / ".secrets" / "redis-1.rsync"
    dry = schedule(inventory, "--check", "--diff")
    assert dry.code == 0, dry.output
    assert {path.name for path in inventory.iterdir()} == {"hosts.yml"}

    assert schedule(inventory).code == 0
    secret = kept.read_text(encoding="utf-8").rstrip("\n")
    assert len(secret) == 40
    assert kept.stat().st_mode & 0o077 == 0
    written = json.loads((inventory.parent / "etc" / "redis.json").read_text(encoding="utf-8"))
    assert written["transport"]["secret"] == secret

    again = schedule(inventory)
    assert (again.code, again.total_changed) == (0, 0), again.output
    assert kept.read_text(encoding="utf-8").rstrip("\n") == secret


def test_one_that_is_given_is_kept_nowhere(inventory: Path) -> None:
    assert schedule(inventory, "-e", "redis_backup_rsync_secret=a-secret-of-mine").code == 0
    assert {path.name for path in inventory.iterdir()} == {"hosts.yml"}


def test_an_inventory_without_a_file_has_no_place_for_one(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "ansible_connection": "local",
        "redis_replication_group": "all",
        "redis_master_group": "all",
        "redis_backup_server_group": "all",
    }
    (tmp_path / "play.yml").write_text(PLAY.replace("schedule", "preflight"), encoding="utf-8")
    words = ("-e", json.dumps(given))
    run = play_against("redis-1,", str(tmp_path / "play.yml"), *words)
    assert run.code != 0
    assert "redis_backup_rsync_secret cannot be computed" in " ".join(run.output.split())
    assert "this inventory is in no file" in " ".join(run.output.split())
