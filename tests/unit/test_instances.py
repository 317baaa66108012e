"""The instances of a set, and what is known of each, from inventory and registered results."""

from __future__ import annotations

from typing import Any

from ansible_collections.proven.redis.plugins.filter.redis_instances import redis_instances
from ansible_collections.proven.redis.plugins.filter.redis_sets import redis_sets
from ansible_collections.proven.redis.plugins.module_utils.redis_topology import decide

HOSTVARS: dict[str, dict[str, Any]] = {
    "redis-1": {"ansible_host": "127.0.0.1", "redis_address": "10.0.0.1"},
    "redis-2": {"ansible_host": "10.0.0.2", "redis_port": "6380"},
    "redis-3": {},
}


def test_redis_and_ansible_may_reach_a_host_differently() -> None:
    assert redis_instances(["redis-1", "redis-2", "redis-3"], HOSTVARS) == [
        {"host": "redis-1", "address": "10.0.0.1", "port": 6379},
        {"host": "redis-2", "address": "10.0.0.2", "port": 6380},
        {"host": "redis-3", "address": "redis-3", "port": 6379},
    ]


def test_the_name_may_go_by_another_key() -> None:
    assert redis_instances(["redis-3"], HOSTVARS, key="name") == [
        {"name": "redis-3", "address": "redis-3", "port": 6379}
    ]


def test_a_host_outside_the_play_is_known_by_delegation_and_one_without_answer_is_unreachable() -> (
    None
):
    inside = {
        **HOSTVARS,
        "redis-1": {
            **HOSTVARS["redis-1"],
            "__redis_state": {"instance_state": {"state": "virgin"}},
        },
    }
    outside: list[dict[str, Any]] = [
        {
            "ansible_loop_var": "__redis_outside_instance",
            "__redis_outside_instance": {"host": "redis-2"},
            "instance_state": {"state": "up", "role": "master"},
        },
        {
            "ansible_loop_var": "__redis_outside_instance",
            "__redis_outside_instance": {"host": "redis-3"},
            "unreachable": True,
        },
    ]
    instances = redis_instances(list(HOSTVARS), inside, outside)
    assert [(instance["host"], instance["state"]) for instance in instances] == [
        ("redis-1", "virgin"),
        ("redis-2", "up"),
        ("redis-3", "unreachable"),
    ]
    # Complete enough for the decision.
    decision = decide(instances, "redis-1")
    assert (decision["master"], decision["left_out"]) == ("redis-2", ["redis-3"])


def test_the_sets_of_an_inventory_are_those_of_hosts_in_a_replication_group() -> None:
    groups = {
        "all": ["redis-1", "cache-1", "cache-2", "backup-1"],
        "redis": ["redis-1"],
        "redis_cache": ["cache-1", "cache-2"],
        "backup_server": ["backup-1"],
    }
    cache = {"redis_replication_group": "redis_cache", "redis_set_name": "cache"}
    hostvars = {
        "redis-1": {"redis_set_name": "sessions"},
        "cache-1": cache,
        "cache-2": {**cache, "redis_backup_set_name": "half", "redis_engine": "valkey"},
        "backup-1": {},
    }
    # No set is called `redis`, although that is the name of one where nothing is said.
    assert redis_sets(groups, hostvars) == {
        "cache": {"groups": ["redis_cache"], "hosts": ["cache-1"], "engines": ["redis"]},
        "half": {"groups": ["redis_cache"], "hosts": ["cache-2"], "engines": ["valkey"]},
        "sessions": {"groups": ["redis"], "hosts": ["redis-1"], "engines": ["redis"]},
    }
    # Those of some hosts alone.
    assert list(redis_sets(groups, hostvars, ["cache-1", "backup-1"])) == ["cache"]
    defaults: dict[str, dict[str, Any]] = {host: {} for host in groups["all"]}
    only = {"redis": {"groups": ["redis"], "hosts": ["redis-1"], "engines": ["redis"]}}
    assert redis_sets(groups, defaults) == only
    # By mistake, the set of the other group has the same name.
    cache = {"redis_replication_group": "redis_cache"}
    assert redis_sets(groups, {**defaults, "cache-1": cache, "cache-2": cache}) == {
        "redis": {
            "groups": ["redis", "redis_cache"],
            "hosts": ["cache-1", "cache-2", "redis-1"],
            "engines": ["redis"],
        }
    }


def test_names_and_addresses_of_a_host_are_the_same_to_the_decision() -> None:
    """redis_address is a name on one host and a number on the other, and each is followed by what
    the inventory does not call it."""
    addresses = {"redis-1": "redis-1.example", "redis-2": "10.0.0.2", "redis-3": "10.0.0.3"}

    def said(address: str, followed: str | None, **resolved: list[str]) -> dict[str, Any]:
        state = {
            "state": "up",
            "role": "replica" if followed else "master",
            "master_host": followed,
            "master_port": 6379 if followed else None,
            "link_up": bool(followed),
            "file_replicaof": [followed, 6379] if followed else None,
            "keys": 1,
            "keys_on_disk": True,
        }
        return {
            "redis_address": address,
            "__redis_state": {"instance_state": state, "resolved": resolved},
        }

    def instances(master: str, by: str, **resolved: list[str]) -> list[dict[str, Any]]:
        hostvars = {
            name: said(address, None if name == master else by, **resolved)
            for name, address in addresses.items()
        }
        return redis_instances(list(addresses), hostvars, [])

    # The master's name is known by its address, which Sentinel would have put into the file.
    known = instances("redis-1", "10.0.0.1", **{"redis-1.example": ["10.0.0.1"]})
    assert [instance["aliases"] for instance in known] == [["10.0.0.1"], [], []]
    decision = decide(known, "redis-1")
    assert decision["action"] == "proceed"
    assert {plan["does"] for plan in decision["plan"].values()} == {"keep"}
    # The master's address is known by a name that stands in no inventory.
    known = instances("redis-2", "primary", primary=["10.0.0.2"])
    assert [instance["aliases"] for instance in known] == [[], ["primary"], []]
    assert decide(known, "redis-1")["action"] == "proceed"
    # A name of several hosts says nothing about who is meant.
    known = instances("redis-2", "any", any=["10.0.0.2", "10.0.0.3"])
    assert [instance["aliases"] for instance in known] == [[], [], []]
    assert decide(known, "redis-1")["action"] == "stop"
