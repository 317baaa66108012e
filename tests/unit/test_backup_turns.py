"""Which host makes the backup that somebody asks for, and what is shown when none could."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.proven.redis.plugins.filter.redis_backup_turns import redis_backup_turns


def answered(host: str, rank: int | None) -> dict[str, Any]:
    return {"rc": 0, "stdout": json.dumps({"host": host, "rank": rank}), "stderr_lines": []}


GONE = {"unreachable": True, "msg": "no route"}
TURNS = {
    "redis-1": answered("redis-1", 1),
    "redis-2": answered("redis-2", 0),
    "redis-3": answered("redis-3", None),
    "redis-4": {"rc": 1, "stdout": "", "stderr_lines": ["redis-backup: first", "last words"]},
    "redis-5": GONE,
}


def tried(host: str, **result: Any) -> dict[str, Any]:
    return {"ansible_loop_var": "it", "it": host, **result}


def test_hosts_are_tried_in_their_order_without_those_that_have_no_turn() -> None:
    assert redis_backup_turns(TURNS)["order"] == ["redis-2", "redis-1"]


def test_without_a_backup_each_host_has_a_reason() -> None:
    outcome = redis_backup_turns(
        TURNS,
        [
            tried("redis-2", rc=1, stdout="", stderr_lines=["no room"]),
            tried("redis-1", rc=3, stdout="", stderr_lines=[]),
        ],
    )
    assert outcome["backup"] is None
    assert outcome["answers"] == [
        "redis-1: exit status 3",
        "redis-2: no room",
        "redis-3: not in sync with its master",
        "redis-4: last words",
        "redis-5: no route",
    ]


def test_a_host_that_is_lost_on_the_way_is_no_backup() -> None:
    outcome = redis_backup_turns(TURNS, [tried("redis-2", **GONE)])
    assert (outcome["backup"], outcome["answers"][1]) == (None, "redis-2: no route")


def test_the_backup_is_that_of_the_host_that_could() -> None:
    document = {"set": "redis", "id": "an-id"}
    outcome = redis_backup_turns(
        TURNS,
        [
            tried("redis-2", rc=75, stdout="", stderr_lines=["locked"]),
            tried("redis-1", rc=0, stdout=json.dumps(document)),
        ],
    )
    assert outcome["backup"] == document
