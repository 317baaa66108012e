"""A set grows, loses hosts for a while, is powered off, restarted and shrunk; no key is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play, ask, info, master_of, play_against, setting, wait_for
from tests.support.runbooks import block, is_seen, playbook

TWO = ("redis-1", "redis-2")
THREE = (*TWO, "redis-3")
FOUR = (*THREE, "redis-4")
DEPLOY = "playbooks/deploy_redis.yml"
RESTART = "playbooks/rolling_restart.yml"
CONF = "/etc/redis/redis.conf"
MARKER = f"{CONF}.managed"
CRON = "/etc/cron.d/redis-backup-redis"
REGISTERED = "/etc/redis-backup/uploaders.d/redis-4.json"
RECEIPTS = "/etc/redis-backup/rsyncd.d/receipts-{}.conf"


@pytest.fixture(scope="module")
def play(inventory: Path) -> Callable[..., Play]:
    """Run a playbook of the project; ``without`` names hosts that are in no group of the set."""
    (inventory / ".secrets").mkdir(mode=0o700, exist_ok=True)

    def run(playbook: str, *arguments: str, without: tuple[str, ...] = ()) -> Play:
        if not without:
            return play_against(inventory, playbook, *arguments)
        fewer = inventory.parent / "fewer"
        shutil.rmtree(fewer, ignore_errors=True)
        fewer.mkdir()
        # They stay in the group of all hosts, as if they were there for something else.
        for name in ("group_vars", ".secrets", "generated.yml"):
            (fewer / name).symlink_to(inventory / name)
        lines = (inventory / "hosts.yml").read_text("utf-8").splitlines()
        kept = [line for line in lines if line.strip().rstrip(":") not in without]
        assert len(lines) - len(kept) == len(without)
        (fewer / "hosts.yml").write_text("\n".join(kept) + "\n", "utf-8")
        return play_against(fewer, playbook, *arguments)

    return run


def succeeded(done: Play, changed: int | None = None) -> None:
    """The run ended well, and changed as much as that."""
    assert done.code == 0, done.output[-3000:]
    assert changed is None or done.total_changed == changed, done.output[-3000:]


def stopped(done: Play, message: str, *words: str) -> None:
    """The run ended before any change, with this message of a runbook and with these words."""
    assert done.code != 0
    assert done.total_changed == 0, done.output[-3000:]
    assert is_seen(message, done.output), done.output[-3000:]
    said = " ".join(done.output.split())
    assert [word for word in words if word not in said] == [], done.output[-3000:]


def of_each(hosts: dict[str, Any], names: tuple[str, ...], *words: str) -> dict[str, Any]:
    """The answers of several servers to one command, asked at once."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(lambda name: ask(hosts[name], *words), names), strict=True))


def run_ids(hosts: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """What is another word after every restart of a server."""
    return {name: said["run_id"] for name, said in of_each(hosts, names, "INFO", "server").items()}


def write(host: Any, name: str, count: int, size: int) -> None:
    """Write so many keys of so many bytes each."""
    script = "for i = 1, ARGV[2] do redis.call('SET', ARGV[1] .. i, string.rep('x', ARGV[3])) end"
    answer = ask(host, "EVAL", script, "0", name, str(count), str(size))
    assert answer is None, answer


def in_sync(hosts: dict[str, Any], master: str, replicas: tuple[str, ...]) -> int:
    """Wait until all replicas have all that the master has; the number of keys that all have."""

    def all_have_everything() -> bool:
        said = of_each(hosts, (master, *replicas), "INFO", "replication")
        offset = said.pop(master)["master_repl_offset"]
        return all(
            state["role"] == "slave"
            and state["master_link_status"] == "up"
            and state["slave_repl_offset"] >= offset
            for state in said.values()
        )

    wait_for(all_have_everything)
    keys = of_each(hosts, (master, *replicas), "DBSIZE")
    assert keys[master] > 0
    assert len(set(keys.values())) == 1, keys
    return int(keys[master])


def resyncs(host: Any) -> tuple[int, int]:
    """How many partial and full resyncs a master has given."""
    stats = info(host, "stats")
    return stats["sync_partial_ok"], stats["sync_full"]


def gained(host: Any, before: tuple[int, int]) -> tuple[int, int]:
    partial, full = resyncs(host)
    return partial - before[0], full - before[1]


def test_two_hosts_are_deployed(play: Callable[..., Play], hosts: dict[str, Any]) -> None:
    succeeded(play("site.yml", without=("redis-3", "redis-4")))
    write(hosts["redis-1"], "before:", 500, 100)
    in_sync(hosts, "redis-1", ("redis-2",))


def test_a_redis_that_is_not_ours_stops_the_play(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    """One that somebody installed on the new host, with a key in it."""
    there = hosts["redis-4"]
    there.check_output(
        "apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-server"
    )
    there.check_output("systemctl start redis-server && redis-cli set theirs precious")
    before = run_ids(hosts, TWO)
    done = play("site.yml")
    stopped(done, "foreign-redis#stopped", "redis-4 has a Redis")
    stopped(done, "foreign-redis#why")
    assert run_ids(hosts, TWO) == before
    assert not hosts["redis-3"].package("redis-server").is_installed
    assert not there.file(MARKER).exists
    assert there.check_output("redis-cli get theirs") == "precious"
    there.check_output(block("foreign-redis#move-away"))


def test_a_new_replica_joins_by_a_limited_run(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    before = run_ids(hosts, TWO)
    done = play(*playbook("adding-a-replica#alone"), without=("redis-3",))
    succeeded(done)
    assert set(done.changed) == {"redis-4"}
    assert run_ids(hosts, TWO) == before
    in_sync(hosts, "redis-1", ("redis-2", "redis-4"))


def test_and_its_first_backup_is_confirmed(hosts: dict[str, Any]) -> None:
    made = hosts["redis-4"].run(block("adding-a-replica#first-backup"))
    # Without a receipt the exit status is 1.
    assert made.rc == 0, made.stdout + made.stderr


def test_another_joins_by_the_whole_inventory(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    before = run_ids(hosts, ("redis-1", "redis-2", "redis-4"))
    succeeded(play(*playbook("adding-a-replica#with-all")))
    assert run_ids(hosts, ("redis-1", "redis-2", "redis-4")) == before
    in_sync(hosts, "redis-1", FOUR[1:])
    # From now on the older hosts count the new ones in for their turns.
    config = json.loads(hosts["redis-1"].check_output("cat /etc/redis-backup/redis.json"))
    assert [host["name"] for host in config["hosts"]] == list(FOUR)


def test_a_replica_that_was_off_comes_back_by_itself(hosts: dict[str, Any]) -> None:
    """What it missed fits into the backlog of 64 kB: that is all it gets."""
    hosts["redis-3"].check_output("systemctl stop redis-server")
    before = resyncs(hosts["redis-1"])
    write(hosts["redis-1"], "missed:", 100, 10)
    hosts["redis-3"].check_output("systemctl start redis-server")
    in_sync(hosts, "redis-1", FOUR[1:])
    assert gained(hosts["redis-1"], before) == (1, 0)


@pytest.fixture(scope="module")
def redis_3_is_off(hosts: dict[str, Any]) -> tuple[int, int]:
    """Off while more is written than the backlog holds; what the master had resynced before."""
    hosts["redis-3"].check_output("systemctl stop redis-server")
    before = resyncs(hosts["redis-1"])
    write(hosts["redis-1"], "too much:", 100, 20_000)
    return before


@pytest.mark.usefixtures("redis_3_is_off")
def test_while_one_is_off_none_is_restarted(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    up = ("redis-1", "redis-2", "redis-4")
    before = run_ids(hosts, up)
    stopped(play(RESTART), "restarting-all-servers#not-whole", "redis-3", "down")
    assert run_ids(hosts, up) == before


def test_site_yml_starts_it_again(
    play: Callable[..., Play], hosts: dict[str, Any], redis_3_is_off: tuple[int, int]
) -> None:
    """By a full resync. The inventory has no line for redis-4, which is left alone."""
    left_alone = run_ids(hosts, ("redis-4",))
    succeeded(play(*playbook("replica-that-was-off#start"), without=("redis-4",)), changed=1)
    in_sync(hosts, "redis-1", FOUR[1:])
    assert gained(hosts["redis-1"], redis_3_is_off) == (0, 1)
    assert run_ids(hosts, ("redis-4",)) == left_alone


@pytest.fixture(scope="module")
def powered_off(hosts: dict[str, Any]) -> int:
    """All are off, after a failover to redis-2 that was persisted; how many keys there were.

    redis-3 follows by a name that stands in no inventory.
    """
    ask(hosts["redis-2"], "REPLICAOF", "NO", "ONE")
    address = setting(hosts["redis-2"], "replica-announce-ip")
    hosts["redis-3"].check_output(f"echo {address} second.example >> /etc/hosts")
    ask(hosts["redis-3"], "REPLICAOF", "second.example", "6379")
    of_each(hosts, ("redis-1", "redis-4"), "REPLICAOF", address, "6379")
    of_each(hosts, FOUR, "CONFIG", "REWRITE")
    ask(hosts["redis-2"], "SET", "after", "the failover")
    keys = in_sync(hosts, "redis-2", ("redis-1", "redis-3", "redis-4"))
    for name in ("redis-1", "redis-3", "redis-4", "redis-2"):
        hosts[name].check_output("systemctl stop redis-server")
    return keys


@pytest.mark.usefixtures("powered_off")
def test_where_two_files_say_master_none_is_started(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    hosts["redis-1"].check_output(f"sed -i.before /^replicaof/d {CONF}")
    stopped(play(DEPLOY), "powered-off-set#two-masters", "redis-1 and redis-2")
    assert not any(hosts[name].service("redis-server").is_running for name in FOUR)
    hosts["redis-1"].check_output(f"mv {CONF}.before {CONF}")


def test_a_set_that_was_powered_off_is_brought_up_with_its_last_master(
    play: Callable[..., Play], hosts: dict[str, Any], powered_off: int
) -> None:
    """The inventory still names redis-1. The file of redis-3 gets the address for the name."""
    succeeded(play(*playbook("powered-off-set#start")), changed=5)
    assert master_of(hosts) == "redis-2"
    assert in_sync(hosts, "redis-2", ("redis-1", "redis-3", "redis-4")) == powered_off
    assert ask(hosts["redis-1"], "GET", "after") == "the failover"


def test_a_rolling_restart_leaves_roles_and_keys(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    before, keys = run_ids(hosts, FOUR), ask(hosts["redis-2"], "DBSIZE")
    succeeded(play(*playbook("restarting-all-servers#restart")), changed=1)
    said = of_each(hosts, FOUR, "INFO", "server")
    assert all(said[name]["run_id"] != before[name] for name in FOUR)
    assert master_of(hosts) == "redis-2"
    assert in_sync(hosts, "redis-2", ("redis-1", "redis-3", "redis-4")) == keys
    # The master's process is the youngest.
    ages = {name: server["uptime_in_seconds"] for name, server in said.items()}
    assert ages["redis-2"] == min(ages.values())


def test_it_restarts_nothing_that_would_load_other_data(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    """Somebody turned the append-only file on in the file alone: a restart would come up empty."""
    hosts["redis-1"].check_output(f"sed -i 's/^appendonly no/appendonly yes/' {CONF}")
    before = run_ids(hosts, FOUR)
    stopped(play(RESTART), "restarting-all-servers#other-data")
    assert run_ids(hosts, FOUR) == before
    hosts["redis-1"].check_output(f"sed -i 's/^appendonly yes/appendonly no/' {CONF}")


@pytest.mark.parametrize(
    ("name", "arguments", "message", "words"),
    [
        ("redis-2", (), "removing-a-replica#the-master", "not the master (redis-2)"),
        ("redis-9", (), "removing-a-replica#no-such-host", "(redis-1, redis-2, redis-3, redis-4)"),
        (
            "redis-4",
            ("-e", "redis_min_replicas_to_write=3"),
            "removing-a-replica#the-master",
            "redis_min_replicas_to_write (3; there would be 2)",
        ),
    ],
    ids=["the master", "an unknown host", "one that is needed"],
)
def test_a_host_is_not_removed(
    play: Callable[..., Play],
    hosts: dict[str, Any],
    name: str,
    arguments: tuple[str, ...],
    message: str,
    words: str,
) -> None:
    removal = [word.replace("redis-4", name) for word in playbook("removing-a-replica#remove")]
    stopped(play(*removal, *arguments), message, words)
    assert info(hosts["redis-2"], "replication")["connected_slaves"] == 3


def test_a_replica_is_removed(play: Callable[..., Play], hosts: dict[str, Any]) -> None:
    leaving = hosts["redis-4"]
    assert leaving.file(CRON).exists
    done = play(*playbook("removing-a-replica#remove"))
    succeeded(done, changed=2)
    assert "delete its line" in " ".join(done.output.split())
    assert not leaving.service("redis-server").is_running
    assert not leaving.service("redis-server").is_enabled
    assert not leaving.file(CRON).exists
    assert leaving.file("/mnt/redis_data/dump.rdb").size > 0
    in_sync(hosts, "redis-2", ("redis-1", "redis-3"))
    assert info(hosts["redis-2"], "replication")["connected_slaves"] == 2


def test_a_second_time_changes_nothing(play: Callable[..., Play]) -> None:
    succeeded(play(*playbook("removing-a-replica#remove")), changed=0)


def test_without_its_line_it_is_forgotten(play: Callable[..., Play], hosts: dict[str, Any]) -> None:
    """And so is the name that the set had once."""
    server = hosts["backup-1"]
    server.check_output(f"cp {RECEIPTS.format('redis')} {RECEIPTS.format('former')}")
    assert server.file(REGISTERED).exists
    succeeded(play(*playbook("removing-a-replica#forget"), without=("redis-4",)))
    assert not server.file(REGISTERED).exists
    assert not server.file(RECEIPTS.format("former")).exists
    assert server.file(RECEIPTS.format("redis")).exists
    assert not hosts["redis-4"].service("redis-server").is_running
    in_sync(hosts, "redis-2", ("redis-1", "redis-3"))


def test_in_the_end_everything_is_as_the_inventory_says(play: Callable[..., Play]) -> None:
    succeeded(play("site.yml", without=("redis-4",)), changed=0)
