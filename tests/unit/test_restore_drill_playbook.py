"""Which drill hosts a given backup is proven on: the playbook, run while none of them is up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live import Play, play_against
from tests.support.runbooks import is_seen

# Nothing listens on port 1: a host that is asked at all is seen to be unreachable.
INVENTORY = """\
all:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1}
  children:
    redis:
      children:
        eleven:
          vars: {redis_set_name: eleven, redis_replication_group: eleven}
          hosts: {redis-1: }
        twelve:
          vars: {redis_set_name: twelve, redis_replication_group: twelve}
          hosts: {redis-2: }
    restore_drill:
      hosts:
        drill-1: {redis_restore_drill_sets: [{name: eleven}]}
        drill-2: {redis_restore_drill_sets: [{name: twelve}]}
"""
ONE_SET = """\
all:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1}
  children:
    redis: {hosts: {redis-1: }}
    restore_drill: {hosts: {drill-1: , drill-2: }}
"""
ID = "20260131T000500Z-redis-1"


def drill(directory: Path, inventory: str, *arguments: str) -> tuple[Play, set[str]]:
    """The run, and the hosts that it tried to drill on."""
    hosts = directory / "hosts.yml"
    hosts.write_text(inventory, encoding="utf-8")
    run = play_against(str(hosts), "playbooks/restore_drill.yml", *arguments)
    return run, {host for host in ("drill-1", "drill-2") if f"[{host}]: UNREACHABLE" in run.output}


@pytest.mark.parametrize(
    ("inventory", "arguments", "tried"),
    [
        (INVENTORY, [], {"drill-1", "drill-2"}),
        (INVENTORY, ["-e", f"redis_restore_drill_id=eleven/{ID}"], {"drill-1"}),
        (INVENTORY, ["-e", f"redis_restore_drill_id=twelve/{ID}"], {"drill-2"}),
        (ONE_SET, ["-e", f"redis_restore_drill_id={ID}"], {"drill-1", "drill-2"}),
        (ONE_SET, ["-e", f"redis_restore_drill_id=redis/{ID}"], {"drill-1", "drill-2"}),
    ],
    ids=["every set", "one set", "the other", "no set to choose", "the only set"],
)
def test_a_backup_is_proven_where_its_set_is(
    tmp_path: Path, inventory: str, arguments: list[str], tried: set[str]
) -> None:
    run, hosts = drill(tmp_path, inventory, *arguments)
    assert hosts == tried, run.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["-e", f"redis_restore_drill_id={ID}"],
        ["-e", f"redis_restore_drill_id=nine/{ID}"],
        ["-e", f"redis_restore_drill_id=eleven/{ID}", "--limit", "drill-2"],
    ],
    ids=["no set", "unknown set", "host of the set left out"],
)
def test_a_backup_of_no_set_that_is_drilled_is_refused(
    tmp_path: Path, arguments: list[str]
) -> None:
    run, tried = drill(tmp_path, INVENTORY, *arguments)
    assert run.code == 2, run.output
    assert tried == set()
    assert "write SET/ID" in run.output
    if arguments[-1].endswith(f"={ID}"):
        assert is_seen("several-sets#id", run.output), run.output
