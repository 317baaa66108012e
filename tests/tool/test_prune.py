"""`redis-backup prune` over real stores: what goes, what a kill at any step leaves, and what is not
touched.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_backup.base.errors import ToolError
from redis_backup.base.files import locked
from redis_backup.base.output import Output
from redis_backup.formats import lease, manifest
from redis_backup.repository import catalogue, prune, reread
from redis_backup.transport import zstd

from tests.tool.backup_lab import SET, BackupServer, Result, lab, make_upload, run
from tests.tool.store_lab import DAY, DUMP, flip, ids, quiet, stored

POLICY = {"keep_last": 2, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0, "keep_minimum": 1}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BackupServer]:
    """A backup server with a policy of two backups and one set."""
    with lab(tmp_path, "redis-1", rsync=False) as made:
        made.server.write_config(retention=POLICY, max_drill_age_seconds=93600)
        yield made.server


def tombstones(server: BackupServer) -> list[str]:
    """The ids with a tombstone, in order."""
    entries = catalogue.read(server.store / SET).entries
    return [entry.id for entry in entries if entry.event == "pruned"]


def pruned(server: BackupServer, *arguments: str) -> Result:
    """One run."""
    return run("--config", server.config, "--json", "prune", *arguments)


def verified(server: BackupServer) -> Result:
    """What `verify` says of everything."""
    return run("--config", server.config, "verify", "--all")


def test_deletes_what_nothing_keeps(server: BackupServer) -> None:
    backups = [
        stored(server, days, drill="passed" if days == 4 else None) for days in range(5, -1, -1)
    ]
    dry = pruned(server, "--dry-run")
    assert dry.code == 0, dry.text
    assert ids(server) == backups
    assert tombstones(server) == []
    result = pruned(server)
    assert result.code == 0, result.text
    [told] = result.json["sets"]
    assert told["deleted"] == [backups[0], backups[2], backups[3]] == tombstones(server)
    assert told["decisions"] == dry.json["sets"][0]["decisions"]
    assert told["decisions"][1] == {"id": backups[1], "keep": True, "reasons": ["newest drilled"]}
    assert ids(server) == [backups[1], backups[4], backups[5]]
    assert verified(server).code == 0
    # Receipts are for `accept` to drop, when they are old enough.
    assert len(os.listdir(server.receipts / SET)) == 6
    assert server.accept().code == 0
    assert len(os.listdir(server.receipts / SET)) == 6
    for receipt in (server.receipts / SET).iterdir():
        os.utime(receipt, (0, 0))
    assert server.accept().code == 0
    assert sorted(os.listdir(server.receipts / SET)) == [f"{item}.json" for item in ids(server)]
    # And that is that.
    assert pruned(server).json["sets"][0]["deleted"] == []
    shown = run("--config", server.config, "show", backups[0])
    assert "only the catalogue still knows it" in shown.out


def test_says_so_to_a_person(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (2, 1, 0)]
    dry = run("--config", server.config, "prune", "--dry-run").out.splitlines()
    assert dry == [
        f"would delete: {SET}/{backups[0]}: not among the last 2 of redis-1",
        f"keeps: {SET}/{backups[1]}: among the last 2 of redis-1",
        f"keeps: {SET}/{backups[2]}: newest verified; newest good; never fewer than 1; among the"
        " last 2 of redis-1",
        f"{SET}: 1 would be deleted, 2 kept",
    ]
    assert run("--config", server.config, "prune").out.splitlines() == [
        f"deleted: {SET}/{backups[0]}: not among the last 2 of redis-1",
        f"{SET}: 1 deleted, 2 kept",
    ]


class KilledError(BaseException):
    """The process ends here."""


def test_killed_before_every_single_step(
    server: BackupServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every write, removal and fsync in turn; a write leaves half of its bytes."""
    backups = [stored(server, days) for days in (4, 3, 2, 1, 0)]
    pristine = tmp_path / "pristine"
    shutil.copytree(server.store, pristine)
    real = {name: getattr(os, name) for name in ("write", "unlink", "rmdir", "fsync", "ftruncate")}
    seen: set[str] = set()
    for last_step in range(1000):
        shutil.rmtree(server.store)
        shutil.copytree(pristine, server.store)
        left = [last_step]

        def wrap(name: str, left: list[int] = left) -> Any:
            def step(*arguments: Any, **more: Any) -> Any:
                if left[0] == 0:
                    seen.add(name)
                    if name == "write":
                        real["write"](arguments[0], arguments[1][: len(arguments[1]) // 2])
                    raise KilledError
                left[0] -= 1
                return real[name](*arguments, **more)

            return step

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, wrap(name))
            try:
                prune.run(server.loaded(), Output(True, io.StringIO(), io.StringIO()))
                break
            except KilledError:
                pass
        # Between the two, runs of `accept` come and go, and nothing that is kept was touched.
        assert server.accept().code == 0
        assert set(backups[3:]) <= set(ids(server))
        again = pruned(server)
        assert again.code == 0, again.text
        assert list((server.store / ".pruned").iterdir()) == []
        assert [name for name in os.listdir(server.store / SET / "events") if name[0] == "."] == []
        assert ids(server) == backups[3:]
        assert tombstones(server) == backups[:3]
        assert verified(server).code == 0
    assert last_step > 15
    assert seen == {"write", "unlink", "rmdir", "fsync"}


def test_a_set_without_a_line_and_a_line_without_a_set_stay_errors(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (5, 4, 3, 2, 1, 0)]
    shutil.rmtree(server.store / SET / backups[0])
    stranger = manifest.make_id(time.time() - 9 * DAY, "redis-1")
    make_upload(server.store / SET, DUMP.read_bytes(), stranger)
    result = pruned(server)
    assert result.code == 1
    assert sorted(result.json["problems"]) == sorted(
        [
            f"{SET}/{stranger}: is in the store but has no receipt, so it was never accepted: it"
            " counts for nothing; look at it, then remove it",
            f"{SET}/{backups[0]}: has a line in the catalogue but is not in the store: restore the"
            " directory from a copy, if there is one",
            f"{SET}/{backups[0]}/manifest.json: is missing",
        ]
    )
    assert tombstones(server) == backups[1:4]
    assert ids(server) == [stranger, *backups[4:]]
    assert verified(server).code == 1
    # Two readings have not found it: nobody waits for it any more.
    assert pruned(server).json["sets"][0]["deleted"] == backups[:1]
    shutil.rmtree(server.store / SET / stranger)
    assert verified(server).code == 0


def test_what_was_damaged_takes_nobody_s_place(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (4, 3, 2, 1, 0)]
    (server.store / SET / backups[4] / "manifest.json").write_text("{}")
    payload = server.store / SET / backups[3] / "dump.rdb.zst"
    payload.write_bytes(payload.read_bytes()[:-1])
    result = pruned(server)
    assert result.code == 1
    assert len(result.json["problems"]) == 2
    assert ids(server) == backups[1:]
    assert tombstones(server) == backups[:1]


def test_a_broken_catalogue_deletes_nothing(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (4, 3, 2, 1, 0)]
    path = server.store / SET / "catalogue.jsonl"
    path.write_text(path.read_text().split("\n", 1)[1])
    result = pruned(server)
    assert result.code == 1
    assert "nothing more is deleted" in result.json["problems"][0]
    assert ids(server) == backups


@pytest.mark.parametrize(("jump", "words"), [(-10, "set back"), (10, "jumped ahead")])
def test_a_jump_of_the_clock_deletes_nothing(server: BackupServer, jump: int, words: str) -> None:
    backups = [stored(server, days) for days in (4, 3, 2, 1, 0)]
    output = Output(True, io.StringIO(), io.StringIO())
    result = prune.run(server.loaded(), output, clock=lambda: time.time() + jump * DAY)
    assert words in result["problems"][0]
    assert result["sets"][0]["deleted"] == []
    assert ids(server) == backups


@pytest.mark.parametrize("retention", [None, {**POLICY, "keep_last": 0}])
def test_without_a_policy_nothing_is_deleted(
    server: BackupServer, retention: dict[str, int] | None
) -> None:
    server.write_config(**({} if retention is None else {"retention": retention}))
    backups = [stored(server, days) for days in (3, 2, 1, 0)]
    result = pruned(server)
    assert result.code == 2
    assert "nothing is deleted" in result.err
    assert ids(server) == backups


def test_waits_for_accept_but_not_for_ever(server: BackupServer) -> None:
    stored(server, 0)
    output = Output(True, io.StringIO(), io.StringIO())
    with (
        locked(server.store / ".lock"),
        pytest.raises(ToolError, match=r"another run of redis-backup held it") as caught,
    ):
        prune.run(server.loaded(), output, lock_timeout=0.1)
    # No run that had nothing to do: it fails where somebody sees it.
    assert caught.value.exit_code == 1
    assert "names its process" in str(caught.value)
    prune.run(server.loaded(), output, lock_timeout=0)


# --- what must stay ---


def leased(server: BackupServer, backup_id: str) -> Path:
    """A restore is at work with a backup; its time has run out, and only it ends the lease."""
    path = server.store / SET / lease.LEASE_NAME
    made = lease.Lease(SET, "plan-1", backup_id, (), "redis-2", "2020-01-01T00:00:00Z")
    path.write_bytes(lease.encode(made))
    return path


def test_what_a_restore_works_with_stays(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (4, 3, 2, 1, 0)]
    path = leased(server, backups[1])
    [told] = pruned(server).json["sets"]
    assert told["deleted"] == [backups[0], backups[2]]
    assert told["decisions"][1]["reasons"] == ["a restore is at work with it"]
    path.unlink()
    assert pruned(server).json["sets"][0]["deleted"] == [backups[1]]


@pytest.mark.parametrize("raw", [b"", b"{", b'{"schema": 3}', b'{"schema": 2, "set": "redis"}'])
def test_a_lease_that_cannot_be_read_keeps_everything(server: BackupServer, raw: bytes) -> None:
    backups = [stored(server, days) for days in (3, 2, 1, 0)]
    path = server.store / SET / lease.LEASE_NAME
    path.write_bytes(raw)
    for arguments in ([], ["--dry-run"]):
        result = pruned(server, *arguments)
        assert result.code == 1
        assert "nothing more is deleted" in result.json["problems"][0]
        assert str(path) in result.json["problems"][0]
    assert ids(server) == backups
    path.unlink()
    assert pruned(server).json["sets"][0]["deleted"] == backups[:2]


def test_a_lease_that_comes_in_the_middle_is_heeded(
    server: BackupServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups = [stored(server, days) for days in range(9, -1, -1)]
    monkeypatch.setattr(prune, "_BATCH", 3)
    real = prune._empty
    # Before the first deletions, then after them.
    calls: list[Callable[[], object]] = [lambda: leased(server, backups[5]), lambda: None]

    def empty(directory: Path) -> None:
        real(directory)
        if calls:
            calls.pop()()

    monkeypatch.setattr(prune, "_empty", empty)
    assert pruned(server).code == 0
    assert ids(server) == [backups[5], *backups[8:]]


def test_the_store_of_another_repository_is_left_alone(server: BackupServer) -> None:
    backups = [stored(server, days) for days in (3, 2, 1, 0)]
    path = server.store / "repository.json"
    mine = path.read_text()
    other = mine.replace(server.loaded().identity.read_text().split('"id": "')[1][:8], "00000000")
    for content in (other, None, "{"):
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        result = pruned(server)
        assert result.code == 1
        assert "repository" in result.err
        assert ids(server) == backups
        assert tombstones(server) == []
    path.write_text(mine)
    assert pruned(server).json["sets"][0]["deleted"] == backups[:2]


# --- rot ---


def scrubbed(server: BackupServer) -> Result:
    """One run of the weekly reading."""
    return run("--config", server.config, "--json", "scrub")


def test_rot_is_found_told_and_goes_when_its_time_has_come(server: BackupServer) -> None:
    backups = [stored(server, days, drill="passed" if days == 2 else None) for days in (2, 1, 0)]
    flip(server.store / SET / backups[2] / "dump.rdb.zst")
    result = scrubbed(server)
    assert result.code == 1
    assert [item["what"] for item in result.json["results"] if not item["ok"]] == [
        f"{SET}/{backups[2]}"
    ]
    told = run("--config", server.config, "check").out
    assert f"FAILED: scrub {SET}: {backups[2]} is damaged" in told
    # The newest is the one before: that is what `check` goes by, and what is kept.
    assert f"ok: backup {SET}: {backups[1]}" in told
    assert pruned(server).json["sets"][0]["deleted"] == []
    # It was told once, and it is the same verdict a week later.
    assert scrubbed(server).code == 1
    events = [entry.event for entry in catalogue.read(server.store / SET).entries]
    assert events.count("verified") == 1
    good = [stored(server, -0.01 * number) for number in (1, 2)]
    later = prune.run(server.loaded(), quiet(), clock=lambda: time.time() + DAY / 2)
    assert later["sets"][0]["deleted"] == backups[1:]
    assert ids(server) == [backups[0], *good]


def test_a_disk_that_fails_once_damages_nothing(
    server: BackupServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_id = stored(server, 0)
    real = zstd.hash_file
    failures = [True]

    def hash_file(*arguments: Any) -> zstd.Digest:
        if failures and failures.pop():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    monkeypatch.setattr(zstd, "hash_file", hash_file)
    assert scrubbed(server).code == 0
    assert not failures
    assert [entry.event for entry in catalogue.read(server.store / SET).entries] == ["accepted"]
    # And one that fails twice is bad, until it is read again.
    failures += [True, True]
    result = scrubbed(server)
    assert result.code == 1
    assert f"{SET}/{backup_id}" in result.text
    assert not catalogue.read(server.store / SET).verified(backup_id)
    assert catalogue.read(server.store / SET).newest() is None
    result = scrubbed(server)
    assert result.code == 0
    assert f"withdrawn: {SET}/{backup_id}" in result.err
    assert catalogue.read(server.store / SET).verified(backup_id)


def test_a_reading_of_bytes_does_not_withdraw_what_failed_in_form(
    server: BackupServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_id = stored(server, 0)
    real = reread.verify_set

    def verify_set(*_: Any, **__: Any) -> None:
        raise reread.VerifyError("a type that nobody knows", "bytes")

    monkeypatch.setattr(reread, "verify_set", verify_set)
    assert verified(server).code == 1
    verdict = catalogue.read(server.store / SET).verdict(backup_id)
    assert verdict is not None
    assert (verdict.ok, verdict.level) == (False, "form")
    assert scrubbed(server).code == 0
    assert not catalogue.read(server.store / SET).verified(backup_id)
    monkeypatch.setattr(reread, "verify_set", real)
    assert verified(server).code == 0
    assert catalogue.read(server.store / SET).verified(backup_id)
