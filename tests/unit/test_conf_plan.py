"""What differs between two configurations, and how it is changed."""

from __future__ import annotations

import pytest
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import settings as meaning
from ansible_collections.proven.redis.plugins.module_utils.conf_plan import (
    LIVE,
    MASK,
    PROTECTED,
    RESTART,
    Change,
    Planned,
    compare,
    hold_back,
    kind_of,
    mask,
    plan,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_render import render

HASH = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"  # of "password"


@pytest.mark.parametrize(
    ("desired", "current"),
    [
        ("save 900 1\nsave 300 10", "save 300 10 900 1"),
        ("slaveof h 1", "replicaof h 1"),
        ("port 1\nport 2", "\n\n# comment\nPORT 2\n\n"),
        ('requirepass "a"', "requirepass a"),
        ("slave-priority 7", "replica-priority 7"),
        ("hash-max-ziplist-entries 5", "hash-max-listpack-entries 5"),
        ("maxmemory 1gb", "maxmemory 1024mb"),
        ('masterauth ""', ""),
        ("bind * -::*", ""),
        ("", "replicaof no one"),
        ("requirepass password", f"requirepass password\nuser default on #{HASH} ~* &* +@all"),
        ("", "user default on sanitize-payload nopass ~* &* +@all"),
        ("", "user default on nopass ~* +@all"),
        ("", "latency-tracking-info-percentiles 50 99 99.9"),
        (
            "user bob on >password ~k:* ~a:* -@all +get +set",
            f"user bob on sanitize-payload #{HASH} ~a:* ~k:* resetchannels -@all +get +set",
        ),
        ("rename-command FLUSHALL x", "RENAME-COMMAND flushall x"),
        ("list-max-ziplist-value 64", "# ??? list-max-ziplist-value 64"),
    ],
)
def test_compare_sees_no_difference_in(desired: str, current: str) -> None:
    assert compare(desired, current) == []


@pytest.mark.parametrize(
    ("desired", "current", "changes"),
    [
        ("save 900 1", "save 300 1", [("save", "300 1", "900 1")]),
        ('save ""', "save 900 1", [("save", "900 1", "")]),
        ('save ""', "", [("save", None, "")]),
        ("", "port 1", [("port", "1", None)]),
        ("replicaof h 1", "", [("replicaof", None, "h 1")]),
        ("masterauth x", "", [("masterauth", None, "x")]),
        ("requirepass A", "requirepass a", [("requirepass", "a", "A")]),
        (
            "requirepass other",
            f"requirepass other\nuser default on #{HASH} ~* &* +@all",
            [("user default", f"on #{HASH} ~* &* +@all", None)],
        ),
        (
            "requirepass password",
            f"requirepass password\nuser default on #{HASH} ~* &* +@all -flushall",
            [("user default", f"on #{HASH} ~* &* +@all -flushall", None)],
        ),
        (
            "user bob on nopass ~* +@all -get",
            "user bob on nopass ~* -get +@all",
            [
                (
                    "user bob",
                    "on nopass ~* resetchannels +@all",
                    "on nopass ~* resetchannels +@all -get",
                )
            ],
        ),
        ("rename-command DEBUG x", "", [("rename-command debug", None, "x")]),
        ("loadmodule /a.so", "loadmodule /a.so 1", [("loadmodule /a.so", "1", "")]),
    ],
)
def test_compare_sees(
    desired: str, current: str, changes: list[tuple[str, str | None, str | None]]
) -> None:
    assert compare(desired, current) == [Change(*change) for change in changes]


def test_compare_takes_what_the_server_has_anyway() -> None:
    current = "timeout 0\nhz 500\nport 1"
    effective = {"timeout": "0", "hz": "500", "port": "1"}
    assert compare("hz 1000", current, effective) == [Change("port", "1", None)]
    assert compare("hz 1000", current, effective, overridden=()) == []


def test_secrets_are_masked() -> None:
    secret, other = Change("requirepass", None, "s"), Change("port", "1", "2")
    assert mask(secret) == Change("requirepass", None, MASK)
    assert mask(other) == other
    assert mask(Planned(LIVE, "masterauth", "a", "b")) == Planned(LIVE, "masterauth", MASK, MASK)
    assert mask(Change("user alice", "on >a", None)) == Change("user alice", MASK, None)


def test_a_password_that_a_rewrite_did_not_quote_is_a_change() -> None:
    desired = render({"requirepass": "two 'wo", "masterauth": 'a"b', "masteruser": "two words"})
    assert compare(desired, desired) == []
    current = 'requirepass two \'wo\nprimaryauth "a"b"\nmasteruser two words\n'
    changes = compare(desired, current)
    assert [change.name for change in changes] == ["requirepass", "masterauth", "masteruser"]
    assert "'wo" not in str([mask(change) for change in changes])


def test_plan() -> None:
    desired = {
        "maxmemory": "100",
        "databases": "32",
        "dir": "/b",
        "appendfilename": "b",
        "save": "300 10 900 1",
        "slaveof": "h 1",
        "replicaof": "h 1",
        "port": "2",
        "slave-priority": "5",
        "replica-priority": "5",
        "new-in-this-version": "1",
    }
    live = {
        "maxmemory": "99",
        "databases": "16",
        "dir": "/a",
        "appendfilename": "a",
        "save": "900 1 300 10",
        "slaveof": "",
        "replicaof": "",
        "port": "1",
        "replica-priority": "100",
        "slave-priority": "100",
        "gone-in-this-version": "1",
    }
    assert plan(desired, live, overridden={"port"}) == [
        Planned(PROTECTED, "appendfilename", "a", "b"),
        Planned(RESTART, "databases", "16", "32"),
        Planned(PROTECTED, "dir", "/a", "/b"),
        Planned(LIVE, "maxmemory", "99", "100"),
        Planned(RESTART, "new-in-this-version", None, "1"),
        Planned(LIVE, "replica-priority", "100", "5"),
    ]


def test_plan_uses_the_name_that_the_server_knows() -> None:
    assert plan({"hash-max-listpack-value": "1"}, {"hash-max-ziplist-value": "2"}) == [
        Planned(LIVE, "hash-max-ziplist-value", "2", "1")
    ]


def test_kind_of_depends_on_the_version() -> None:
    assert kind_of("port") == LIVE
    assert kind_of("port", "6.0.16") == RESTART
    assert kind_of("user alice") == kind_of("rename-command x") == RESTART
    assert kind_of("slaveof") == RESTART


def test_what_is_held_back_stays_as_it_is_and_all_else_is_as_wanted() -> None:
    current = "port 6379\ndatabases 16\nslaveof 10.0.0.2 6379\n# a comment\nio-threads 4\n"
    wanted = "port 6379\n# new\ndatabases 99\nmaxmemory 1gb\nunixsocket /run/s\n"
    held = hold_back(wanted, current, ["databases", "io-threads", "unixsocket"])
    assert meaning(held) == {
        "port": "6379",
        "databases": "16",
        "maxmemory": str(1 << 30),
        "io-threads": "4",
    }


def test_a_directive_is_held_back_under_its_old_name_too() -> None:
    held = hold_back("replicaof 10.0.0.3 6379\nhz 10\n", "slaveof 10.0.0.2 6379\n", ["replicaof"])
    assert meaning(held) == {"hz": "10", "replicaof": "10.0.0.2 6379"}


def test_nothing_held_back_is_the_wanted_file() -> None:
    assert meaning(hold_back("hz 10\n", "hz 50\ndatabases 3\n", [])) == {"hz": "10"}
