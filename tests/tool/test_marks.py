"""`redis-backup keep`, `acknowledge`, `fetch` and `reindex` over real stores."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis_backup.base.times import timestamp
from redis_backup.commands import verify
from redis_backup.formats import receipts
from redis_backup.repository import catalogue, ledger, prune, reread

from tests.tool.backup_lab import (
    SET,
    BackupServer,
    Result,
    id_now,
    lab,
    make_upload,
    refusal,
    run,
)
from tests.tool.store_lab import DAY, DUMP, drilled, flip, ids, opened, quiet, stored

POLICY = {"keep_last": 2, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0, "keep_minimum": 1}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BackupServer]:
    """A backup server with a policy of two backups and one set."""
    with lab(tmp_path, "redis-1", rsync=False) as made:
        made.server.write_config(retention=POLICY)
        yield made.server


def ran(server: BackupServer, *arguments: str | Path) -> Result:
    """One run of a command."""
    return run("--config", server.config, *arguments)


def lines(server: BackupServer) -> bytes:
    """The catalogue."""
    return (server.store / SET / "catalogue.jsonl").read_bytes()


# --- keep ---


def test_keep(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (4, 3, 2, 1, 0)]
    assert ran(server, "keep", backups[0], "--days", "3").code == 0
    assert ran(server, "keep", f"{SET}/{backups[1]}", "--days", "3").code == 0
    assert ran(server, "keep", backups[1], "--days", "0").code == 0
    assert "kept until" in ran(server, "list").out
    assert ran(server, "prune").code == 0
    assert ids(server) == [backups[0], *backups[3:]]
    # The mark runs out by itself.
    backups.append(stored(server, -2.5))
    result = prune.run(server.loaded(), quiet(), clock=lambda: time.time() + 4 * DAY)
    assert result["sets"][0]["deleted"] == [backups[0], backups[3]]


def test_keep_refuses_what_is_not_there(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (2, 1, 0)]
    assert ran(server, "prune").code == 0
    before = lines(server)
    asked = ran(server, "keep", backups[0], "--days", "3")
    refusal(asked, "was deleted by retention on")
    refusal(ran(server, "keep", id_now("redis-9"), "--days", "3"), "no such backup")
    for days in ("-1", "40000"):
        refusal(ran(server, "keep", backups[1], "--days", days), "--days must be", code=2)
    assert lines(server) == before


# --- acknowledge ---


def shrink(server: BackupServer, backup_id: str, before: str) -> None:
    """Mark a backup in its receipt and line, as if it had been accepted so."""
    path = server.store / SET / backup_id / "receipt.json"
    receipt = receipts.decode(path.read_bytes(), "receipt")
    assert receipt.event is not None
    event = replace(receipt.event, shrunk_from=before, keys=1)
    path.chmod(0o600)
    path.write_bytes(receipts.encode(replace(receipt, event=event)))
    known = catalogue.read(server.store / SET)
    catalogue.rewrite(
        server.store / SET, [event if entry.n == event.n else entry for entry in known.entries]
    )


def test_acknowledge(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (3, 2, 1, 0)]
    for backup_id in backups[2:]:
        shrink(server, backup_id, backups[1])
    known = catalogue.read(server.store / SET)
    newest = known.newest()
    assert newest is not None
    assert newest.id == backups[1]
    assert "FAILED: shrunk redis" in ran(server, "check").out
    # Two that are equally small: who says that the one is right says it of the other.
    result = ran(server, "--json", "acknowledge", backups[3])
    assert result.json == {"acknowledged": backups[2:]}
    newest = catalogue.read(server.store / SET).newest()
    assert newest is not None
    assert newest.id == backups[3]
    assert "shrunk" not in ran(server, "check").out
    refusal(ran(server, "acknowledge", backups[3]), "there is nothing to acknowledge")
    refusal(ran(server, "acknowledge", backups[0]), "is not marked as much smaller")
    assert ran(server, "verify", "--all").code == 0


# --- fetch ---


def test_fetch(server: BackupServer, tmp_path: Path) -> None:
    backup_id = stored(server, 0)
    target = tmp_path / "here"
    refusal(ran(server, "fetch", backup_id, target), "no such directory", code=2)
    target.mkdir()
    result = ran(server, "--json", "fetch", backup_id, target)
    assert result.code == 0, result.text
    path = target / f"{backup_id}.rdb"
    assert path.read_bytes() == DUMP.read_bytes()
    assert result.json["path"] == str(path)
    # Nothing is written over it, even when it is a link to nowhere, or comes at the last moment.
    path.write_text("mine")
    refusal(ran(server, "fetch", backup_id, target), "is there already")
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to("nowhere")
    refusal(ran(server, "fetch", backup_id, target), "is there already")
    assert os.listdir(target) == [path.name]


def test_fetch_writes_over_nothing_that_came_meanwhile(
    server: BackupServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_id = stored(server, 0)
    path = tmp_path / f"{backup_id}.rdb"
    real = reread.walk

    def walk(*arguments: object, **more: object) -> object:
        path.write_text("mine")
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(reread, "walk", walk)
    refusal(ran(server, "fetch", backup_id, tmp_path), "is there already")
    assert path.read_text() == "mine"
    assert not list(tmp_path.glob(".*partial"))


def test_fetch_refuses_a_damaged_backup(server: BackupServer, tmp_path: Path) -> None:
    backup_id = stored(server, 0)
    target = tmp_path / "here"
    target.mkdir()
    # What a run that was killed has left.
    (target / f".{backup_id}.rdb.partial").write_text("half")
    flip(server.store / SET / backup_id / "dump.rdb.zst")
    refusal(ran(server, "fetch", backup_id, target), "sha256 is")
    assert os.listdir(target) == []
    shutil.rmtree(server.store / SET / backup_id)
    refusal(ran(server, "fetch", backup_id, target), "is missing")
    assert os.listdir(target) == []


# --- reindex ---


def live(server: BackupServer, dice: random.Random) -> None:
    """A random history with every event."""
    for days in range(12, 0, -1):
        stored(server, days / 10, drill=dice.choice((None, "passed", "failed")))
    drilled(server, None, "failed", time.time())
    for _ in range(20):
        book = opened(server)
        backup_id = dice.choice(list(book.known.present()))
        event = dice.choice(("verified", "kept", "acknowledged", "pruned"))
        about = book.about(backup_id, event, time.time() - dice.randrange(DAY))
        if event == "verified":
            ok = dice.random() < 0.5
            reason = None if ok else 'sha256 is "é\u2028", the manifest says\\ {}'
            about = replace(about, ok=ok, level=dice.choice(("bytes", "form")), reason=reason)
        elif event == "kept":
            about = replace(about, until=timestamp(time.time() + dice.randrange(10 * DAY)))
        elif event == "pruned" and len(book.known.present()) < 5:
            continue
        book.record(about)
        if event == "pruned" and dice.random() < 0.9:
            shutil.rmtree(server.store / SET / backup_id)


@pytest.mark.parametrize("seed", range(4))
def test_reindex_writes_the_catalogue_that_was(
    server: BackupServer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_SECOND_LOOK", 0.0)
    dice = random.Random(seed)
    live(server, dice)
    path = server.store / SET / "catalogue.jsonl"
    whole = path.read_bytes()
    assert ran(server, "reindex", SET).code == 0
    assert path.read_bytes() == whole
    rows = whole.splitlines(keepends=True)
    broken = [
        rows[1:],
        [*rows[:5], *rows[6:]],
        [*rows[:5], rows[5].replace(b'"n":', b'"n": '), *rows[6:]],
        [rows[1], rows[0], *rows[2:]],
        [*rows, b"\n"],
    ]
    upload = make_upload(server.inbox / "redis-1", DUMP.read_bytes(), id_now("redis-1"))
    there = ids(server)
    for content in broken:
        path.write_bytes(b"".join(content))
        # Meanwhile nothing is accepted, marked or deleted; everybody says what to do.
        for command in (
            ("accept",),
            ("prune",),
            ("check",),
            ("verify",),
            ("keep", there[-1], "--days", "1"),
        ):
            result = ran(server, *command)
            assert result.code == 1
            assert f"redis-backup reindex {SET}" in result.text, command
        assert ids(server) == there
        assert upload.is_dir()
        assert path.read_bytes() == b"".join(content)
        assert ran(server, "reindex", SET).code == 0
        assert path.read_bytes() == whole
    # What is lost at the end needs nobody: the next run writes it.
    for left in (b"".join(rows[:-4]), whole + rows[0][:40]):
        path.write_bytes(left)
        ledger.Ledger(server.loaded(), SET)
        assert path.read_bytes() == whole


def test_reindex_says_what_is_missing(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (3, 2, 1)]
    assert ran(server, "keep", backups[1], "--days", "3").code == 0
    whole = lines(server)
    receipt = server.store / SET / backups[1] / "receipt.json"
    content = receipt.read_bytes()
    flip(receipt, 2)
    (server.store / SET / "catalogue.jsonl").unlink()
    result = ran(server, "--json", "reindex", SET)
    assert result.code == 1
    assert result.json["lines"] == 2
    assert f"{SET}/{backups[1]}/receipt.json" in result.json["problems"][0]
    assert f"event 4 is about {backups[1]}, whose receipt is gone" in result.json["problems"][1]
    # As long as it is there and cannot be read, nothing else is done.
    for command in ("accept", "prune"):
        result = ran(server, command)
        assert result.code == 1
        assert f"{SET}/{backups[1]}/receipt.json" in result.text
    assert ids(server) == backups
    # It comes from a copy: that of the hosts.
    receipt.write_bytes((server.receipts / SET / f"{backups[1]}.json").read_bytes())
    assert receipt.read_bytes() == content
    assert ran(server, "reindex", SET).code == 0
    assert lines(server) == whole


def test_there_is_no_such_set_to_reindex(server: BackupServer) -> None:
    refusal(ran(server, "reindex", "../other"), "is no set in", code=2)
    assert json.loads(ran(server, "--json", "status").out)["sets"][0]["set"] == SET
