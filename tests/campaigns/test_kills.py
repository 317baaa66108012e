"""kill -9 of the tool, at named points and at random times: never a bad backup to be seen, no lock
held, the next run good, nothing left behind.
"""

from __future__ import annotations

import fcntl
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.campaigns.conftest import Size, TellTable
from tests.campaigns.scene import BAD, NEXT, PROMISES, Scene, Source, scene, upload
from tests.tool.backup_lab import SET
from tests.tool.store_lab import flip

CREATE = (
    "base.files.locked leave",
    "host.create._clean leave",
    "host.standing.stand leave",
    "host.create._new_id enter",
    "host.snapshot.take enter",
    "host.snapshot._start leave",
    "host.snapshot._wait_for_save leave",
    "posix.link enter",
    "posix.link leave",
    "base.priority.stand_back leave",
    "transport.zstd.compress enter",
    "rdb.walker.inspect_stream enter",
    "transport.zstd._CompressingReader.read leave",
    "rdb.walker.inspect_stream leave",
    "transport.zstd.compress leave",
    "host.create.describe leave",
    "posix.fsync leave 2",
    "base.files.write_durably enter",
    "posix.replace enter",
    "base.files.write_durably leave",
    "transport.rsync.upload enter",
    "subprocess.Popen.communicate enter",
    "transport.rsync._run leave",
    "subprocess.Popen.communicate enter 2",
    "transport.rsync._run leave 2",
    "host.create._confirm enter",
    "subprocess.Popen.communicate enter 3",
    "transport.rsync.fetch_receipt leave",
    "formats.receipts.judge leave",
    "base.files.remove_tree enter",
    "posix.rmdir leave",
)
ACCEPT = (
    "base.files.locked leave",
    "config.reader.load_uploaders leave",
    "repository.accept.Acceptor._sweep enter",
    "repository.accept.Acceptor._look enter",
    "repository.accept.Acceptor._examine enter",
    "repository.accept.Acceptor._examine leave",
    # These five are of the process that examines; the run that began it is killed.
    "repository.intake._copy enter",
    "repository.inbox.copy_file leave",
    "repository.intake._copy leave",
    "transport.zstd.HashingReader.readinto leave 3",
    "repository.reread.verify_set leave",
    "repository.accept.Acceptor._conclude enter",
    "repository.accept.Acceptor._accept enter",
    "repository.ledger.Ledger.accept enter",
    "posix.rename enter",
    "posix.rename leave",
    "repository.ledger.Ledger._append enter",
    "repository.catalogue.append enter",
    "posix.write enter",
    "posix.write leave",
    "repository.catalogue.append leave",
    "repository.ledger.Ledger.publish enter",
    "repository.ledger.Ledger.publish leave",
    "repository.ledger.Ledger.accept leave",
    "repository.patience.Patience.accepted enter",
    "repository.patience.Patience.accepted leave",
    "base.files.remove_entry enter",
    "posix.rmdir enter",
    "posix.rmdir leave",
    "repository.accept.Acceptor._remove leave",
    "repository.accept.Acceptor._finish enter",
    "repository.accept.Acceptor._drop_receipts leave",
)
RECORD = (
    "repository.ledger.Ledger.record_all enter",
    "posix.replace enter",
    "base.files.write_durably leave",
    "repository.catalogue.append enter",
    "posix.write enter",
    "posix.write leave",
    "repository.catalogue.append leave",
    "repository.ledger.Ledger.record_all leave",
)
PRUNE = (
    "base.files.locked leave",
    "repository.retention.plan leave",
    *RECORD,
    "base.files.write_durably leave 2",
    "repository.prune._put_out enter",
    "posix.rename enter",
    "posix.rename leave",
    "posix.rename leave 2",
    "repository.prune._put_out leave",
    "repository.prune._empty enter 2",
    "posix.unlink leave",
    "posix.unlink leave 2",
    "posix.rmdir enter",
    "posix.rmdir leave",
)
SCRUB = (
    "repository.store.forget_pages enter",
    "repository.marks.record_verdict enter",
    *RECORD,
    "repository.marks.record_verdict leave",
    "commands.verify.write_scrubbed enter",
    "posix.replace enter 2",
    "commands.verify.write_scrubbed leave",
)
REINDEX = (
    "repository.ledger.reindex enter",
    "repository.catalogue.rewrite enter",
    "base.files.write_durably enter",
    "posix.replace enter",
    "posix.replace leave",
    "repository.catalogue.rewrite leave",
)


def chosen(draw: random.Random, points: tuple[str, ...], number: int) -> list[str]:
    """So many of the points: each of them before any of them again."""
    found: list[str] = []
    while len(found) < number:
        found += draw.sample(points, min(len(points), number - len(found)))
    return found


def campaign(
    place: Scene,
    table: TellTable,
    draw: random.Random,
    name: str,
    command: Sequence[str | Path],
    points: list[str],
    tries: int,
    usual: float,
    *,
    prepare: Callable[[], object] = lambda: None,
    survived: Callable[[], object],
    next_is_good: Callable[[], object],
    next_of: int = 1,
    children_too: bool = True,
) -> None:
    """Kill a command at each of the points, then at random times within `usual` seconds. After each
    kill it `survived`, and after each, or each so many named points, the next run is good.
    """
    with place.shown(table, f"{name} killed", "tries", "kills", *PROMISES):
        place.row(f"at {len(set(points))} named points")
        for number, point in enumerate(points, 1):
            prepare()
            place.killed(point, *command)
            survived()
            if number % next_of == 0:
                next_is_good()
        place.row("at random times")
        for _ in range(tries):
            prepare()
            seconds = draw.uniform(0, usual)
            place.killed_after(seconds, children_too and draw.random() < 0.5, *command)
            survived()
            next_is_good()
        place.a_day_later()


def test_a_promise_that_is_broken_is_counted_and_shown(tmp_path: Path) -> None:
    shown: list[Sequence[object]] = []
    lock = tmp_path / "lock"
    with lock.open("w") as file, scene(tmp_path, rsync=False) as place:
        fcntl.flock(file, fcntl.LOCK_EX)
        with place.shown(lambda header, rows: shown.extend([header, *rows]), "killed", *PROMISES):
            place.row("here")
            place.no_bad_set()
            with pytest.raises(BlockingIOError):
                place.lock_is_free(lock)
    assert shown == [("killed", *PROMISES), ("here", 0, 1, 0, 0)]


def test_create_killed(tmp_path: Path, draw: random.Random, size: Size, table: TellTable) -> None:
    points = chosen(draw, CREATE, size(4, 2 * len(CREATE)))
    with scene(tmp_path) as place:
        source = Source(place)
        campaign(
            place,
            table,
            draw,
            "create",
            source.create,
            points,
            size(2, 60),
            source.next_is_good(),
            survived=source.survived,
            next_is_good=source.next_is_good,
            next_of=size(4, 1),
        )


def test_accept_killed(
    tmp_path: Path, draw: random.Random, size: Size, table: TellTable, dump: bytes
) -> None:
    points = chosen(draw, ACCEPT, size(6, 2 * len(ACCEPT)))
    with scene(tmp_path, rsync=False) as place:
        command = ("--config", place.server.config, "--json", "accept")
        sent: list[str] = []

        def send() -> None:
            sent.append(upload(place, dump, len(sent)))

        def survived() -> None:
            place.no_bad_set()
            place.lock_is_free(place.server.store / ".lock")

        def next_is_good() -> float:
            started = time.monotonic()
            with place.promise(NEXT):
                done = place.run(*command)
                assert done.code == 0, done.text
            seconds = time.monotonic() - started
            with place.promise(NEXT):
                assert done.json["rejected"] == []
                assert sent[-1] in place.present()
            place.in_order()
            return seconds

        send()
        campaign(
            place,
            table,
            draw,
            "accept",
            command,
            points,
            size(3, 40),
            next_is_good(),
            prepare=send,
            survived=survived,
            next_is_good=next_is_good,
        )


def test_prune_killed(
    tmp_path: Path, draw: random.Random, size: Size, table: TellTable, dump: bytes
) -> None:
    points = chosen(draw, PRUNE, size(3, 2 * len(PRUNE)))
    with scene(tmp_path, rsync=False) as place:
        command = ("--config", place.server.config, "--json", "prune")
        sent = 0
        newest: list[str] = []

        def refill() -> None:
            nonlocal sent, newest
            while sent < 4 or len(place.present()) < 5:
                upload(place, dump, sent)
                sent += 1
                assert place.server.accept().code == 0
            newest = sorted(place.present())[-3:]

        def survived() -> None:
            place.no_bad_set()
            with place.promise(BAD):
                assert set(newest) <= set(place.present())
            place.lock_is_free(place.server.store / ".lock")

        def next_is_good() -> float:
            with place.promise(NEXT):
                assert place.server.accept().code == 0
                started = time.monotonic()
                done = place.run(*command)
                seconds = time.monotonic() - started
                assert done.code == 0, done.text
                assert len(place.present()) == 3
                assert max(place.present()) in place.read
            place.in_order()
            return seconds

        refill()
        place.no_bad_set()
        campaign(
            place,
            table,
            draw,
            "prune",
            command,
            points,
            size(1, 20),
            next_is_good(),
            prepare=refill,
            survived=survived,
            next_is_good=next_is_good,
            children_too=False,
        )


def test_marks_and_verdicts_killed(
    tmp_path: Path, draw: random.Random, size: Size, table: TellTable, dump: bytes
) -> None:
    """`keep`, `scrub` over rot, and `reindex`: what was written is whole, and the
    catalogue is what the documents say, byte for byte.
    """
    with scene(tmp_path, rsync=False) as place:
        for number in range(3):
            upload(place, dump, number)
            assert place.server.accept().code == 0
        target, other = sorted(place.present())[:2]
        config = ("--config", place.server.config, "--json")
        path = place.set_dir / "catalogue.jsonl"
        whole = b""

        def rotten() -> None:
            flip(place.set_dir / target / "dump.rdb.zst")

        def lost() -> None:
            nonlocal whole
            whole = path.read_bytes()
            path.write_bytes(whole.partition(b"\n")[2])

        def readable() -> None:
            """Whatever was lost or rotten for a while is there again."""
            if b'"n":1,' not in path.read_bytes().partition(b"\n")[0]:
                assert place.run(*config, "accept").code == 1
                assert place.run(*config, "prune").code == 1

        def next_is_good(*command: str) -> float:
            if command[0] != "reindex":
                # The timer, which finishes what was cut off.
                assert place.run(*config, "accept").code == 0
            started = time.monotonic()
            with place.promise(NEXT):
                done = place.run(*config, *command)
                assert done.code == 0, done.text
            seconds = time.monotonic() - started
            with place.promise(NEXT):
                assert not whole or command[0] != "reindex" or path.read_bytes() == whole
                before = path.read_bytes()
                assert place.run(*config, "reindex", SET).code == 0
                assert path.read_text().splitlines() == before.decode().splitlines()
            place.in_order()
            return seconds

        campaigns: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[], object]]] = {
            "keep": (("keep", other, "--days", "3"), RECORD, lambda: None),
            "scrub": (("scrub",), SCRUB, rotten),
            "reindex": (("reindex", SET), REINDEX, lost),
        }
        for name, (command, points, prepare) in campaigns.items():
            place.rows.clear()

            def after(name: str = name) -> None:
                if name == "scrub":
                    rotten()  # a second time: the bit is as it was
                if name == "reindex":
                    readable()
                else:
                    place.no_bad_set()
                place.lock_is_free(place.server.store / ".lock")

            campaign(
                place,
                table,
                draw,
                name,
                (*config, *command),
                chosen(draw, points, size(2, 2 * len(points))),
                size(1, 15),
                next_is_good(*command),
                prepare=prepare,
                survived=after,
                next_is_good=lambda command=command: next_is_good(*command),  # type: ignore[misc]
                children_too=False,
            )
