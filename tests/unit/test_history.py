"""Which server may follow which master: row by row, and by real servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_guard import Live, look
from ansible_collections.proven.redis.plugins.module_utils.redis_history import (
    NO_ID,
    Position,
    contains,
    may_share,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import Connection

from tests.support.servers import Server, any_server, running
from tests.tool.backup_lab import free_port

A, B, C = (letter * 40 for letter in "abc")
MASTER = Position(B, 500, A, 301)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Position(B, 500), True),
        (Position(B, 0), True),
        (Position(B, 501), False),  # beyond: the master was read after it
        (Position(A, 300), True),  # all that the promoted one had
        (Position(A, 301), False),  # got what the promoted one never did
        (Position(C, 1), False),
        (Position(C, 1, B, 400), False),  # its own second history counts for nothing
        (Position(NO_ID, 0), False),
        (Position("", 0), False),
    ],
)
def test_a_history_contains_what_it_is_the_continuation_of(
    server: Position, expected: bool
) -> None:
    assert contains(MASTER, server) is expected
    # Read in the other order, the same id is no reason to refuse.
    assert may_share(MASTER, server) is (expected or server.replid == MASTER.replid)


def test_a_master_without_a_second_history_has_none() -> None:
    assert not contains(Position(A, 500), Position(NO_ID, 0))
    assert not may_share(Position("", 5), Position("", 5))


class Trio:
    """Three servers that can be started again on their files and moved by hand."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place = place
        self.stack = stack
        self.ports = [free_port() for _ in range(3)]
        self.servers: list[Server] = []
        self.stacks: list[ExitStack] = []
        for number in range(3):
            self.stacks.append(stack.enter_context(ExitStack()))
            self.servers.append(self.start(number))

    def start(self, number: int, **more: Any) -> Server:
        folder = self.place / str(number)
        folder.mkdir(exist_ok=True)
        return self.stacks[number].enter_context(
            running(
                any_server(),
                settings={
                    "port": self.ports[number],
                    "dir": str(folder),
                    "appendonly": "yes",
                    "repl-diskless-sync-delay": 0,
                    "repl-ping-replica-period": 1,
                    **more,
                },
            )
        )

    def restart(self, number: int) -> None:
        self.stop(number)
        self.servers[number] = self.start(number)

    def stop(self, number: int) -> None:
        self.stacks[number].close()

    def follow(self, number: int, master: int | None) -> None:
        words = ("NO", "ONE") if master is None else ("127.0.0.1", str(self.ports[master]))
        self.servers[number]("REPLICAOF", *words)

    def live(self, number: int) -> Live:
        with Connection("127.0.0.1", self.ports[number]) as connection:
            return look(connection)

    def may_follow(self, number: int, master: int) -> bool:
        own = self.live(number)
        return contains(self.live(master).position, own.position)

    def in_sync(self, *replicas: int) -> None:
        deadline = time.monotonic() + 30
        for number in replicas:
            while b"master_link_status:up" not in self.servers[number]("INFO", "replication"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            self.servers[number]("INFO")

    def quiet(self, master: int, *replicas: int) -> None:
        """Wait until the replicas have all that the master has."""
        deadline = time.monotonic() + 30
        while True:
            behind = [self.live(number).position.offset for number in replicas]
            if all(offset >= self.live(master).position.offset for offset in behind):
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    with ExitStack() as stack:
        three = Trio(tmp_path, stack)
        three.servers[0]("SET", "one", 1)
        three.follow(1, 0)
        three.follow(2, 0)
        three.in_sync(1, 2)
        yield three


def test_a_healthy_set_is_never_refused_while_a_client_writes(trio: Trio) -> None:
    done = threading.Event()

    def write() -> None:
        with Connection("127.0.0.1", trio.ports[0]) as connection:
            number = 0
            while not done.is_set():
                number += 1
                connection.command("SET", f"key:{number}", "x" * 100)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert [trio.may_follow(number, 0) for number in (1, 2) * 50] == [True] * 100
    finally:
        done.set()
        writer.join()


def test_after_a_promotion_the_others_may_follow_and_what_the_old_one_got_later_may_not(
    trio: Trio,
) -> None:
    trio.quiet(0, 1, 2)
    trio.follow(1, None)
    assert trio.may_follow(2, 1)
    assert trio.may_follow(0, 1)
    trio.servers[0]("SET", "late", 1)
    trio.quiet(0, 2)
    assert not trio.may_follow(0, 1)
    assert not trio.may_follow(2, 1)


def test_two_switchovers_in_a_row(trio: Trio) -> None:
    for new, old in ((1, 0), (2, 1)):
        trio.quiet(old, *{0, 1, 2} - {old})
        trio.follow(new, None)
        for number in {0, 1, 2} - {new}:
            assert trio.may_follow(number, new)
            trio.follow(number, new)
        trio.in_sync(*{0, 1, 2} - {new})
        trio.servers[new]("SET", f"by {new}", 1)
    trio.quiet(2, 0, 1)
    # A replica that the second one forgot follows the first still.
    assert trio.may_follow(0, 2)


def test_a_master_that_was_started_again_from_its_append_only_file(trio: Trio) -> None:
    """It has another id, and its replicas follow it already: of them nothing is asked."""
    trio.stop(2)
    before = trio.live(0).position
    trio.restart(0)
    trio.in_sync(1)
    assert trio.live(0).position.replid != before.replid
    assert trio.may_follow(1, 0)
    trio.servers[2] = trio.start(2, replicaof=f"127.0.0.1 {trio.ports[0]}")
    trio.in_sync(2)
    assert trio.may_follow(2, 0)


def test_a_replica_in_its_first_full_sync_has_nothing_to_lose(trio: Trio) -> None:
    script = "for i = 1, 2000 do redis.call('SET', 'key:' .. i, i) end"
    trio.servers[0]("EVAL", script, 0)
    trio.servers[0]("CONFIG", "SET", "rdb-key-save-delay", 1000)
    trio.servers[2]("REPLICAOF", "NO", "ONE")
    trio.servers[2]("FLUSHALL")
    trio.follow(2, 0)
    time.sleep(0.5)
    own = trio.live(2)
    assert own.role == "replica"
    assert own.keys == 0
    trio.servers[0]("CONFIG", "SET", "rdb-key-save-delay", 0)
