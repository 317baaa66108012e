"""A place where things are killed: the lab of the tool's tests, and what must hold in it then."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis_backup.base.output import Output
from redis_backup.commands import verify
from redis_backup.config import model, reader
from redis_backup.formats import catalogue as catalogue_format
from redis_backup.formats import manifest
from redis_backup.repository import accept, catalogue, reread, store

from tests.campaigns.conftest import TellTable
from tests.support import processes
from tests.tool.backup_lab import (
    PACKAGE,
    SET,
    BackupServer,
    Lab,
    RedisProcess,
    Result,
    fill,
    lab,
    make_upload,
    wait_until,
)

ROOT = Path(__file__).parents[2]
DAY = 86400
_PATIENCE = 180.0  # seconds

# What must never be after a kill. Each is a column of the tables, and counts what was seen.
BAD, HELD, NEXT, LEFT = "bad sets seen", "locks held", "next run bad", "left behind"
PROMISES = (BAD, HELD, NEXT, LEFT)


def quiet() -> Output:
    """An output that nobody reads."""
    return Output(True, io.StringIO(), io.StringIO())


@dataclass
class Scene:
    """A lab, the backups that were read completely and found good so far, and the rows of the table
    that a campaign shows at its end: a name and the counts of its columns.
    """

    made: Lab
    read: set[str] = field(default_factory=set)
    rows: list[tuple[str, Counter[str]]] = field(default_factory=list)

    def row(self, name: str) -> Counter[str]:
        """Begin a row; what is counted from now on is in it."""
        self.rows.append((name, Counter()))
        return self.rows[-1][1]

    def count(self, column: str, number: int = 1) -> None:
        """Count something in the row of now, if there is one."""
        if self.rows:
            self.rows[-1][1][column] += number

    @contextlib.contextmanager
    def promise(self, column: str) -> Iterator[None]:
        """A check, which is counted in this column when it fails, and fails the test."""
        try:
            yield
        except Exception:
            self.count(column)
            raise

    @contextlib.contextmanager
    def shown(self, table: TellTable, name: str, *columns: str) -> Iterator[None]:
        """Show the rows at the end, also at the end of a test that fails."""
        try:
            yield
        finally:
            rows = [(row, *(counts[column] for column in columns)) for row, counts in self.rows]
            table((name, *columns), rows)

    @property
    def server(self) -> BackupServer:
        """The backup server."""
        return self.made.server

    @property
    def set_dir(self) -> Path:
        """The set in the store."""
        return self.server.store / SET

    @property
    def temporary(self) -> Path:
        """TMPDIR of every run."""
        return self.made.root / "tmp"

    def start(self, *arguments: str | Path, point: str | None = None) -> subprocess.Popen[str]:
        """Start the tool in a session of its own, to be killed at a point if one is given."""
        program = ["tests.campaigns.killer", point] if point else ["redis_backup"]
        return subprocess.Popen(
            [sys.executable, "-m", *program, *(str(argument) for argument in arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{PACKAGE}:{ROOT}", "TMPDIR": str(self.temporary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str | Path) -> Result:
        """Run the tool to its end."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=_PATIENCE)
        return Result(process.returncode, out, err)

    def killed(self, point: str, *arguments: str | Path) -> None:
        """Run the tool until it is killed at a point."""
        with self.start(*arguments, point=point) as process:
            # Its children may hold the pipes for a while: what they write is of no interest.
            code = process.wait(_PATIENCE)
            assert code == -signal.SIGKILL, f"{point!r} was not reached: {_rest(process)}"
        self.count("tries")
        self.count("kills")
        self.settle(process.pid)

    def killed_after(self, seconds: float, whole: bool, *arguments: str | Path) -> None:
        """Run the tool for so long, then kill it, or it and its children at once (`whole`), if it
        still runs.
        """
        with self.start(*arguments) as process:
            time.sleep(seconds)
            ran = process.poll() is None
            if whole:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        self.count("tries")
        self.count("kills", ran)
        self.settle(process.pid)

    def settle(self, session: int | None = None) -> None:
        """Wait until nothing of a run is left: its children, and each `accept` that it caused."""

        def still() -> bool:
            left = processes.of_session(session) if session is not None else []
            return not left and not self.server.started()

        with self.promise(LEFT):
            wait_until(still, f"the end of what session {session} began", _PATIENCE)

    def present(self) -> Mapping[str, catalogue_format.Entry]:
        """The backups that whoever looks at the catalogue now sees."""
        return catalogue.read(self.set_dir).present()

    def no_bad_set(self) -> None:
        """What can be seen of backups is true: those with a line and those without one yet, and
        what hosts are told.
        """
        with self.promise(BAD):
            self._no_bad_set()

    def _no_bad_set(self) -> None:
        known = catalogue.read(self.set_dir)
        present = known.present()
        there = store.backup_ids(self.set_dir) if self.set_dir.is_dir() else []
        assert set(present) <= set(there), "a line without a set"
        for backup_id in there:
            if backup_id in known.pruned() or backup_id in self.read:
                continue
            if backup_id in present:
                store.verify_backup(self.set_dir, backup_id, known)
                self.read.add(backup_id)
            else:
                found, _ = reread.read_manifest(self.set_dir / backup_id, SET, backup_id)
                reread.verify_set(self.set_dir / backup_id, found)
        for path in (self.server.receipts / SET).glob("*.json"):
            told = json.loads(path.read_bytes())
            if told["status"] == "accepted":
                line = known.accepted()[told["id"]]
                assert told["manifest_sha256"] == line.manifest_sha256
                assert told["event"]["at"] == line.at

    def lock_is_free(self, path: Path) -> None:
        """Nobody holds this lock."""
        if path.exists():
            with self.promise(HELD), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def in_order(self) -> None:
        """After a good run: everything verifies, nothing is left anywhere."""
        self.no_bad_set()
        with self.promise(BAD):
            results = verify.run(self.config(), None, quiet()) if len(self.read) < 20 else []
            assert [item for item in results if not item["ok"]] == []
        with self.promise(LEFT):
            self._nothing_left()

    def _nothing_left(self) -> None:
        known = catalogue.read(self.set_dir)
        assert list(store.consistency(self.set_dir, known)) == []
        assert _names(self.temporary) == []
        assert _names(self.server.store / store.INCOMING_NAME) == []
        assert _names(self.server.store / store.PRUNED_NAME) == []
        others = {"catalogue.jsonl", "drills", "events", "scrubbed.json"}
        assert set(_names(self.set_dir)) - others == set(known.present())
        assert all(name[0] != "." for name in _names(self.set_dir / store.EVENTS_NAME))
        for backup_id in known.present():
            assert _names(self.set_dir / backup_id) == [
                "dump.rdb.zst",
                "manifest.json",
                "receipt.json",
            ]
        for drill_id in _names(self.set_dir / store.DRILLS_NAME):
            there = _names(self.set_dir / store.DRILLS_NAME / drill_id)
            assert there == ["receipt.json", "report.json"]
        assert {path.name for path in (self.server.receipts / SET).iterdir()} == {
            f"{backup_id}.json" for backup_id in known.accepted()
        }
        for inbox in self.server.inbox.iterdir():
            for upload in inbox.iterdir():
                # The beginning of an upload stays for as long as its host may still finish it.
                assert not {"manifest.json", "report.json"} & set(os.listdir(upload))

    def a_day_later(self) -> None:
        """What uploads had begun is gone, and all that is in the store is good."""
        with self.promise(LEFT):
            outcome = accept.run(self.config(), quiet(), clock=lambda: time.time() + 1.1 * DAY)
            assert outcome.problems == []
            for inbox in self.server.inbox.iterdir():
                assert _names(inbox) == []
        with self.promise(BAD):
            results = verify.run(self.config(), None, quiet())
            assert [item for item in results if not item["ok"]] == []
            assert len(results) == len(self.present()) + 2

    def config(self) -> model.ServerConfig:
        """The server's configuration as the tool reads it."""
        loaded = reader.load(self.server.config)
        assert isinstance(loaded, model.ServerConfig)
        return loaded


class Source:
    """A Redis host whose backups are killed."""

    def __init__(self, place: Scene) -> None:
        self.place = place
        self.redis: RedisProcess = place.made.redis("redis-1")
        fill(self.redis.client())
        self.create = ("--config", self.configure(), "--json", "create", "--now")

    def configure(self, receipt_timeout_seconds: int = 60) -> Path:
        """Write the tool's configuration. The machine that runs the tests may be busy."""
        return self.place.made.host_config(
            "redis-1", self.redis, receipt_timeout_seconds=receipt_timeout_seconds
        )

    def survived(self) -> None:
        """Right after a kill."""
        self.place.no_bad_set()
        self.place.lock_is_free(self.redis.data / ".redis-backup" / "lock")
        self.place.lock_is_free(self.place.server.store / ".lock")

    def next_is_good(self) -> float:
        """The next run, and what it leaves. Returns its seconds."""
        started = time.monotonic()
        with self.place.promise(NEXT):
            done = self.place.run(*self.create)
            assert done.code == 0, done.text
        seconds = time.monotonic() - started
        self.place.settle()
        with self.place.promise(NEXT):
            assert done.json["id"] in self.place.present()
        with self.place.promise(LEFT):
            staged = [entry.name for entry in (self.redis.data / ".redis-backup").iterdir()]
            assert staged == ["lock"]
        self.place.in_order()
        return seconds


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def _rest(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=5)
    return f"exit {process.returncode}\n{out}{err}"


@contextlib.contextmanager
def scene(root: Path, *, rsync: bool = True) -> Iterator[Scene]:
    """A backup server that takes uploads without end, with its daemon unless told not to."""
    with lab(root, "redis-1", rsync=rsync) as made:
        made.server.write_config(
            uploads_per_day=100000,
            retention={
                "keep_last": 3,
                "keep_daily": 0,
                "keep_weekly": 0,
                "keep_monthly": 0,
                "keep_minimum": 1,
            },
        )
        (root / "tmp").mkdir()
        yield Scene(made)


def upload(scene: Scene, dump: bytes, number: int) -> str:
    """A complete upload in the inbox, as a host would have sent it some seconds ago."""
    backup_id = manifest.make_id(time.time() - 80000 + number, "redis-1")
    made = make_upload(scene.made.root / "made", dump, backup_id)
    made.rename(scene.server.inbox / "redis-1" / backup_id)
    return backup_id
