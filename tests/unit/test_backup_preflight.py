"""What the backup roles refuse before they change anything: their own tasks, run by Ansible."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = """\
all:
  vars: {{ansible_connection: local}}
  children:
    redis: {{hosts: {{redis-1: , redis-2: }}}}
    backup_server: {{hosts: {{backup-1: }}}}
    restore_drill: {{hosts: {{{drill}: }}}}
"""
PLAYBOOK = """\
- hosts: {host}
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {{name: {role}, tasks_from: preflight}}
"""


def preflight(directory: Path, role: str, host: str, drill: str) -> str:
    """What Ansible says of the role's checks on a host; empty when they let it pass."""
    inventory, playbook = directory / "hosts.yml", directory / "play.yml"
    inventory.write_text(INVENTORY.format(drill=drill), encoding="utf-8")
    playbook.write_text(PLAYBOOK.format(host=host, role=role), encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", inventory, playbook],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_FILTER_PLUGINS": str(ROOT / "filter_plugins"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return "" if done.returncode == 0 else " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("role", ["redis_backup", "redis_restore_drill"])
def test_a_redis_host_is_no_drill_host(tmp_path: Path, role: str) -> None:
    said = preflight(tmp_path, role, "redis-1", drill="redis-1")
    assert "redis-1 is a Redis host and a drill host" in said, said


@pytest.mark.parametrize(
    ("role", "host", "drill"),
    [
        ("redis_backup", "redis-1", "drill-1"),
        ("redis_restore_drill", "drill-1", "drill-1"),
        ("redis_restore_drill", "backup-1", "backup-1"),
    ],
)
def test_other_divisions_of_labour_are_accepted(
    tmp_path: Path, role: str, host: str, drill: str
) -> None:
    assert preflight(tmp_path, role, host, drill) == ""
