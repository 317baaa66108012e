"""Whom the playbooks speak to where an inventory has several sets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# No host answers there.
NOWHERE = ["-e", "ansible_host=127.0.0.1", "-e", "ansible_port=1"]


def spoken_to(playbook: str, *arguments: str) -> set[str]:
    """The hosts that a playbook tries to reach, with the inventory of two sets."""
    program = Path(sys.executable).parent / "ansible-playbook"
    done = subprocess.run(
        [program, "-i", "inventories/two-sets", playbook, *arguments, *NOWHERE],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Nothing was changed" not in done.stdout, done.stdout
    return set(re.findall(r"^fatal: \[(.+)\]: UNREACHABLE!", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("name", ["orders", "sessions"])
def test_a_replica_is_removed_from_its_own_set(name: str) -> None:
    removed = f"redis_removed_host={name}-2"
    tried = spoken_to("playbooks/remove-replica.yml", "-e", removed)
    assert tried == {f"{name}-1", f"{name}-2"}
