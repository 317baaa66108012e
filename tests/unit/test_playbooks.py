"""What every playbook keeps to, and whom it speaks to where an inventory has several sets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.ansible_runs import ROOT
from tests.support.live import play_against

PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))

# No host answers there.
NOWHERE = ["-e", "ansible_host=127.0.0.1", "-e", "ansible_port=1"]


def spoken_to(playbook: str, *arguments: str) -> set[str]:
    """The hosts that a playbook tries to reach, with the inventory of two sets."""
    run = play_against("inventories/two-sets", playbook, *arguments, *NOWHERE)
    assert "Nothing was changed" not in run.output, run.output
    return set(re.findall(r"^fatal: \[(.+)\]: UNREACHABLE!", run.output, re.MULTILINE))


@pytest.mark.parametrize("name", ["orders", "sessions"])
def test_a_replica_is_removed_from_its_own_set(name: str) -> None:
    # The passwords that an inventory has in its vault.
    passwords = (
        "vault_orders_requirepass=of-twelve-or-more vault_sessions_requirepass=of-12-or-more"
    )
    given = f"redis_removed_host={name}-2 {passwords}"
    tried = spoken_to("playbooks/remove_replica.yml", "-e", given)
    assert tried == {f"{name}-1", f"{name}-2"}


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").rglob("*.yml")), ids=lambda p: p.name)
def test_every_play_goes_through_its_tasks_host_by_host_in_step(path: Path) -> None:
    """What a task does once for all hosts relies on it, whatever the caller has configured."""
    for play in yaml.safe_load(path.read_text("utf-8")):
        if "hosts" in play:
            assert play.get("strategy") == "linear", play["name"]


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_a_run_with_tags_does_not_end_well_without_having_done_anything(path: Path) -> None:
    run = play_against("inventories/two-sets", str(path), "--tags", "redis", *NOWHERE)
    assert run.code != 0
    assert "no task has a tag" in " ".join(run.output.split()), run.output
    assert "UNREACHABLE" not in run.output
