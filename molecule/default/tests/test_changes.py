"""Running the project again: after a rewrite of its file, after a failover, with new settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.live import (
    Play,
    ask,
    info,
    master_of,
    setting,
    signal_child,
    wait_for,
)

REDIS = ("redis-1", "redis-2", "redis-3")


def sizes(hosts: dict[str, Any]) -> dict[str, int]:
    return {name: ask(hosts[name], "DBSIZE") for name in REDIS}


def in_sync(hosts: dict[str, Any]) -> bool:
    states = [info(hosts[name], "replication") for name in REDIS]
    links = [state["master_link_status"] for state in states if state["role"] == "slave"]
    return links == ["up", "up"]


def promote(hosts: dict[str, Any], new: str) -> None:
    """Move the master role by hand, as somebody does at night."""
    address = setting(hosts[new], "replica-announce-ip")
    ask(hosts[new], "REPLICAOF", "NO", "ONE")
    for name in REDIS:
        if name != new:
            ask(hosts[name], "REPLICAOF", address, "6379")
    wait_for(lambda: in_sync(hosts))


def rewrite(hosts: dict[str, Any]) -> None:
    for name in REDIS:
        ask(hosts[name], "CONFIG", "REWRITE")


@pytest.fixture
def failed_over(hosts: dict[str, Any]) -> Iterator[None]:
    """redis-2 is master, nothing persisted; afterwards redis-1 is, persisted."""
    promote(hosts, "redis-2")
    yield
    promote(hosts, "redis-1")
    rewrite(hosts)


def test_a_second_run_changes_nothing(play: Callable[..., Play]) -> None:
    again = play("site.yml")
    assert again.code == 0, again.output
    assert again.total_changed == 0, again.output


def test_nor_does_one_after_redis_rewrote_its_file(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    rewrite(hosts)
    again = play("playbooks/deploy_redis.yml")
    assert again.code == 0, again.output
    assert again.total_changed == 0, again.output


@pytest.mark.usefixtures("failed_over")
def test_a_persisted_failover_is_left_alone(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    rewrite(hosts)
    again = play("site.yml")
    assert again.code == 0, again.output
    assert again.total_changed == 0, again.output
    assert master_of(hosts) == "redis-2"


@pytest.mark.usefixtures("failed_over")
def test_a_failover_that_nobody_persisted_is_persisted_and_no_role_moves(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    runs = {name: info(hosts[name], "server")["run_id"] for name in REDIS}
    first = play("playbooks/deploy_redis.yml")
    assert first.code == 0, first.output
    # The file of each host says its role of today; one task on each, and no restart.
    assert {name: first.changed[name] for name in REDIS} == dict.fromkeys(REDIS, 1), first.output
    assert {name: info(hosts[name], "server")["run_id"] for name in REDIS} == runs
    assert master_of(hosts) == "redis-2"
    assert play("playbooks/deploy_redis.yml").total_changed == 0


def test_what_the_server_refuses_does_not_reach_it(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    before = info(hosts["redis-1"], "server")["run_id"]
    file = hosts["redis-1"].check_output("sha256sum /etc/redis/redis.conf")
    extra = json.dumps({"redis_extra_config": {"no-such-directive": "1"}})
    refused = play("playbooks/deploy_redis.yml", "--extra-vars", extra)
    assert refused.code != 0
    assert "Bad directive or wrong number of arguments" in refused.output
    assert "no-such-directive" in refused.output
    assert info(hosts["redis-1"], "server")["run_id"] == before
    assert hosts["redis-1"].check_output("sha256sum /etc/redis/redis.conf") == file


def test_check_mode_shows_the_plan_and_changes_nothing(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    extra = json.dumps({"redis_maxmemory": "512mb"})
    planned = play("playbooks/deploy_redis.yml", "--check", "--diff", "--extra-vars", extra)
    assert planned.code == 0, planned.output
    assert "maxmemory: 0 -> 536870912 (CONFIG SET)" in planned.output
    assert setting(hosts["redis-1"], "maxmemory") == "0"


def test_appendonly_switched_over_loaded_data_keeps_every_key(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    fill = "for i = 1, 5000 do redis.call('set', 'kept:' .. i, 'x') end"
    ask(hosts["redis-1"], "EVAL", fill, "0")
    before = sizes(hosts)
    runs = {name: info(hosts[name], "server")["run_id"] for name in REDIS}
    for on in (False, True):
        switched = play(
            "playbooks/deploy_redis.yml", "--extra-vars", json.dumps({"redis_appendonly": on})
        )
        assert switched.code == 0, switched.output
        for name in REDIS:
            assert info(hosts[name], "persistence")["aof_enabled"] == int(on)
    assert sizes(hosts) == before
    assert {name: info(hosts[name], "server")["run_id"] for name in REDIS} == runs
    # The file alone must be enough to come back with everything.
    for name in REDIS:
        hosts[name].check_output("systemctl restart redis-server")
    wait_for(lambda: in_sync(hosts))
    assert sizes(hosts) == before


def test_a_stopped_server_whose_file_was_edited_by_hand_loses_nothing(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    """An RDB, `appendonly yes` in the file and no append-only file: it would start empty."""
    host = hosts["redis-3"]
    off = json.dumps({"redis_appendonly": False})
    assert play("playbooks/deploy_redis.yml", "--limit", "redis-3", "--extra-vars", off).code == 0
    before = ask(host, "DBSIZE")
    host.check_output("systemctl stop redis-server")
    host.check_output("rm -rf /mnt/redis_data/appendonlydir")
    host.check_output("sed -i 's/^appendonly no/appendonly yes/' /etc/redis/redis.conf")
    started = play("playbooks/deploy_redis.yml")
    assert started.code == 0, started.output
    assert info(host, "persistence")["aof_enabled"] == 1
    assert ask(host, "DBSIZE") == before
    assert play("playbooks/deploy_redis.yml").total_changed == 0


def test_the_file_never_turns_on_an_append_only_file_that_is_not_written_yet(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    """A run that died in the middle of the switch left `appendonly yes` on the server alone."""
    host = hosts["redis-3"]
    limited = ("playbooks/deploy_redis.yml", "--limit", "redis-3")
    assert play(*limited, "--extra-vars", json.dumps({"redis_appendonly": False})).code == 0
    # Microseconds per key: the rewrite of some thousand keys takes its time.
    ask(host, "CONFIG", "SET", "rdb-key-save-delay", "20000")
    ask(host, "CONFIG", "SET", "appendonly", "yes")
    impatient = play(*limited, "--extra-vars", json.dumps({"redis_sync_timeout": 1}))
    assert impatient.code != 0
    assert "was not rewritten within 1 s" in impatient.output
    host.run_expect([0], "grep -qx 'appendonly no' /etc/redis/redis.conf")
    ask(host, "CONFIG", "SET", "rdb-key-save-delay", "0")
    # The server writes it anew, at once.
    signal_child(host, "USR1")
    assert play(*limited).code == 0
    host.run_expect([0], "grep -qx 'appendonly yes' /etc/redis/redis.conf")
    assert info(host, "persistence")["aof_rewrite_in_progress"] == 0


def test_after_a_failed_restart_the_next_host_is_left_alone(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    runs = {name: info(hosts[name], "server")["run_id"] for name in REDIS}
    # Fine in the trial boot, which has a socket of its own; the real one cannot open this.
    extra = {"redis_extra_config": {"unixsocket": "/etc/nowhere/redis.sock"}}
    failed = play("playbooks/deploy_redis.yml", "--extra-vars", json.dumps(extra))
    assert failed.code != 0
    assert "The previous configuration file was put back, and the server runs again" in (
        " ".join(failed.output.split())
    )
    after = {name: info(hosts[name], "server")["run_id"] for name in REDIS}
    assert after["redis-2"] != runs["redis-2"], "it was restarted, in vain"
    assert (after["redis-3"], after["redis-1"]) == (runs["redis-3"], runs["redis-1"])
    wait_for(lambda: in_sync(hosts))
    assert play("playbooks/deploy_redis.yml").code == 0
    assert play("playbooks/deploy_redis.yml").total_changed == 0
