"""`redis-backup turn`: where the hosts of a set stand, for whoever starts a backup by hand."""

from __future__ import annotations

from pathlib import Path

from tests.tool.backup_lab import lab, run, wait_until
from tests.tool.test_create import Set


def test_the_hosts_of_a_set_rank_replicas_first(tmp_path: Path) -> None:
    with lab(tmp_path, rsync=False) as made:
        group = Set(made)
        said = {
            name: run("turn", "--json", "--config", group.config(name)).json for name in group.ports
        }
        assert {name: (one["role"], one["rank"]) for name, one in said.items()} == {
            "redis-2": ("replica", 0),
            "redis-3": ("replica", 1),
            "redis-1": ("master", 2),
        }
        assert {one["master"] for one in said.values()} == {"redis-1"}

        # After a failover the roles are those of the servers, whatever anybody had planned.
        group.processes["redis-3"].client().replicaof("NO", "ONE")
        for name in ("redis-1", "redis-2"):
            client = group.processes[name].client()
            client.replicaof("127.0.0.1", group.ports["redis-3"])
        promoted = group.processes["redis-3"].client()
        wait_until(
            lambda: (
                [
                    promoted.info("replication").get(f"slave{number}", {}).get("state")
                    for number in (0, 1)
                ]
                == ["online", "online"]
            ),
            "both to follow redis-3",
        )
        ranks = {
            name: run("turn", "--json", "--config", group.config(name)).json["rank"]
            for name in group.ports
        }
        assert ranks == {"redis-1": 0, "redis-2": 1, "redis-3": 2}


def test_a_host_without_its_master_has_no_turn(tmp_path: Path) -> None:
    with lab(tmp_path, rsync=False) as made:
        group = Set(made)
        group.processes["redis-1"].stop()
        client = group.processes["redis-2"].client()
        wait_until(
            lambda: client.info("replication")["master_link_status"] == "down", "the link to drop"
        )
        done = run("turn", "--config", group.config("redis-2"))
        assert done.code == 1
        assert "the link of this replica to its master" in done.text
