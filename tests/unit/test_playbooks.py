"""Whom the playbooks speak to where an inventory has several sets."""

from __future__ import annotations

import re

import pytest

from tests.support.live import play_against

# No host answers there.
NOWHERE = ["-e", "ansible_host=127.0.0.1", "-e", "ansible_port=1"]


def spoken_to(playbook: str, *arguments: str) -> set[str]:
    """The hosts that a playbook tries to reach, with the inventory of two sets."""
    run = play_against("inventories/two-sets", playbook, *arguments, *NOWHERE)
    assert "Nothing was changed" not in run.output, run.output
    return set(re.findall(r"^fatal: \[(.+)\]: UNREACHABLE!", run.output, re.MULTILINE))


@pytest.mark.parametrize("name", ["orders", "sessions"])
def test_a_replica_is_removed_from_its_own_set(name: str) -> None:
    removed = f"redis_removed_host={name}-2"
    tried = spoken_to("playbooks/remove_replica.yml", "-e", removed)
    assert tried == {f"{name}-1", f"{name}-2"}
