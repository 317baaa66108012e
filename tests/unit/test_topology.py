"""The decision about a set, row by row."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_set import TopologyError
from ansible_collections.proven.redis.plugins.module_utils.redis_topology import decide
from hypothesis import given, settings
from hypothesis import strategies as st

Instance = dict[str, Any]
HOSTS = ("redis-1", "redis-2", "redis-3")


def address(host: str) -> list[Any]:
    return [f"192.0.2.1{host[-1]}", 6379]


OUTSIDE = ["198.51.100.9", 6379]


def instance(host: str, state: str, **more: Any) -> Instance:
    return {
        "host": host,
        "address": address(host)[0],
        "port": 6379,
        "state": state,
        "role": None,
        "master_host": None,
        "master_port": None,
        "link_up": False,
        "offset": None,
        "replid": "a" * 40,
        "keys": 0,
        "connected_replicas": 0,
        "keys_on_disk": False,
        "file_replicaof": None,
        "detail": "",
        **more,
    }


def master(host: str, keys: int = 5, replicas: int = 0, **more: Any) -> Instance:
    values = {"role": "master", "keys": keys, "connected_replicas": replicas, "offset": 100}
    return instance(host, "up", **{**values, "keys_on_disk": keys > 0, **more})


def replica(host: str, of: str | list[Any], keys: int = 5, **more: Any) -> Instance:
    target = address(of) if isinstance(of, str) else of
    values = {
        "role": "replica",
        "master_host": target[0],
        "master_port": target[1],
        "link_up": True,
        "keys": keys,
        "offset": 100,
        "keys_on_disk": keys > 0,
        "file_replicaof": target,
    }
    return instance(host, "up", **{**values, **more})


def down(host: str, of: str | list[Any] | None = None, **more: Any) -> Instance:
    target = address(of) if isinstance(of, str) else of
    values = {"keys_on_disk": True, "file_replicaof": target, "offset": 90}
    return instance(host, "down", **{**values, **more})


def virgin(host: str, **more: Any) -> Instance:
    return instance(host, "virgin", **more)


def does(decision: dict[str, Any]) -> dict[str, str]:
    return {host: entry["does"] for host, entry in decision["plan"].items()}


def outcome(
    *instances: Instance, rejoin: list[str] | None = None, intended: str = "redis-1"
) -> tuple[int, str, str | None, str | None, dict[str, str]]:
    """Row, action, master, start_first, and what is done with each host."""
    decision = decide(list(instances), intended, rejoin or [])
    if decision["action"] == "proceed":
        reached = [one["host"] for one in instances if one["state"] != "unreachable"]
        assert list(decision["plan"]) == reached
        for host, entry in decision["plan"].items():
            is_master = host == decision["master"]
            assert entry["role"] == ("master" if is_master else "replica")
            assert entry["replicaof"] == (None if is_master else address(decision["master"]))
    else:
        assert decision["plan"] == {}
        assert decision["start_first"] is None
    assert len(decision["report"]) == len(instances)
    assert decision["reason"]
    assert "\n" not in decision["reason"]
    return (
        decision["row"],
        decision["action"],
        decision["master"],
        decision["start_first"],
        does(decision),
    )


def stops(row: int, *instances: Instance, rejoin: list[str] | None = None) -> str:
    """The reason of a decision that has to stop in this row."""
    found = outcome(*instances, rejoin=rejoin)
    assert found[:2] == (row, "stop"), found
    return str(decide(list(instances), "redis-1", rejoin or [])["reason"])


# --- row 1 -----------------------------------------------------------------------------------


def test_row_1_auth_refused() -> None:
    reason = stops(1, instance("redis-1", "auth_refused"), virgin("redis-2"), virgin("redis-3"))
    assert "redis-1 refused the password" in reason
    assert "refused the password of the inventory" in reason


def test_row_1_not_ours() -> None:
    reason = stops(
        1, master("redis-1"), instance("redis-2", "not_ours"), instance("redis-3", "not_ours")
    )
    assert "redis-2 and redis-3 have a Redis or data" in reason


def test_row_1_comes_before_row_2() -> None:
    instances = master("redis-1"), master("redis-2"), instance("redis-3", "auth_refused")
    assert outcome(*instances)[0] == 1


# --- row 2 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"keys": 1}, {"keys": 1}),
        ({"keys": 0, "replicas": 1}, {"keys": 1}),
        ({"keys": 0, "replicas": 1}, {"keys": 0, "replicas": 1}),
    ],
)
def test_row_2_two_masters_that_matter(one: dict[str, int], other: dict[str, int]) -> None:
    reason = stops(2, master("redis-1", **one), master("redis-2", **other), virgin("redis-3"))
    assert "redis-1 and redis-2 are all masters" in reason


# --- row 3 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "holder",
    [
        down("redis-2", "redis-1"),
        down("redis-2"),
        replica("redis-2", "redis-1", link_up=False),
        replica("redis-2", "redis-3"),
        replica("redis-2", "redis-1", keys=0, keys_on_disk=True, link_up=False),
        master("redis-2", keys=7),
    ],
)
def test_row_3_an_empty_master_would_wipe(holder: Instance) -> None:
    reason = stops(3, master("redis-1", keys=0), holder, virgin("redis-3"), rejoin=["redis-2@90"])
    assert "redis-1 is a master without keys, but redis-2 has keys" in reason


def test_row_3_takes_an_unreachable_host_for_no_holder() -> None:
    assert outcome(master("redis-1", keys=0), instance("redis-2", "unreachable"))[0] == 4


def test_a_set_whose_keys_have_all_expired_is_healthy() -> None:
    follower = replica("redis-2", "redis-1", keys=1, keys_on_disk=True)
    found = outcome(master("redis-1", keys=0, replicas=1), follower)
    assert found == (4, "proceed", "redis-1", None, {"redis-1": "keep", "redis-2": "keep"})


# --- row 4 -----------------------------------------------------------------------------------


def test_row_4_a_healthy_set_is_kept() -> None:
    instances = (
        master("redis-1", replicas=2),
        replica("redis-2", "redis-1"),
        replica("redis-3", "redis-1"),
    )
    assert outcome(*instances) == (4, "proceed", "redis-1", None, dict.fromkeys(HOSTS, "keep"))


def test_row_4_the_live_master_counts_not_the_inventorys() -> None:
    found = outcome(
        replica("redis-1", "redis-2"), master("redis-2", replicas=2), replica("redis-3", "redis-2")
    )
    assert found == (4, "proceed", "redis-2", None, dict.fromkeys(HOSTS, "keep"))


def test_row_4_a_promotion_that_nobody_persisted_is_persisted() -> None:
    found = outcome(
        replica("redis-1", "redis-2", file_replicaof=None),
        master("redis-2", replicas=2, file_replicaof=address("redis-1")),
        replica("redis-3", "redis-2", file_replicaof=address("redis-1")),
    )
    assert found == (4, "proceed", "redis-2", None, dict.fromkeys(HOSTS, "persist"))


def test_row_4_virgin_hosts_join_and_down_replicas_start() -> None:
    found = outcome(master("redis-1"), virgin("redis-2"), down("redis-3", "redis-1"))
    assert found[4] == {"redis-1": "keep", "redis-2": "join", "redis-3": "start"}


def test_row_4_a_replica_of_a_replica_is_repointed() -> None:
    found = outcome(
        master("redis-1", replicas=1), replica("redis-2", "redis-1"), replica("redis-3", "redis-2")
    )
    assert found[4] == {"redis-1": "keep", "redis-2": "keep", "redis-3": "repoint"}


def test_row_4_a_replica_of_a_former_master_is_repointed() -> None:
    found = outcome(
        virgin("redis-1"), master("redis-2"), replica("redis-3", "redis-1", link_up=False)
    )
    assert found[4] == {"redis-1": "join", "redis-2": "keep", "redis-3": "repoint"}


def test_row_4_a_link_that_is_down_is_waited_for_not_repointed() -> None:
    found = outcome(master("redis-1"), replica("redis-2", "redis-1", link_up=False))
    assert found[4] == {"redis-1": "keep", "redis-2": "keep"}


def test_row_4_a_former_master_that_is_down_stops() -> None:
    instances = down("redis-1", offset=250), master("redis-2"), replica("redis-3", "redis-2")
    reason = stops(4, *instances)
    assert "redis-1 is down and its own file says master" in reason
    assert "offset 250" in reason
    assert "redis-2 (offset 100)" in reason
    assert "redis_rejoin_as_replica" in reason
    assert decide(instances, "redis-1")["master"] == "redis-2"
    assert "have redis-1@250 in redis_rejoin_as_replica" in reason
    # A consent is about what was shown: not about another host, nor about other data of this one.
    assert outcome(*instances, rejoin=["redis-3@100"])[1] == "stop"
    assert outcome(*instances, rejoin=["redis-1@249"])[1] == "stop"
    assert outcome(*instances, rejoin=["redis-1@unknown"])[1] == "stop"


def test_row_4_a_former_master_whose_offset_is_unknown_stops() -> None:
    instances = down("redis-1", offset=None), master("redis-2")
    assert "offset unknown" in stops(4, *instances)
    assert outcome(*instances, rejoin=["redis-1@unknown"])[1] == "proceed"


def test_row_4_a_former_master_may_be_told_to_rejoin() -> None:
    found = outcome(down("redis-1"), master("redis-2"), rejoin=["redis-1@90"])
    assert found == (4, "proceed", "redis-2", None, {"redis-1": "start", "redis-2": "keep"})


def test_a_consent_that_nothing_asked_for_is_named() -> None:
    instances = [down("redis-1"), master("redis-2"), replica("redis-3", "redis-2")]
    decision = decide(instances, "redis-1", ["redis-1@90", "redis-3@100"])
    assert decision["unneeded"] == ["redis-3@100"]
    healthy = [master("redis-1"), replica("redis-2", "redis-1")]
    assert decide(healthy, "redis-1", ["redis-2@5"])["unneeded"] == ["redis-2@5"]


def test_row_4_goes_on_without_a_host_that_cannot_be_reached() -> None:
    away = instance("redis-1", "unreachable")
    decision = decide(
        [
            away,
            master("redis-2", file_replicaof=address("redis-1")),
            replica("redis-3", "redis-2", file_replicaof=address("redis-1")),
            virgin("redis-4"),
        ],
        "redis-1",
    )
    assert does(decision) == {"redis-2": "persist", "redis-3": "persist", "redis-4": "join"}
    assert decision["left_out"] == ["redis-1"]
    assert decision["report"][0].endswith("cannot be reached -> left out")


def test_row_4_a_replica_of_a_dead_master_follows_the_new_one() -> None:
    away = instance("redis-1", "unreachable")
    new = master("redis-2", replid="b" * 40, replid2="a" * 40, second_offset=101, offset=300)
    behind = replica("redis-3", "redis-1", link_up=False, offset=100)
    assert outcome(away, new, behind)[4] == {"redis-2": "keep", "redis-3": "repoint"}
    # It got what the new master never did.
    ahead = {**behind, "offset": 101}
    assert "redis-3@101" in stops(4, away, new, ahead)
    assert outcome(away, new, ahead, rejoin=["redis-3@101"])[4]["redis-3"] == "repoint"
    assert outcome(away, new, {**ahead, "keys": 0})[4]["redis-3"] == "repoint"


def test_row_4_a_link_to_a_host_that_cannot_be_reached_shows_that_it_lives() -> None:
    linked = replica("redis-3", "redis-1", link_up=True, offset=100)
    new = master("redis-2", replid="b" * 40, replid2="a" * 40, second_offset=101)
    reason = stops(4, instance("redis-1", "unreachable"), new, linked)
    assert "redis-3 has a link to redis-1, which cannot be reached from here" in reason


def test_an_operation_at_work_stops() -> None:
    reason = stops(
        1, master("redis-1", operation="a restore is at work"), replica("redis-2", "redis-1")
    )
    assert reason == "on redis-1 a restore is at work"


def test_row_4_tells_every_reason_to_stop() -> None:
    reason = stops(
        4,
        master("redis-1"),
        instance("redis-2", "unreachable"),
        down("redis-3"),
        replica("redis-4", OUTSIDE),
        replica("redis-5", "redis-2"),
    )
    assert "redis-5 has a link to redis-2" in reason
    assert "redis-3 is down" in reason
    assert "redis-4 follows 198.51.100.9:6379" in reason


@pytest.mark.parametrize("stranger", [replica("redis-2", OUTSIDE), down("redis-2", OUTSIDE)])
def test_a_host_that_follows_somebody_outside_stops(stranger: Instance) -> None:
    reason = stops(8, master("redis-1"), stranger)
    assert "redis-2 follows 198.51.100.9:6379, which is no host of this set" in reason
    expected = "repoint" if stranger["state"] == "up" else "start"
    consent = f"redis-2@{stranger['offset']}"
    assert outcome(master("redis-1"), stranger, rejoin=[consent])[4]["redis-2"] == expected


# --- row 5 -----------------------------------------------------------------------------------


def test_row_5_the_master_that_all_name_is_started_in_place() -> None:
    found = outcome(
        down("redis-1"), replica("redis-2", "redis-1", link_up=False), replica("redis-3", "redis-1")
    )
    plan = {"redis-1": "start", "redis-2": "keep", "redis-3": "keep"}
    assert found == (5, "proceed", "redis-1", "redis-1", plan)


def test_row_5_others_follow() -> None:
    found = outcome(
        replica("redis-1", "redis-2", file_replicaof=None),
        down("redis-2"),
        down("redis-3", "redis-2"),
        virgin("redis-4"),
    )
    plan = {"redis-1": "persist", "redis-2": "start", "redis-3": "start", "redis-4": "join"}
    assert found == (5, "proceed", "redis-2", "redis-2", plan)


@pytest.mark.parametrize(
    ("instances", "why"),
    [
        ([virgin("redis-1"), replica("redis-2", "redis-1")], "has no data any more"),
        (
            [down("redis-1", keys_on_disk=False), replica("redis-2", "redis-1")],
            "is down without keys",
        ),
        (
            [down("redis-1"), down("redis-2"), replica("redis-3", "redis-1")],
            "the file of redis-2 says master",
        ),
        (
            [down("redis-1"), down("redis-2", "redis-3"), replica("redis-3", "redis-1")],
            "the file of redis-2 says replica of 192.0.2.13:6379",
        ),
        (
            [down("redis-1", "redis-2"), replica("redis-2", "redis-1")],
            "the file of redis-1, which they follow, says replica of 192.0.2.12:6379",
        ),
        (
            [
                down("redis-1"),
                down("redis-2", "redis-1"),
                replica("redis-3", "redis-1"),
                replica("redis-4", "redis-2"),
            ],
            "do not name one host: redis-3 follows redis-1 and redis-4 follows redis-2",
        ),
        (
            [down("redis-1"), replica("redis-2", "redis-1"), replica("redis-3", "redis-2")],
            "do not name one host",
        ),
        (
            [replica("redis-1", "redis-2"), replica("redis-2", "redis-1")],
            "do not name one host",
        ),
        ([virgin("redis-1"), replica("redis-2", "redis-2")], "is itself a replica"),
        ([virgin("redis-1"), replica("redis-2", OUTSIDE)], "198.51.100.9:6379, which is no host"),
    ],
)
def test_row_5_anything_uncertain_stops(instances: list[Instance], why: str) -> None:
    assert why in stops(5, *instances)


def test_row_5_a_set_without_any_keys_has_nothing_to_lose() -> None:
    follower = replica("redis-2", "redis-1", keys=0)
    for stopped in (virgin("redis-1"), down("redis-1", keys_on_disk=False)):
        found = outcome(stopped, follower)
        assert found[:4] == (5, "proceed", "redis-1", "redis-1")


# --- row 6 -----------------------------------------------------------------------------------


def test_row_6_the_only_file_that_says_master_starts_first() -> None:
    found = outcome(down("redis-1", "redis-2"), down("redis-2"), virgin("redis-3"))
    plan = {"redis-1": "start", "redis-2": "start", "redis-3": "join"}
    assert found == (6, "proceed", "redis-2", "redis-2", plan)


@pytest.mark.parametrize(
    ("instances", "why"),
    [
        ([down("redis-1"), down("redis-2")], "the files of redis-1 and redis-2 all say master"),
        ([down("redis-1", "redis-2"), virgin("redis-2")], "the file of none of redis-1 says"),
        (
            [down("redis-1", keys_on_disk=False), down("redis-2", "redis-1")],
            "is that of redis-1, which has no keys",
        ),
        # After a failover that only redis-3 persisted, the old master is not the one to start.
        (
            [down("redis-1"), down("redis-2", "redis-1"), down("redis-3", "redis-2")],
            "the file of redis-3 says replica of 192.0.2.12:6379",
        ),
        (
            [down("redis-1"), down("redis-2", OUTSIDE)],
            "the file of redis-2 says replica of 198.51.100.9:6379",
        ),
    ],
)
def test_row_6_anything_uncertain_stops(instances: list[Instance], why: str) -> None:
    reason = stops(6, *instances)
    assert why in reason
    assert "start the one with the right data by hand" in reason


def test_row_6_a_consent_does_not_choose_between_two_masters() -> None:
    """It may be an old one: with it redis-1 would lose what it has gathered since."""
    assert outcome(down("redis-1"), down("redis-2"), rejoin=["redis-1@90"])[:2] == (6, "stop")


# --- rows 7 and 8 ----------------------------------------------------------------------------


def test_row_7_a_new_set_starts_as_the_inventory_says() -> None:
    found = outcome(*(virgin(host) for host in HOSTS), intended="redis-2")
    plan = {"redis-1": "join", "redis-2": "bootstrap", "redis-3": "join"}
    assert found == (7, "proceed", "redis-2", "redis-2", plan)


@pytest.mark.parametrize(
    "instances",
    [
        [virgin("redis-1"), instance("redis-2", "unreachable")],
        [down("redis-1"), instance("redis-2", "unreachable")],
        [down("redis-1"), replica("redis-2", "redis-1"), instance("redis-3", "unreachable")],
    ],
)
def test_row_8_no_master_and_a_host_that_cannot_be_reached(instances: list[Instance]) -> None:
    assert f"{instances[-1]['host']}, which may be one" in stops(8, *instances)


def test_row_8_two_empty_masters() -> None:
    reason = stops(8, master("redis-1", keys=0), master("redis-2", keys=0))
    assert "redis-1 and redis-2 are all masters" in reason


# --- words and addresses ---------------------------------------------------------------------


def test_the_report_says_what_each_host_said() -> None:
    instances = [
        master("redis-1", keys=1, replicas=1),
        replica("redis-2", "redis-1", link_up=False, detail="loading took 3 s"),
        down("redis-3", OUTSIDE, keys_on_disk=False, offset=None),
        instance("redis-4", "unreachable", detail="ssh: timed out"),
        virgin("redis-5"),
    ]
    assert decide(instances, "redis-1")["report"] == [
        "redis-1 (192.0.2.11:6379): master, 1 key, 1 replica, offset 100, its file says master",
        "redis-2 (192.0.2.12:6379): replica of redis-1, link down, 5 keys, offset 100, its file"
        " says replica of redis-1 (loading took 3 s)",
        "redis-3 (192.0.2.13:6379): down, without keys on disk, offset unknown, its file says"
        " replica of 198.51.100.9:6379, outside the set",
        "redis-4 (192.0.2.14:6379): cannot be reached (ssh: timed out)",
        "redis-5 (192.0.2.15:6379): no data",
    ]


def test_hosts_are_told_apart_by_port_and_known_by_every_name() -> None:
    first = master("redis-1", address="2001:db8::1", aliases=["Redis-1.Example"])
    second = replica("redis-2", ["2001:DB8:0::1", "6379"], address="2001:db8::1", port="6380")
    third = replica("redis-3", ["redis-1.example.", 6379])
    decision = decide([first, second, third], "redis-1")
    assert does(decision) == dict.fromkeys(HOSTS, "keep")
    assert decision["plan"]["redis-2"]["replicaof"] == ["2001:db8::1", 6379]
    assert decision["report"][1].startswith("redis-2 ([2001:db8::1]:6380): replica of redis-1,")


def without(described: Instance, name: str) -> Instance:
    return {key: value for key, value in described.items() if key != name}


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([], "'redis-1', is no host of this set"),
        ([virgin("redis-2")], "'redis-1', is no host of this set"),
        ([virgin("redis-1"), virgin("redis-1")], "twice"),
        (
            [virgin("redis-1"), virgin("redis-2", address="192.0.2.11")],
            "redis-1 and redis-2 have the same address",
        ),
        ([instance("redis-1", "odd")], "state 'odd'"),
        ([virgin("redis-1", keys_on_disk=True)], "virgin and have keys on disk"),
        ([virgin("redis-1", port="x")], "not a number"),
        ([{**virgin("redis-1"), "host": ""}], "without its name"),
        (["redis-1"], "not by a mapping"),
        ([master("redis-1", role="sentinel")], "role 'sentinel'"),
        ([without(master("redis-1"), "keys")], "redis-1: keys is not given"),
        ([{**master("redis-1"), "keys": None}], "keys is None, not a number"),
        ([without(down("redis-1"), "keys_on_disk")], "keys_on_disk is not given"),
        ([down("redis-1", keys_on_disk="no")], "neither true nor false"),
        ([without(down("redis-1"), "file_replicaof")], "file_replicaof is not given"),
    ],
)
def test_a_description_that_is_wrong_is_refused(instances: list[Instance], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        decide(instances, "redis-1")


def test_a_consent_for_nobody_is_refused() -> None:
    with pytest.raises(TopologyError, match="redis-9"):
        decide([virgin("redis-1")], "redis-1", ["redis-9@1"])
    with pytest.raises(TopologyError, match="HOST@OFFSET"):
        decide([virgin("redis-1")], "redis-1", ["redis-1"])
    with pytest.raises(TopologyError, match="list"):
        decide([virgin("redis-1")], "redis-1", "redis-1")


# --- properties ------------------------------------------------------------------------------


def every_instance(host: str, targets: list[list[Any]]) -> list[Instance]:
    """Everything that a host can be, as far as the decision can tell."""
    instances = [
        instance(host, state) for state in ("virgin", "unreachable", "auth_refused", "not_ours")
    ]
    files = [None, *targets]
    instances += [
        master(host, keys=keys, replicas=replicas, keys_on_disk=on_disk)
        for keys, replicas, on_disk in product((0, 1), (0, 1), (False, True))
    ]
    instances += [
        replica(host, of, keys=keys, keys_on_disk=on_disk, link_up=link, file_replicaof=file)
        for of, keys, on_disk, link, file in product(
            targets, (0, 1), (False, True), (False, True), (None, targets[0])
        )
    ]
    instances += [
        down(host, file, keys_on_disk=kept) for file, kept in product(files, (False, True))
    ]
    return instances


EVERY_PAIR = list(
    product(*(every_instance(host, [*map(address, HOSTS[:2]), OUTSIDE]) for host in HOSTS[:2]))
)
ANY_SET = st.tuples(
    *(
        st.sampled_from(every_instance(host, [*map(address, HOSTS), OUTSIDE])[1:])
        | st.just(virgin(host))
        for host in HOSTS
    )
)
CONSENTS = st.lists(st.sampled_from([f"{host}@90" for host in HOSTS]), unique=True)


def holds_keys(one: Instance) -> bool:
    return bool(one["keys_on_disk"] or one["keys"])


def assert_costs_no_data(instances: Sequence[Instance], rejoin: Sequence[str]) -> str:
    """What has to be true of every decision; returns its action."""
    before = copy.deepcopy(instances)
    decision = decide(instances, "redis-1", rejoin)
    assert decide(instances, "redis-1", rejoin) == decision
    assert instances == before
    assert 1 <= decision["row"] <= 8
    assert len(decision["report"]) == len(instances)
    if decision["action"] == "stop":
        assert decision["plan"] == {}
        return "stop"
    plan = decision["plan"]
    chosen = next(one for one in instances if one["host"] == decision["master"])
    masters = [one for one in instances if one["state"] == "up" and one["role"] == "master"]
    assert list(plan) == [one["host"] for one in instances if one["state"] != "unreachable"]
    assert [host for host, entry in plan.items() if entry["role"] == "master"] == [chosen["host"]]
    left_out = [one["host"] for one in instances if one["state"] == "unreachable"]
    assert decision["left_out"] == left_out
    # One that cannot be reached may have the newest data: then no master is started.
    assert not left_out or masters == [chosen]
    # No second master is started, and a replica that is up is never made one.
    assert masters in ([], [chosen])
    assert chosen["role"] != "replica"
    for one in instances:
        if one is chosen or one["host"] in left_out:
            continue
        entry = plan[one["host"]]
        assert entry["replicaof"] == [chosen["address"], chosen["port"]]
        if entry["does"] in ("repoint", "start", "join") and holds_keys(one):
            assert holds_keys(chosen)
            assert chosen["state"] == "down" or chosen["keys"] > 0
        # Nobody gives up data of its own without being told to.
        if one["state"] == "down" and one["file_replicaof"] is None:
            assert f"{one['host']}@{one['offset']}" in rejoin
    return "proceed"


def test_no_decision_about_two_hosts_costs_data() -> None:
    """All of them, without and with a consent."""
    actions = Counter(
        assert_costs_no_data(pair, rejoin) for pair in EVERY_PAIR for rejoin in ([], ["redis-2@90"])
    )
    # Were nearly everything stopped, this would show little.
    assert actions["proceed"] > 200, actions


@settings(max_examples=300)
@given(ANY_SET, CONSENTS)
def test_no_decision_costs_data(instances: tuple[Instance, ...], rejoin: list[str]) -> None:
    assert_costs_no_data(instances, rejoin)


def test_the_inventorys_master_counts_for_virgin_sets_only() -> None:
    for pair in EVERY_PAIR[::3]:
        first, second = (decide(pair, intended) for intended in ("redis-1", "redis-2"))
        assert (first == second) is (first["row"] != 7)


@settings(max_examples=100)
@given(ANY_SET, CONSENTS, st.permutations(range(len(HOSTS))))
def test_the_order_of_hosts_does_not_decide(
    instances: tuple[Instance, ...], rejoin: list[str], order: list[int]
) -> None:
    first = decide(instances, "redis-1", rejoin)
    second = decide([instances[index] for index in order], "redis-1", rejoin)
    for name in ("row", "action", "master", "start_first", "plan"):
        assert first[name] == second[name]
