"""Everything that may be wrong is put into words, and nothing that is right."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.filter.human_bytes import human_bytes
from ansible_collections.proven.redis.plugins.module_utils.redis_findings import (
    of_drill_host,
    of_server,
    of_set,
    of_units,
    units_shown,
)
from redis_backup.base import output

ADDRESSES = {"one": "192.0.2.1", "two": "192.0.2.2", "three": "192.0.2.3"}


def instance(host: str, follows: str | None, **changes: Any) -> dict[str, Any]:
    """One that is up, and whose file says what it does."""
    upstream = [ADDRESSES.get(follows, follows), 6379] if follows else None
    role = {"role": "replica", "master_host": upstream[0], "master_port": 6379} if upstream else {}
    return {
        "host": host,
        "address": ADDRESSES[host],
        "port": 6379,
        "state": "up",
        "role": "master",
        "link_up": bool(follows),
        "keys": 5,
        "keys_on_disk": True,
        "connected_replicas": 0,
        "offset": 100,
        "file_replicaof": upstream,
        **role,
        **changes,
    }


def wrong(*instances: dict[str, Any], **seen: dict[str, Any]) -> list[str]:
    hosts = {each["host"]: seen.get(each["host"], {}) for each in instances}
    return of_set("redis", instances, hosts)


MASTER = instance("one", None)
REPLICA = instance("two", "one")


@pytest.mark.parametrize("master", ["one", "two", "three"])
def test_nothing_is_wrong_with_a_set_whoever_is_its_master(master: str) -> None:
    assert wrong(*(instance(h, None if h == master else master) for h in ADDRESSES)) == []


WORK = "a restore is at work since t (run r, phase feed, to end by u)"

STATES: list[tuple[list[dict[str, Any]], list[str]]] = [
    ([MASTER, instance("two", None)], ["set redis has 2 masters, one and two"]),
    (
        [instance("one", "two"), instance("two", "one")],
        ["set redis has no master", "in a circle: one follows two follows one"],
    ),
    (
        [instance("one", "two"), instance("two", "three"), instance("three", "one")],
        ["no master", "in a circle: one follows two follows three follows one"],
    ),
    # A circle beside a replica that leads into it.
    (
        [instance("one", "two"), instance("two", "one"), instance("three", "one")],
        ["no master", "in a circle: one follows two follows one"],
    ),
    (
        [MASTER, instance("two", "one", link_up=False)],
        ["the link of two to its master one is down"],
    ),
    (
        [MASTER, instance("two", "198.51.100.7")],
        ["two follows 198.51.100.7:6379, which is no server of its set"],
    ),
    (
        [MASTER, REPLICA, instance("three", "two")],
        ["three follows two, a replica itself"],
    ),
    (
        [MASTER, instance("two", "one", state="unreachable")],
        ["two cannot be reached"],
    ),
    (
        [instance("one", None, state="unreachable"), REPLICA],
        [
            "one cannot be reached",
            "set redis has no master: no write is accepted, unless one is one",
        ],
    ),
    (
        [MASTER, instance("two", "one", state="auth_refused", detail="WRONGPASS")],
        ["two refuses the password of the inventory: WRONGPASS"],
    ),
    (
        [MASTER, instance("two", "one", state="not_ours", detail="a server")],
        ["two has a Redis or data that is not this instance's: a server"],
    ),
    (
        [MASTER, instance("two", "one", state="virgin", keys_on_disk=False)],
        ["two has no server of its set yet"],
    ),
    ([MASTER, instance("two", "one", state="down")], ["the server of two is down"]),
    ([instance("one", None, operation=WORK), REPLICA], [f"one: {WORK}; end it or give it up"]),
    (
        [instance("one", None, file_replicaof=["192.0.2.2", 6379]), REPLICA],
        ["one is a master, and its file says replica of two"],
    ),
    (
        [MASTER, instance("two", "one", file_replicaof=None)],
        ["two is a replica, and its file says master"],
    ),
    (
        [MASTER, REPLICA, instance("three", "one", file_replicaof=["192.0.2.2", 6379])],
        ["three follows one, and its file says two"],
    ),
]


@pytest.mark.parametrize(("instances", "words"), STATES, ids=[words[-1] for _, words in STATES])
def test_what_is_wrong_with_a_set(instances: list[dict[str, Any]], words: list[str]) -> None:
    found = wrong(*instances)
    assert len(found) == len(words), found
    for sentence, expected in zip(found, words, strict=True):
        assert expected in sentence


def test_a_file_may_name_a_master_by_another_of_its_names() -> None:
    named = instance("two", "one", file_replicaof=["one.example", 6379])
    assert wrong(instance("one", None, aliases=["one.example"]), named) == []


SEEN: list[tuple[dict[str, Any], str]] = [
    ({"silence": "no route\nto it"}, "one did not answer: no route to it"),
    (
        {"settings": ["maxmemory: 0 -> 2gb (CONFIG SET)"]},
        "its settings are not as the inventory says (maxmemory: 0 -> 2gb (CONFIG SET))",
    ),
    (
        {"problem": "the server refuses it."},
        "its settings could not be compared: the server refuses",
    ),
    ({"persistence": {"rdb_last_bgsave_status": "err"}}, "the last snapshot failed"),
    ({"persistence": {"aof_last_write_status": "err"}}, "cannot write its append-only file"),
    ({"persistence": {"aof_last_bgrewrite_status": "err"}}, "last rewrite of the append-only file"),
    (
        {"persistence": {"aof_enabled": 1, "aof_rewrite_scheduled": 1, "aof_base_size": 0}},
        "the first rewrite of its append-only file has not ended",
    ),
    (
        {"persistence": {"rdb_current_bgsave_time_sec": 4000}},
        "a snapshot has been at work for 66 min",
    ),
    (
        {"replication": {"min_replicas_to_write": 2, "min_slaves_good_slaves": 1}},
        "one refuses writes: 1 of the 2 replicas",
    ),
    (
        {"disk": {"dir": "/data", "free": 2**20, "needed": 2**26}},
        "/data has 1.0 MiB free, its next snapshot needs 64.0 MiB",
    ),
    ({"enabled": False}, "its server does not start with the machine"),
    ({"schedule": ["/etc/cron.d/x"]}, "the schedule of its backup is not as the inventory says"),
    (
        {"crontabs": ["/etc/crontab line 9 runs redis-cli save"]},
        "one: /etc/crontab line 9 runs redis",
    ),
]


@pytest.mark.parametrize(("seen", "words"), SEEN, ids=[words for _, words in SEEN])
def test_what_is_wrong_with_a_host(seen: dict[str, Any], words: str) -> None:
    (sentence,) = wrong(MASTER, REPLICA, one=seen)
    assert words in sentence
    assert not sentence.endswith(".")


def test_what_a_host_says_is_no_finding() -> None:
    sound = {
        "settings": ["replicaof: None -> two (file)"],
        "persistence": {
            "rdb_last_bgsave_status": "ok",
            "aof_last_write_status": "ok",
            "aof_last_bgrewrite_status": "ok",
            "aof_enabled": 1,
            "aof_rewrite_in_progress": 1,
            "aof_base_size": 100,
            "aof_current_rewrite_time_sec": 5,
        },
        "replication": {"min_replicas_to_write": 1, "min_slaves_good_slaves": 1},
        "disk": {"dir": "/data", "free": 2**30, "needed": 2**26},
        "enabled": True,
        "units": units_shown(
            "Id=cron.service\nActiveState=active\nUnitFileState=enabled", ("cron.service",)
        ),
    }
    assert wrong(MASTER, REPLICA, one=sound) == []


def test_hosts_of_one_address_are_told_beside_their_silence() -> None:
    twin = {**REPLICA, "address": ADDRESSES["one"]}
    found = wrong(MASTER, twin, one={"silence": "off"})
    assert found[0] == "one did not answer: off"
    assert "have the same address" in found[1]


# --- backup server, drill host, units --------------------------------------------------------

CHECKS = [
    {"check": "backup", "set": "redis", "ok": True, "message": "fresh"},
    {"check": "drill", "set": "redis", "ok": False, "message": "30.0 h ago, 26.0 h are allowed"},
    {"check": "disk", "set": None, "ok": False, "message": "no room"},
]


def test_what_the_check_of_the_backup_server_found() -> None:
    assert of_server("backup-1", {"checks": CHECKS[:1]}, ["redis"]) == []
    assert of_server("backup-1", {"checks": CHECKS}, ["redis"]) == [
        "drill of set redis: 30.0 h ago, 26.0 h are allowed",
        "disk: no room",
    ]


def test_a_set_of_which_the_backup_server_knows_nothing_is_told() -> None:
    (sentence,) = of_server("backup-1", {"checks": CHECKS[:1]}, ["redis", "sessions"])
    assert "backup-1 expects no backups of set sessions" in sentence


def test_a_backup_server_that_says_nothing_or_is_set_up_otherwise() -> None:
    silent = of_server("backup-1", {"silence": "refused"}, ["redis"])
    assert silent == ["backup-1 did not answer: refused"]
    (sentence,) = of_server("backup-1", {"checks": CHECKS[:1], "files": ["/etc/a"]}, ["redis"])
    assert "not set up as the inventory says (/etc/a)" in sentence


def test_a_drill_host_is_reached_and_has_a_schedule() -> None:
    assert of_drill_host("drill-1", {}) == []
    assert of_drill_host("drill-1", {"silence": "off"}) == ["drill-1 did not answer: off"]
    (sentence,) = of_drill_host("drill-1", {"schedule": ["/etc/cron.d/redis-restore-drill"]})
    assert "the schedule of its drill" in sentence


UNITS = [
    ("a.timer", "ActiveState=active\nUnitFileState=enabled", None),
    ("a.timer", "ActiveState=inactive\nUnitFileState=enabled", "a.timer does not run (inactive)"),
    ("a.timer", "ActiveState=active\nUnitFileState=disabled", "does not start with the machine"),
    ("a.service", "ActiveState=inactive\nUnitFileState=static", None),
    ("a.service", "ActiveState=failed\nResult=exit-code", "a.service failed (exit-code)"),
    ("a.service", "LoadState=not-found\nActiveState=inactive", "host has no a.service"),
]


@pytest.mark.parametrize(("name", "properties", "words"), UNITS)
def test_units(name: str, properties: str, words: str | None) -> None:
    found = of_units("host", units_shown(f"Id={name}\n{properties}\n", (".timer",)))
    assert [words in sentence for sentence in found if words] == ([True] if words else [])
    assert bool(found) == bool(words)


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1536, 2**20 - 1, 2**20, 10**9, 2**40, 2**52])
def test_a_size_is_written_as_by_the_program_itself(count: int) -> None:
    assert human_bytes(count) == output.human_bytes(count)
