"""What a module refuses when the set is not what was decided on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_guard import (
    Guard,
    GuardError,
    Live,
    look,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_history import Position
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import Connection

from tests.support.servers import any_server, running
from tests.tool.backup_lab import free_port

A, B = "a" * 40, "b" * 40
AT = Position(A, 100)
MASTER = Live("master", None, 5, AT)
OLD = ("192.0.2.11", 6379)
NEW = ("192.0.2.12", 6379)


def replica_of(endpoint: tuple[str, int], keys: int = 5) -> Live:
    return Live("replica", endpoint, keys, AT)


def guard(**more: Any) -> Guard:
    """A replica of redis-1 that is to follow redis-2."""
    decided = {
        "host": "redis-3",
        "role": "replica",
        "does": "repoint",
        "seen_role": "replica",
        "seen_master": ["192.0.2.11", "6379"],
        "may_lose": False,
        "master": "redis-2",
        "master_addresses": ["192.0.2.12", "redis-2.example"],
        "master_port": 6379,
        "master_replid": None,
        **more,
    }
    instance = {
        "addresses": ["192.0.2.13"],
        "port": 6379,
        "username": "default",
        "password": None,
        "previous_password": None,
    }
    return Guard(instance, decided)


MASTER_STAYS = {
    "host": "redis-2",
    "role": "master",
    "does": "keep",
    "seen_role": "master",
    "seen_master": None,
    "master_replid": A,
}


@pytest.mark.parametrize(
    ("found", "decided"),
    [
        (replica_of(OLD), {}),
        (replica_of(NEW), {}),  # done by this run already
        (replica_of(("REDIS-2.example.", 6379)), {}),
        (None, {}),
        (MASTER, MASTER_STAYS),
        (Live("master", None, 0, AT), {"does": "join", "seen_role": None, "seen_master": None}),
    ],
)
def test_what_was_seen_or_is_wanted_is_let_pass(
    found: Live | None, decided: dict[str, Any]
) -> None:
    guard(**decided).check_own(found)


@pytest.mark.parametrize(
    ("found", "decided", "words"),
    [
        (MASTER, {}, "was a replica of 192.0.2.11:6379 when this run decided, and is a master now"),
        (replica_of(("192.0.2.14", 6379)), {}, "and is a replica of 192.0.2.14:6379 now"),
        (replica_of(("192.0.2.11", 6380)), {}, "and is a replica of 192.0.2.11:6380 now"),
        (replica_of(OLD), MASTER_STAYS, "was a master when this run decided, and is a replica"),
        (MASTER._replace(position=Position(B, 1)), MASTER_STAYS, "of another history"),
        (MASTER, {"seen_role": None, "seen_master": None}, "was not running when this run decided"),
        (MASTER, {"does": "join", "seen_role": None}, "had no data when this run decided"),
        (replica_of(OLD, 0), {"does": "join", "seen_role": None}, "had no data when this run"),
    ],
)
def test_anything_else_is_refused(found: Live, decided: dict[str, Any], words: str) -> None:
    with pytest.raises(GuardError, match=words):
        guard(**decided).check_own(found)


@pytest.mark.parametrize(
    ("replicaof", "decided", "words"),
    [
        ("192.0.2.12 6379", {}, ""),
        ("redis-2.example 6379", {}, ""),
        ("192.0.2.11 6379", {}, "says replica of 192.0.2.11:6379"),
        ("", {}, "says master"),
        ("", MASTER_STAYS, ""),
        ("192.0.2.11 6379", MASTER_STAYS, "was decided to be the master"),
    ],
)
def test_a_file_that_gives_another_role_is_not_started(
    replicaof: str, decided: dict[str, Any], words: str
) -> None:
    if not words:
        guard(**decided).check_file(replicaof)
        return
    with pytest.raises(GuardError, match=words):
        guard(**decided).check_file(replicaof)


def test_data_that_came_meanwhile_stops_a_new_instance() -> None:
    guard(does="join").check_empty(has_keys=False)
    guard(does="start").check_empty(has_keys=True)
    with pytest.raises(GuardError, match="there are keys in its data directory now"):
        guard(does="join").check_empty(has_keys=True)


@pytest.fixture
def port() -> Iterator[int]:
    """Of a master that has a replica, so that it has a history."""
    one, two = free_port(), free_port()
    with (
        running(any_server(), settings={"port": one, "repl-diskless-sync-delay": 0}) as master,
        running(any_server(), settings={"port": two, "replicaof": f"127.0.0.1 {one}"}) as replica,
    ):
        master("SET", "key", 1)
        while b"master_link_status:up" not in replica("INFO", "replication"):
            pass
        yield one


def asks(port: int, **more: Any) -> Guard:
    return guard(master_addresses=["127.0.0.1"], master_port=port, **more)


def test_the_master_is_asked(port: int) -> None:
    with Connection("127.0.0.1", port) as connection:
        master = look(connection)
    known = master.position.replid
    asks(port, master_replid=known).check_master()
    asks(port).check_master()
    within = Live("replica", OLD, 5, master.position._replace(offset=0))
    asks(port, master_replid=known).check_master(within)
    beyond = within._replace(position=Position(known, 1 << 40))
    with pytest.raises(GuardError, match="would lose what redis-2 never got"):
        asks(port, master_replid=known).check_master(beyond)
    asks(port, master_replid=known).check_master(beyond._replace(keys=0))
    asks(port, master_replid=known, may_lose=True).check_master(beyond)
    with pytest.raises(GuardError, match="of another history than the one that was decided on"):
        asks(port, master_replid=B).check_master()
    with Connection("127.0.0.1", port) as connection:
        connection.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(GuardError, match="redis-2 was the master when this run decided, and is a"):
        asks(port, master_replid=known).check_master()


def test_a_master_that_does_not_answer_stops_unless_this_run_is_to_start_it() -> None:
    closed = free_port()
    asks(closed).check_master()
    with pytest.raises(GuardError, match="redis-2, the master, does not answer redis-3"):
        asks(closed, master_replid=A).check_master()
