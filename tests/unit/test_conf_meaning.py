"""Values of redis.conf that mean the same."""

from __future__ import annotations

import pytest
from ansible_collections.proven.redis.plugins.module_utils.conf_directives import (
    fold,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import normalise


@pytest.mark.parametrize(
    ("name", "args", "same"),
    [
        ("save", ["900", "1", "300", "10"], "900 1 300 10"),
        ("save", ["300 10 900 1"], "900 1 300 10"),
        ("save", ["900", "1", "", "60", "5"], "60 5"),
        ("save", [""], ""),
        ("maxmemory", ["1GB"], "1073741824"),
        ("maxmemory", ["1g"], "1000000000"),
        ("maxmemory", ["10b"], "10"),
        ("maxmemory-clients", ["5%"], "5%"),
        ("hash-max-ziplist-value", ["1k"], "1000"),
        ("appendonly", ["YES"], "yes"),
        ("maxmemory-policy", ["AllKeys-LRU"], "allkeys-lru"),
        ("oom-score-adj", ["relative"], "yes"),
        ("unixsocketperm", ["0770"], "770"),
        ("bind", ["127.0.0.1", "-::1"], "127.0.0.1 -::1"),
        ("bind", ["127.0.0.1 -::1"], "127.0.0.1 -::1"),
        ("slaveof", ["NO", "ONE"], ""),
        ("replicaof", ["h 06379"], "h 6379"),
        ("notify-keyspace-events", ["KEA"], "g$lshzxetdKE"),
        ("notify-keyspace-events", ["AKE"], "g$lshzxetdKE"),
        ("dir", ["/mnt//redis/"], "/mnt/redis"),
        ("shutdown-on-sigterm", ["Save", "now"], "now save"),
        ("latency-tracking-info-percentiles", ["50.0", "99.9"], "50 99.9"),
        ("oom-score-adj-values", ["0 200 800"], "0 200 800"),
        (
            "client-output-buffer-limit",
            ["slave", "256mb", "64MB", "60"],
            "normal 0 0 0 replica 268435456 67108864 60 pubsub 33554432 8388608 60",
        ),
        (
            "client-output-buffer-limit",
            ["normal 0 0 0 slave 1 2 3 pubsub 33554432 8388608 60"],
            "normal 0 0 0 replica 1 2 3 pubsub 33554432 8388608 60",
        ),
        ("requirepass", ["Yes 1GB"], "Yes 1GB"),
        # What Redis would refuse stays as it is.
        ("maxmemory", ["1tb"], "1tb"),
        ("save", ["900", "1", "5"], "900 1 5"),
        ("unixsocketperm", ["999"], "999"),
        ("notify-keyspace-events", ["?"], "?"),
    ],
)
def test_normalise(name: str, args: list[str], same: str) -> None:
    assert normalise(name, args) == same


def test_fold() -> None:
    assert fold("SlaveOf") == fold("replicaof") == "replicaof"
    assert fold("Port") == "port"
