"""What site.yml sees of the inventory before it changes anything: run while no host is up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.ansible_runs import ansible, good
from tests.support.live import Play, play_against

INVENTORY = """\
all:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1}
  children:
    redis:
      hosts: {redis-1: }
      children: {redis_master: {hosts: {redis-1: }}}
      vars: {redis_requirepass: of-twelve-or-more}
    backup_server: {hosts: {backup-1: }}
"""


def site(directory: Path, inventory: str, *arguments: str) -> Play:
    (directory / "hosts.yml").write_text(inventory, encoding="utf-8")
    return play_against(str(directory / "hosts.yml"), "site.yml", *arguments)


def test_a_group_that_is_missing_is_told_before_redis_is_deployed(tmp_path: Path) -> None:
    run = site(tmp_path, INVENTORY)
    assert run.code == 2, run.output
    assert "Nothing was changed. The inventory has no group restore_drill." in run.output
    assert "PLAY [Deploy Redis]" not in run.output


@pytest.mark.parametrize("limit", ["redis-1", "backup-1"])
def test_an_empty_group_is_enough(tmp_path: Path, limit: str) -> None:
    run = site(tmp_path, INVENTORY + "    restore_drill:\n", "--limit", limit)
    assert f"{limit}]: UNREACHABLE" in run.output, run.output
    assert "Could not match" not in run.output


def test_where_no_host_answers_nothing_was_deployed(tmp_path: Path) -> None:
    text = INVENTORY.replace("redis-1: }\n", "redis-1: , redis-2: }\n", 1) + "    restore_drill:\n"
    run = site(tmp_path, text)
    assert run.code != 0
    said = " ".join(run.output.split())
    for name in ("redis-1", "redis-2"):
        assert f"{name} was left out, nothing was deployed: " in said, run.output


def test_a_restart_of_hosts_that_do_not_answer_is_none(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(INVENTORY, encoding="utf-8")
    run = play_against(str(tmp_path / "hosts.yml"), "playbooks/rolling_restart.yml")
    assert run.code != 0, run.output
    said = " ".join(run.output.split())
    assert "redis-1 was not restarted, nor was any other: " in said, run.output


@pytest.mark.parametrize("playbook", ["rolling_restart", "remove_replica"])
def test_wrong_values_are_named_before_a_server_is_touched(tmp_path: Path, playbook: str) -> None:
    wrong = INVENTORY.replace("vars: {redis_requirepass", "vars: {redis_port: x, redis_requirepass")
    (tmp_path / "hosts.yml").write_text(wrong, encoding="utf-8")
    words = ["-e", "redis_removed_host=redis-1"] if playbook == "remove_replica" else []
    run = play_against(str(tmp_path / "hosts.yml"), f"playbooks/{playbook}.yml", *words)
    assert run.code != 0
    assert "redis_port is the text 'x'" in " ".join(run.output.split()), run.output
    assert "UNREACHABLE" not in run.output


NAMED = """\
all:
  vars:
    ansible_host: 127.0.0.1
    ansible_port: 1
    redis_replication_group: cache
    redis_backup_server_group: storage
    redis_restore_drill_group: proofs
  children:
    cache:
      hosts: {cache-1: }
      children: {redis_master: {hosts: {cache-1: }}}
      vars: {redis_requirepass: of-twelve-or-more}
    storage: {hosts: {storage-1: }}
    proofs: {hosts: {proofs-1: }}
"""


@pytest.mark.parametrize("host", ["cache-1", "storage-1", "proofs-1"])
def test_groups_may_have_other_names(tmp_path: Path, host: str) -> None:
    run = site(tmp_path, NAMED, "--limit", host)
    assert f"{host}]: UNREACHABLE" in run.output, run.output


@pytest.mark.parametrize("group", ["cache", "storage", "proofs"])
def test_a_group_that_is_named_and_not_there_is_told(tmp_path: Path, group: str) -> None:
    run = site(tmp_path, NAMED.replace(f"    {group}:", f"    other_{group}:"))
    assert run.code == 2, run.output
    assert f"Nothing was changed. The inventory has no group {group}." in run.output


def test_a_group_may_be_named_by_the_hosts_that_are_in_it(tmp_path: Path) -> None:
    """As in group_vars of a set; the other hosts have the default, which is no group."""
    lines = [line for line in NAMED.splitlines() if "redis_replication_group" not in line]
    inventory = "\n".join(lines).replace(
        "vars: {redis_requirepass", "vars: {redis_replication_group: cache, redis_requirepass"
    )
    run = site(tmp_path, inventory, "--limit", "cache-1")
    assert "cache-1]: UNREACHABLE" in run.output, run.output


@pytest.mark.parametrize(
    ("name", "host"),
    [("deploy_redis", "cache-1"), ("deploy_backup", "storage-1"), ("show_status", "storage-1")],
)
def test_each_playbook_follows_the_groups_by_itself(tmp_path: Path, name: str, host: str) -> None:
    """Ansible knows no variables of hosts before the first play of a run."""
    (tmp_path / "hosts.yml").write_text(NAMED, encoding="utf-8")
    run = play_against(str(tmp_path / "hosts.yml"), f"playbooks/{name}.yml")
    assert f"{host}]: UNREACHABLE" in run.output, run.output


def test_an_inventory_without_hosts_is_no_success(tmp_path: Path) -> None:
    run = site(tmp_path, "all:\n")
    assert run.code != 0, run.output


@pytest.mark.parametrize("name", ["rolling_restart", "backup_now"])
def test_hosts_can_be_listed_beforehand(name: str) -> None:
    words = ["--list-hosts", "-e", "redis_replication_group=sessions"]
    playbook = f"playbooks/{name}.yml"
    listed = good(ansible("ansible-playbook", "-i", "inventories/two-sets", playbook, *words))
    # The last play is the one that does it.
    last = listed.rpartition("play #")[2]
    assert "sessions-1" in last
    assert "orders-1" not in last
