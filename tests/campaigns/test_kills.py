"""kill -9 of the tool, at named points and at random times: never a bad backup to be seen, no lock
held, the next run good, nothing left behind.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.campaigns.conftest import Size, TellTable
from tests.campaigns.scene import Source, scene, upload

CREATE = (
    "files.locked leave",
    "create._clean leave",
    "create.stand leave",
    "create._new_id enter",
    "snapshot.take enter",
    "snapshot._start leave",
    "snapshot._wait_for_save leave",
    "posix.link enter",
    "posix.link leave",
    "rdb.inspect enter",
    "rdb.inspect leave",
    "codec.compress enter",
    "codec.HashingReader.readinto leave",
    "codec.compress leave",
    "create.describe leave",
    "posix.fsync leave 2",
    "files.write_durably enter",
    "posix.replace enter",
    "files.write_durably leave",
    "transport.upload enter",
    "subprocess.Popen.communicate enter",
    "transport._run leave",
    "subprocess.Popen.communicate enter 2",
    "transport._run leave 2",
    "create._confirm enter",
    "subprocess.Popen.communicate enter 3",
    "transport.fetch_receipt leave",
    "receipts.judge leave",
    "files.remove_tree enter",
    "posix.rmdir leave",
)
ACCEPT = (
    "files.locked leave",
    "config.load_upload_sources leave",
    "accept.Acceptor._pass enter",
    "accept.Acceptor._look enter",
    "accept.Acceptor._take enter",
    "accept.Acceptor._take_backup enter",
    "accept.Acceptor._copy enter",
    "accept._copy_file enter",
    "accept._copy_file leave",
    "posix.replace enter",
    "accept.Acceptor._copy leave",
    "verify.verify_set enter",
    "codec.HashingReader.readinto leave 3",
    "verify.verify_set leave",
    "posix.rename enter",
    "posix.rename leave",
    "accept.Acceptor._record enter",
    "catalogue.append enter",
    "posix.write enter",
    "posix.write leave",
    "catalogue.append leave",
    "accept.Acceptor._give_receipt enter",
    "posix.replace leave 2",
    "accept.Acceptor._record leave",
    "files.remove_entry enter",
    "posix.rmdir enter",
    "posix.rmdir leave",
    "accept.Acceptor._heal enter",
    "accept.Acceptor._drop_receipts enter",
    "accept.Acceptor._drop_receipts leave",
)
PRUNE = (
    "files.locked leave",
    "retention.plan leave",
    "prune._delete enter",
    "catalogue.append enter",
    "posix.write leave",
    "catalogue.append leave",
    "prune._remove enter",
    "posix.unlink leave",
    "posix.unlink leave 2",
    "posix.rmdir enter",
    "posix.rmdir leave",
    "prune._delete leave",
)


def chosen(draw: random.Random, points: tuple[str, ...], number: int) -> list[str]:
    """So many of the points: each of them before any of them again."""
    found: list[str] = []
    while len(found) < number:
        found += draw.sample(points, min(len(points), number - len(found)))
    return found


def test_create_killed(tmp_path: Path, draw: random.Random, size: Size, table: TellTable) -> None:
    points = chosen(draw, CREATE, size(4, 2 * len(CREATE)))
    tries = size(2, 60)
    with scene(tmp_path) as place:
        source = Source(place)
        usual = source.next_is_good()
        for number, point in enumerate(points, 1):
            place.killed(point, *source.create)
            source.survived()
            if number % size(4, 1) == 0:
                source.next_is_good()
        in_time = 0
        for _ in range(tries):
            in_time += place.killed_after(
                draw.uniform(0, usual), draw.random() < 0.5, *source.create
            )
            source.survived()
            source.next_is_good()
        place.a_day_later()
    table(
        ("create killed", "kills", "bad sets seen", "locks held", "next run bad", "left behind"),
        [
            (f"at {len(set(points))} named points", len(points), 0, 0, 0, 0),
            ("at random times", f"{in_time} of {tries}", 0, 0, 0, 0),
        ],
    )


def test_accept_killed(
    tmp_path: Path, draw: random.Random, size: Size, table: TellTable, dump: bytes
) -> None:
    points = chosen(draw, ACCEPT, size(6, 2 * len(ACCEPT)))
    tries = size(3, 40)
    with scene(tmp_path, rsync=False) as place:
        command = ("--config", place.server.config, "--json", "accept")

        def survived() -> None:
            place.no_bad_set()
            place.lock_is_free(place.server.store / ".lock")

        def next_is_good(sent: str) -> float:
            started = time.monotonic()
            done = place.run(*command)
            seconds = time.monotonic() - started
            assert done.code == 0, done.text
            assert done.json["rejected"] == []
            assert sent in place.present()
            place.in_order()
            return seconds

        usual = next_is_good(upload(place, dump, 0))
        for number, point in enumerate(points, 1):
            sent = upload(place, dump, number)
            place.killed(point, *command)
            survived()
            next_is_good(sent)
        in_time = 0
        for number in range(tries):
            sent = upload(place, dump, len(points) + number + 1)
            in_time += place.killed_after(draw.uniform(0, usual), draw.random() < 0.5, *command)
            survived()
            next_is_good(sent)
        place.a_day_later()
    table(
        ("accept killed", "kills", "bad sets seen", "locks held", "next run bad", "left behind"),
        [
            (f"at {len(set(points))} named points", len(points), 0, 0, 0, 0),
            ("at random times", f"{in_time} of {tries}", 0, 0, 0, 0),
        ],
    )


def test_prune_killed(
    tmp_path: Path, draw: random.Random, size: Size, table: TellTable, dump: bytes
) -> None:
    points = chosen(draw, PRUNE, size(3, 2 * len(PRUNE)))
    tries = size(1, 20)
    with scene(tmp_path, rsync=False) as place:
        command = ("--config", place.server.config, "--json", "prune")
        sent = 0

        def refill() -> None:
            nonlocal sent
            while sent < 4 or len(place.present()) < 5:
                upload(place, dump, sent)
                sent += 1
                assert place.server.accept().code == 0

        def next_is_good() -> float:
            # The line that a kill cut short is told once, and cut off.
            assert place.server.accept().code == 0
            started = time.monotonic()
            done = place.run(*command)
            seconds = time.monotonic() - started
            assert done.code == 0, done.text
            assert len(place.present()) == 3
            newest = sorted(place.present())
            assert newest[-1] in place.read
            place.in_order()
            return seconds

        def tried(kill: Callable[[], bool | None]) -> bool:
            refill()
            newest = sorted(place.present())[-3:]
            done = kill()
            place.no_bad_set()
            assert set(newest) <= set(place.present())
            place.lock_is_free(place.server.store / ".lock")
            next_is_good()
            return bool(done)

        refill()
        place.no_bad_set()
        usual = next_is_good()
        for point in points:
            tried(functools.partial(place.killed, point, *command))
        in_time = sum(
            tried(lambda: place.killed_after(draw.uniform(0, usual), False, *command))
            for _ in range(tries)
        )
        place.a_day_later()
    table(
        ("prune killed", "kills", "bad sets seen", "locks held", "next run bad", "left behind"),
        [
            (f"at {len(set(points))} named points", len(points), 0, 0, 0, 0),
            ("at random times", f"{in_time} of {tries}", 0, 0, 0, 0),
        ],
    )
