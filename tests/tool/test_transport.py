"""What the rsync modules let their users do, with the daemon's real answers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis_backup.config.model import Transport
from redis_backup.transport import rsync
from redis_backup.transport.rsync import TransportError

from tests.support import processes
from tests.support.wire import Wire
from tests.tool.backup_lab import SECRET, SET, BackupServer, lab, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupServer]:
    """A backup server that only receives."""
    with lab(tmp_path_factory.mktemp("transport"), "redis-1", "redis-2", kick=False) as made:
        backup = made.server.store / SET / "20260101T000000Z-redis-1"
        backup.mkdir(parents=True)
        (backup / "manifest.json").write_text("{}")
        (backup / "link").symlink_to("/etc/passwd")
        (made.server.receipts / SET / "20260101T000000Z-redis-1.json").write_text("one")
        (made.server.receipts / SET / "other.txt").write_text("no receipt")
        yield made.server


def place(server: BackupServer, user: str) -> Transport:
    """How a host reaches the daemon."""
    return Transport(
        server="127.0.0.1",
        port=server.port,
        user=user,
        secret=SECRET,
        inbox_module=f"inbox-{user}",
        receipts_module=f"receipts-{SET}",
        store_module="store",
        retry_delays=(),
    )


def run_rsync(server: BackupServer, *arguments: str) -> int:
    """Run rsync as a host that was taken over might."""
    return subprocess.run(
        [
            "rsync",
            *(argument.replace("DAEMON", f"127.0.0.1:{server.port}") for argument in arguments),
        ],
        env={"PATH": "/usr/bin:/bin", "RSYNC_PASSWORD": SECRET},
        capture_output=True,
        check=False,
    ).returncode


def test_upload_in_order(server: BackupServer, tmp_path: Path) -> None:
    (tmp_path / "id").mkdir()
    for name in ("payload", "last"):
        (tmp_path / "id" / name).write_text(name)
    rsync.upload(place(server, "redis-1"), tmp_path, "id", ("payload", "last"))
    arrived = server.inbox / "redis-1" / "id"
    assert {path.name: path.read_text() for path in arrived.iterdir()} == {
        "payload": "payload",
        "last": "last",
    }
    # Nothing after what could not be sent.
    (tmp_path / "id").rename(tmp_path / "second")
    (server.inbox / "redis-1" / "second" / "payload" / "in its way").mkdir(parents=True)
    with pytest.raises(TransportError):
        rsync.upload(place(server, "redis-1"), tmp_path, "second", ("payload", "last"))
    assert not (server.inbox / "redis-1" / "second" / "last").exists()


def test_fetch_takes_files_and_directories_but_no_links(
    server: BackupServer, tmp_path: Path
) -> None:
    drill = place(server, "drill-1")
    rsync.fetch(drill, "store", f"{SET}/20260101T000000Z-redis-1/", tmp_path, 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    with pytest.raises(TransportError, match="missing") as caught:
        rsync.fetch(drill, "store", f"{SET}/missing", tmp_path, 1000)
    assert caught.value.rsync_code == 23
    with pytest.raises(TransportError, match="refused user redis-1"):
        rsync.fetch(place(server, "redis-1"), "store", f"{SET}/", tmp_path, 1000)


def test_a_server_that_drips_does_not_hold_a_host_for_ever(
    server: BackupServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then is none of the silence that rsync's own time-out is about."""
    monkeypatch.setattr(rsync, "_PATIENCE", 1.0)
    large = server.store / SET / "large"
    large.write_bytes(os.urandom(100_000))
    with Wire(server.port) as wire:
        drill = replace(place(server, "drill-1"), port=wire.port)
        rsync.fetch(drill, "store", f"{SET}/large", tmp_path, 100_000)
        assert (tmp_path / "large").stat().st_size == 100_000
        (tmp_path / "large").unlink()
        for drip in (10, 1000):
            # Before the first answer, and in the middle of the file.
            wire.drip = drip
            started = time.monotonic()
            with pytest.raises(TransportError, match=r"not done after 1 s: .* holds us up"):
                rsync.fetch(drill, "store", f"{SET}/large", tmp_path, 100_000)
            assert time.monotonic() - started < 10
            # Nor does any part of it go on alone.
            wait_until(lambda: not receivers(tmp_path), "the end of both its processes", 5)


def receivers(directory: Path) -> list[int]:
    """The processes of rsync that write into a directory, whoever is their parent now."""
    found = []
    for process in processes.running():
        with contextlib.suppress(OSError):
            place = os.readlink(f"/proc/{process.pid}/cwd")
            if (process.name, place) == ("rsync", str(directory)):
                found.append(process.pid)
    return found


def test_more_than_announced_is_given_up(server: BackupServer, tmp_path: Path) -> None:
    (server.store / SET / "larger").write_bytes(os.urandom(100_001))
    drill = place(server, "drill-1")
    with pytest.raises(TransportError, match="a file is larger than it was announced"):
        rsync.fetch(drill, "store", f"{SET}/larger", tmp_path, 100_000)
    assert list(tmp_path.iterdir()) == []
    rsync.fetch(drill, "store", f"{SET}/larger", tmp_path, 100_001)


def test_receipts(server: BackupServer, tmp_path: Path) -> None:
    host = place(server, "redis-2")
    assert rsync.fetch_receipt(host, "20260101T000000Z-redis-1", tmp_path) == b"one"
    assert rsync.fetch_receipt(host, "20260101T000001Z-redis-1", tmp_path) is None
    assert rsync.fetch_receipts(host, tmp_path) == {"20260101T000000Z-redis-1": b"one"}


def test_an_inbox_can_only_be_written_by_its_host(server: BackupServer, tmp_path: Path) -> None:
    held = server.inbox / "redis-1" / "held"
    held.mkdir()
    (held / "file").write_text("kept")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    inbox = "rsync://redis-1@DAEMON/inbox-redis-1"
    for arguments in (
        (f"{inbox}/held/file", f"{tmp_path}/"),
        (f"{inbox}/",),
        ("-r", "--delete", f"{tmp_path}/empty/", f"{inbox}/held/"),
        ("--append", f"{tmp_path}/empty", f"{inbox}/held/"),
        ("--inplace", f"{tmp_path}/empty", f"{inbox}/held/"),
        ("-l", f"{tmp_path}/link", f"{inbox}/"),
        ("--remove-source-files", f"{inbox}/held/file", f"{tmp_path}/"),
        ("-r", f"{tmp_path}/empty", "rsync://redis-1@DAEMON/inbox-redis-2/"),
        ("-r", f"{tmp_path}/empty", f"rsync://redis-1@DAEMON/receipts-{SET}/"),
        ("-r", f"{tmp_path}/empty", "rsync://drill-1@DAEMON/store/"),
    ):
        assert run_rsync(server, *arguments) != 0, arguments
    assert (held / "file").read_text() == "kept"
    assert not (tmp_path / "file").exists()
    assert not (server.inbox / "redis-1" / "link").is_symlink()
    # The same with nothing forbidden in it does work.
    assert run_rsync(server, "-r", f"{tmp_path}/empty", f"{inbox}/") == 0
