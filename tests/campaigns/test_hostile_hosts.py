"""Hosts that were taken over send what takes long to verify: no other host waits for them, and
nothing of theirs outlives the run that looked at it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis_backup.base import files
from redis_backup.base.output import Output
from redis_backup.repository import accept, patience
from redis_backup.repository.ledger import store_lock

from tests.campaigns.conftest import Size, Tell
from tests.support import processes
from tests.support.rdb_builder import length, resealed, string
from tests.tool.backup_lab import (
    PACKAGE,
    SET,
    BackupServer,
    Result,
    id_now,
    lab,
    make_upload,
    run,
    wait_until,
)

HOSTILE = ("evil-1", "evil-2", "evil-3")
# What may differ by the pauses of the loop that looks into inboxes, and by the machine. Seconds.
NOISE = 2.0


def a_dump(keys: list[bytes]) -> bytes:
    """A dump of now with these keys (type, name and value)."""
    return resealed(unsealed(keys))


def unsealed(keys: list[bytes]) -> bytes:
    """As `a_dump`, with a checksum of zeros: it is wrong, which is found at the end."""
    fields = {b"redis-ver": b"7.0.15", b"ctime": str(int(time.time())).encode()}
    head = b"".join(b"\xfa" + string(name) + string(value) for name, value in fields.items())
    counts = b"\xfe\x00\xfb" + length(len(keys)) + b"\x00"
    return b"REDIS0010" + head + counts + b"".join(keys) + b"\xff" + bytes(8)


def slow_lists(count: int) -> list[bytes]:
    """Lists of small elements of two sizes, a million of them in 28 kB each: a tenth of a second or
    more to walk, and elements of one size are quick.
    """
    listed = b"\x01\x01\x81a\x02" * 500_000
    listpack = struct.pack("<IH", len(listed) + 7, 65535) + listed + b"\xff"
    # LZF: eleven bytes as they are, then what was five bytes before, 264 bytes at a time.
    packed = bytes([10]) + listpack[:11]
    runs, rest = divmod(len(listpack) - 11, 264)
    if rest == 0:
        runs, rest = runs - 1, 264
    packed += b"\xe0\xff\x04" * runs
    for at in range(len(listpack) - rest, len(listpack), 32):
        packed += bytes([len(listpack[at : at + 32]) - 1]) + listpack[at : at + 32]
    value = length(1) + b"\x02\xc3" + length(len(packed)) + length(len(listpack)) + packed
    return [b"\x12" + string(b"key:%d" % number) + value for number in range(count)]


def long_strings(count: int) -> list[bytes]:
    """Strings of a million zeros each, which zstd stores in some bytes."""
    zeros = string(bytes(1_000_000))
    return [b"\x00" + string(b"key:%d" % number) + zeros for number in range(count)]


def send(server: BackupServer, host: str, dump: bytes, backup_id: str, **changes: Any) -> None:
    """Upload a dump, with changes to its manifest; it is there at once, as a whole."""
    upload = make_upload(server.root / "made", dump, backup_id, **changes)
    upload.rename(server.inbox / host / backup_id)


class Bombs:
    """What hostile hosts send, made once: `uploads` are directories by host."""

    def __init__(self, root: Path, each: int) -> None:
        self.uploads: list[tuple[str, Path]] = []
        many = {str(number): {"keys": 1, "expires": 0} for number in range(10_000)}
        # Made from a small dump and given another payload: the sender need not read it.
        lists, zeros = packed(unsealed(slow_lists(400))), packed(unsealed(long_strings(100)))
        small = a_dump([b"\x00" + string(b"key") + string(b"value")])
        for number in range(each):
            for host, payload in (("evil-1", lists), ("evil-2", zeros), ("evil-3", lists)):
                upload = make_upload(root, small, id_now(host, -number))
                data = json.loads((upload / "manifest.json").read_text())
                data["files"] = payload[1]
                if host == "evil-3":
                    data["databases"] = many
                (upload / "manifest.json").write_text(json.dumps(data))
                (upload / "dump.rdb.zst").write_bytes(payload[0])
                self.uploads.append((host, upload))
            deep = make_upload(root, small, id_now("evil-3", -1000 - number))
            (deep / "manifest.json").write_text("[" * 500_000)
            self.uploads.append(("evil-3", deep))

    def send(self, server: BackupServer) -> None:
        """Put all of them into the inboxes, and many names beside."""
        for host, upload in self.uploads:
            upload.rename(server.inbox / host / upload.name)
        for number in range(100):
            (server.inbox / "evil-2" / f"name-{number}").write_text("")


def packed(dump: bytes) -> tuple[bytes, list[dict[str, Any]]]:
    """A dump as it is uploaded, and what a manifest says of it; nobody has walked it."""
    done = subprocess.run(["zstd", "-q", "-3", "-c"], input=dump, capture_output=True, check=True)
    sha256 = [hashlib.sha256(data).hexdigest() for data in (dump, done.stdout)]
    names = {"name": "dump.rdb", "stored_name": "dump.rdb.zst", "codec": "zstd"}
    sizes = {"size": len(dump), "sha256": sha256[0]}
    stored = {"stored_size": len(done.stdout), "stored_sha256": sha256[1]}
    return done.stdout, [{**names, **sizes, **stored}]


@contextmanager
def accepting(server: BackupServer) -> Iterator[subprocess.Popen[bytes]]:
    """A run of `accept`, as the end of a transfer starts it; what it says is in accept.log."""
    command = [sys.executable, "-m", "redis_backup", "--config", str(server.config), "accept"]
    with (server.root / "accept.log").open("a") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def seconds_to_receipt(server: BackupServer, dump: bytes, moment: int) -> float:
    """From the end of an upload of the honest host to its receipt; the upload starts an `accept`
    as every one does.
    """
    backup_id = id_now("redis-1", moment)
    upload = make_upload(server.root / "made", dump, backup_id)
    path = server.receipts / SET / f"{backup_id}.json"
    started = time.monotonic()
    upload.rename(server.inbox / "redis-1" / backup_id)
    with accepting(server):
        wait_until(path.exists, "the receipt", 120)
        taken = time.monotonic() - started
        assert server.receipt(backup_id)["status"] == "accepted"
        inbox = server.inbox / "redis-1"
        wait_until(lambda: not list(inbox.iterdir()), "an empty inbox")
    return taken


def wait_for_bombs(pid: int) -> None:
    """Until a run has a process at work for each hostile host."""
    wait_until(lambda: len(processes.below(pid)) >= len(HOSTILE), "the bombs at work")


def test_hostile_hosts_do_not_hold_an_honest_one_up(tmp_path: Path, size: Size, tell: Tell) -> None:
    tries = size(3, 15)
    honest = a_dump(slow_lists(size(2, 8)))
    with lab(tmp_path, "redis-1", *HOSTILE, rsync=False) as made:
        server = made.server
        alone = [seconds_to_receipt(server, honest, number) for number in range(tries)]
        Bombs(tmp_path / "bombs", size(3, 10)).send(server)
        with accepting(server) as process:
            wait_until(
                lambda: len(processes.below(process.pid)) >= len(HOSTILE), "the bombs at work"
            )
            beside = []
            for number in range(tries):
                beside.append(seconds_to_receipt(server, honest, 100 + number))
                assert process.poll() is None
                assert len(processes.below(process.pid)) >= len(HOSTILE), "nobody was beside it"
        for name, taken in (("alone", alone), ("beside", beside)):
            shown = ", ".join(f"{value:.2f}" for value in taken)
            tell(f"seconds from upload to receipt, {name}: {shown}")
        assert statistics.median(beside) <= 2 * statistics.median(alone) + NOISE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_ends_leaves_nobody_at_work(tmp_path: Path, number: signal.Signals) -> None:
    with lab(tmp_path, "redis-1", *HOSTILE, rsync=False) as made:
        server = made.server
        Bombs(tmp_path / "bombs", 1).send(server)
        with accepting(server) as process:
            wait_until(
                lambda: len(processes.below(process.pid)) >= len(HOSTILE), "the bombs at work"
            )
            children = processes.below(process.pid)
            process.send_signal(number)
            process.wait()
            # Nobody who is still there for a moment holds a lock.
            for name in (".accepting", ".lock"):
                with files.locked(server.store / name):
                    pass
            alive = {child.pid for child in children}
            wait_until(
                lambda: not alive & {item.pid for item in processes.running()},
                "the end of what it had started",
                5,
            )
            if number == signal.SIGTERM:
                assert process.returncode == 1
                said = (server.root / "accept.log").read_text()
                assert "stopped by SIGTERM" in said
                assert os.listdir(server.store / ".incoming") == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BackupServer]:
    """A backup server that nobody kicks."""
    with lab(tmp_path, "redis-1", "redis-2", rsync=False) as made:
        yield made.server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets of a twentieth of a second, four times as much at each further try."""
    monkeypatch.setattr(patience, "_FIRST", 0.05)
    monkeypatch.setattr(patience, "_LEAST", 0.05)


def deferred(server: BackupServer, backup_id: str) -> Result:
    """One run, which defers this upload."""
    result = server.accept()
    assert (result.code, result.json["accepted"], result.json["rejected"]) == (0, [], [])
    assert f"{SET}/{backup_id}" in result.json["deferred"]
    receipt = server.receipt(backup_id)
    assert receipt["status"] == "deferred"
    assert "verifying it takes more than" in receipt["reason"]
    assert os.listdir(server.store / ".incoming") == []
    return result


def accepted_in_the_end(server: BackupServer, backup_id: str) -> int:
    """How many runs it takes until a deferred upload is accepted."""
    for runs in range(1, 6):
        result = server.accept()
        assert result.code == 0, result.text
        if result.json["accepted"]:
            assert result.json["accepted"] == [f"{SET}/{backup_id}"]
            assert server.receipt(backup_id)["status"] == "accepted"
            assert list((server.inbox / "redis-1").iterdir()) == []
            assert patience.Patience(server.store).deferred() == []
            return runs
    raise AssertionError("it was never accepted")


@pytest.mark.usefixtures("impatient")
def test_what_costs_more_is_tried_again_alone(server: BackupServer) -> None:
    slow = a_dump(slow_lists(6))
    backup_id = id_now("redis-1")
    send(server, "redis-1", slow, backup_id)
    deferred(server, backup_id)
    checked = run("--config", server.config, "check").out
    assert f"FAILED: deferred: {backup_id} of redis-1 waits since" in checked
    # The others go on meanwhile.
    other = id_now("redis-2")
    send(server, "redis-2", a_dump([b"\x00" + string(b"key") + string(b"value")]), other)
    result = server.accept()
    assert f"{SET}/{other}" in result.json["accepted"]
    if f"{SET}/{backup_id}" not in result.json["accepted"]:
        accepted_in_the_end(server, backup_id)
    assert "deferred" not in run("--config", server.config, "check").out
    # It is known now what its host's uploads cost.
    again = id_now("redis-1", 1)
    send(server, "redis-1", slow, again)
    result = server.accept()
    assert (result.json["accepted"], result.json["deferred"]) == ([f"{SET}/{again}"], [])


@pytest.mark.usefixtures("impatient")
def test_a_killed_run_changes_nothing_for_a_deferred_upload(
    server: BackupServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_id = id_now("redis-1")
    send(server, "redis-1", a_dump(slow_lists(6)), backup_id)
    deferred(server, backup_id)
    before = (server.store / patience.PATIENCE_NAME).read_bytes()

    class KilledError(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise KilledError

    for name in ("_examine", "_conclude"):
        with monkeypatch.context() as patch:
            patch.setattr(accept.Acceptor, name, kill)
            with pytest.raises(KilledError):
                accept.Acceptor(server.loaded(), Output(True)).run()
        assert (server.store / patience.PATIENCE_NAME).read_bytes() == before
        assert server.receipt(backup_id)["status"] == "deferred"
    accepted_in_the_end(server, backup_id)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "damage",
    [
        None,
        b"{",
        b'{"cost": {}, "deferred": [{"host": 1, "id": "x", "since": "x", "budget": "x"}]}',
        b'{"cost": {}, "deferred": [{"host": "redis-1", "id": "ID", "since": "x", "budget": 1}]}',
        b'{"cost": {"redis-1": NaN}, "deferred": []}',
        b'{"cost": {}, "deferred": [{"host":"redis-1","id":"ID","since":1,"budget":0}]}',
        b'{"cost": {}, "deferred": [{"host":"redis-1","id":"ID","since":1,"budget":1e999}]}',
    ],
)
def test_the_state_may_be_lost_or_damaged(server: BackupServer, damage: bytes | None) -> None:
    backup_id = id_now("redis-1")
    send(server, "redis-1", a_dump(slow_lists(6)), backup_id)
    deferred(server, backup_id)
    path = server.store / patience.PATIENCE_NAME
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage.replace(b"ID", backup_id.encode()))
    assert accepted_in_the_end(server, backup_id) <= 4
    with store_lock(server.store), contextlib.suppress(FileNotFoundError):
        json.loads(path.read_bytes())
