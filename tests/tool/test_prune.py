"""`redis-backup prune` and `check` over real stores: what goes, what a kill at any step leaves,
what is not touched, and what monitoring is told.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_backup.base.errors import ToolError
from redis_backup.base.files import locked
from redis_backup.base.output import Output
from redis_backup.commands import check
from redis_backup.config import model, reader
from redis_backup.formats import catalogue as catalogue_format
from redis_backup.formats import manifest
from redis_backup.formats.catalogue import FIRST_PREVIOUS, Entry
from redis_backup.repository import catalogue, prune, store

from tests.support.runbooks import block, is_seen
from tests.tool.backup_lab import SET, BackupServer, Result, lab, make_upload, run

DUMP = Path(__file__).parents[1] / "fixtures" / "rdb" / "redis-7.0" / "tiny.rdb"
DAY = 86400
POLICY = {"keep_last": 2, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0, "keep_minimum": 1}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BackupServer]:
    """A backup server with a policy of two backups and one set."""
    with lab(tmp_path, "redis-1", rsync=False) as made:
        made.server.write_config(retention=POLICY, max_drill_age_seconds=93600)
        (made.server.store / SET).mkdir()
        yield made.server


def store_backup(server: BackupServer, days: float, drill: str | None = None) -> str:
    """Put a backup into the store as if it had been accepted some days ago."""
    moment = time.time() - days * DAY
    backup_id = manifest.make_id(moment, "redis-1")
    directory = make_upload(server.store / SET, DUMP.read_bytes(), backup_id)
    digest = manifest.sha256((directory / "manifest.json").read_bytes())
    at = catalogue_format.timestamp(moment)
    line = Entry("accepted", backup_id, SET, at, digest, "redis-1", FIRST_PREVIOUS)
    catalogue.append(server.store / SET, line)
    if drill is not None:
        drill_id = manifest.make_id(moment + 1, "drill-1")
        catalogue.append(
            server.store / SET,
            Entry(
                "drilled",
                backup_id,
                SET,
                at,
                digest,
                "drill-1",
                FIRST_PREVIOUS,
                drill_id=drill_id,
                level="load",
                verdict=drill,
            ),
        )
    (server.receipts / SET / f"{backup_id}.json").write_text("{}")
    return backup_id


def ids(server: BackupServer) -> list[str]:
    """The directories of backups in the store."""
    return store.backup_ids(server.store / SET)


def tombstones(server: BackupServer) -> list[str]:
    """The ids with a tombstone, in order."""
    entries = catalogue.read(server.store / SET).entries
    return [entry.id for entry in entries if entry.event == "pruned"]


def pruned(server: BackupServer, *arguments: str) -> Result:
    """One run."""
    return run("--config", server.config, "--json", "prune", *arguments)


def loaded(server: BackupServer) -> model.ServerConfig:
    """The configuration as the tool reads it."""
    found = reader.load(server.config)
    assert isinstance(found, model.ServerConfig)
    return found


def verified(server: BackupServer) -> Result:
    """What `verify` says of everything."""
    return run("--config", server.config, "verify", "--all")


def test_deletes_what_nothing_keeps(server: BackupServer) -> None:
    backups = [
        store_backup(server, days, drill="passed" if days == 4 else None)
        for days in range(5, -1, -1)
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
    backups = [store_backup(server, days) for days in (2, 1, 0)]
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
    backups = [store_backup(server, days) for days in (4, 3, 2, 1, 0)]
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
                prune.run(loaded(server), Output(True, io.StringIO(), io.StringIO()))
                break
            except KilledError:
                pass
        # Between the two, runs of `accept` come and go, and nothing that is kept was touched.
        assert server.accept().code == 0
        assert set(backups[3:]) <= set(ids(server))
        assert not (server.store / ".quarantine").exists()
        again = pruned(server)
        # A line that was written half is cut off, and told.
        assert again.code == 0 or "ends in the middle of a line" in again.text
        assert ids(server) == backups[3:]
        assert tombstones(server) == backups[:3]
        assert verified(server).code == 0
    assert last_step > 15
    assert seen == {"write", "unlink", "rmdir", "fsync"}


def test_a_set_without_a_line_and_a_line_without_a_set_stay_errors(server: BackupServer) -> None:
    backups = [store_backup(server, days) for days in (5, 4, 3, 2, 1, 0)]
    shutil.rmtree(server.store / SET / backups[0])
    stranger = manifest.make_id(time.time() - 9 * DAY, "redis-1")
    make_upload(server.store / SET, DUMP.read_bytes(), stranger)
    result = pruned(server)
    assert result.code == 1
    assert sorted(result.json["problems"]) == sorted(
        [
            f"{SET}/{stranger}: is in the store but has no line in the catalogue",
            f"{SET}/{backups[0]}: has a line in the catalogue but is not in the store",
        ]
    )
    assert tombstones(server) == backups[1:4]
    assert ids(server) == [stranger, *backups[4:]]
    assert verified(server).code == 1


def test_what_was_damaged_takes_nobody_s_place(server: BackupServer) -> None:
    backups = [store_backup(server, days) for days in (4, 3, 2, 1, 0)]
    (server.store / SET / backups[4] / "manifest.json").write_text("{}")
    payload = server.store / SET / backups[3] / "dump.rdb.zst"
    payload.write_bytes(payload.read_bytes()[:-1])
    result = pruned(server)
    assert result.code == 1
    assert len(result.json["problems"]) == 2
    assert ids(server) == backups[1:]
    assert tombstones(server) == backups[:1]


def test_a_broken_catalogue_deletes_nothing(server: BackupServer) -> None:
    backups = [store_backup(server, days) for days in (4, 3, 2, 1, 0)]
    path = server.store / SET / "catalogue.jsonl"
    path.write_text(path.read_text().split("\n", 1)[1])
    result = pruned(server)
    assert result.code == 1
    assert "nothing more is deleted" in result.json["problems"][0]
    assert ids(server) == backups


@pytest.mark.parametrize(("jump", "words"), [(-10, "set back"), (10, "jumped ahead")])
def test_a_jump_of_the_clock_deletes_nothing(server: BackupServer, jump: int, words: str) -> None:
    backups = [store_backup(server, days) for days in (4, 3, 2, 1, 0)]
    output = Output(True, io.StringIO(), io.StringIO())
    result = prune.run(loaded(server), output, clock=lambda: time.time() + jump * DAY)
    assert words in result["problems"][0]
    assert result["sets"][0]["deleted"] == []
    assert ids(server) == backups


@pytest.mark.parametrize("retention", [None, {**POLICY, "keep_last": 0}])
def test_without_a_policy_nothing_is_deleted(
    server: BackupServer, retention: dict[str, int] | None
) -> None:
    server.write_config(**({} if retention is None else {"retention": retention}))
    backups = [store_backup(server, days) for days in (3, 2, 1, 0)]
    result = pruned(server)
    assert result.code == 2
    assert "nothing is deleted" in result.err
    assert ids(server) == backups


def test_waits_for_accept_but_not_for_ever(server: BackupServer) -> None:
    store_backup(server, 0)
    output = Output(True, io.StringIO(), io.StringIO())
    with (
        locked(server.store / ".lock"),
        pytest.raises(ToolError, match=r"nothing was deleted") as caught,
    ):
        prune.run(loaded(server), output, lock_timeout=0.1)
    # No run that had nothing to do: it fails where somebody sees it.
    assert caught.value.exit_code == 1
    assert is_seen("retention#locked", str(caught.value))
    prune.run(loaded(server), output, lock_timeout=0)


# --- a catalogue that lost lines ---


def history_of(server: BackupServer) -> list[str]:
    """Backups of twelve days, pruned once so that all that are left stay; the last one drilled."""
    server.write_config(
        retention={**POLICY, "keep_daily": 10}, max_drill_age_seconds=93600, share_per_day=100
    )
    backups = [store_backup(server, days) for days in range(12, 0, -1)]
    backups.append(store_backup(server, 0.1))
    assert pruned(server).code == 0
    return [backup_id for backup_id in backups if backup_id in ids(server)]


def drill_report(server: BackupServer, backup_id: str, days: float) -> str:
    """A report of a passed drill, as `accept` stores it; the id of the drill."""
    drill_id = manifest.make_id(time.time() - days * DAY, "drill-1")
    report = {"set": SET, "backup_id": backup_id, "verdict": "passed", "level": "values"}
    drills = server.store / SET / "drills"
    drills.mkdir(exist_ok=True)
    (drills / f"{drill_id}.json").write_text(json.dumps(report))
    return drill_id


def typed(server: BackupServer, reference: str) -> Result:
    """A command of a runbook, against this server."""
    words = shlex.split(block(reference))
    assert words[:5] == ["runuser", "-u", "redis-backup", "--", "redis-backup"]
    return run("--config", server.config, *words[5:])


# What is left of the lines, None for no file, and what is told.
GONE, END = "lost-catalogue#gone", "lost-catalogue#lost-end"
LOSSES: dict[str, tuple[Callable[[list[bytes]], list[bytes] | None], str]] = {
    "no file": (lambda lines: lines and None, GONE),
    "an empty file": (lambda lines: lines[:0], GONE),
    "half a line": (lambda lines: [lines[0][:40]], GONE),
    "an older copy": (lambda lines: lines[:5], END),
}


def lose(server: BackupServer, loss: str) -> bytes | None:
    """Lose lines of the catalogue; what is left, None for no file."""
    path = server.store / SET / "catalogue.jsonl"
    left = LOSSES[loss][0](path.read_bytes().splitlines(keepends=True))
    path.unlink()
    if left is None:
        return None
    path.write_bytes(b"".join(left))
    return path.read_bytes()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_catalogue_that_lost_lines_costs_no_backup(
    server: BackupServer, hasty: None, loss: str
) -> None:
    backups = history_of(server)
    reference = LOSSES[loss][1]
    path = server.store / SET / "catalogue.jsonl"
    left = lose(server, loss)
    for receipt in (server.receipts / SET).iterdir():
        os.utime(receipt, (0, 0))
    receipts = sorted(os.listdir(server.receipts / SET))
    arrived = manifest.make_id(time.time(), "redis-1")
    make_upload(server.inbox / "redis-1", DUMP.read_bytes(), arrived, fork_time=int(time.time()))
    drill = server.inbox / "drill-1" / manifest.make_id(time.time(), "drill-1")
    drill.mkdir()
    report = {"set": SET, "backup_id": backups[-1], "verdict": "passed", "level": "values"}
    (drill / "report.json").write_text(json.dumps(report))
    # Nothing is healed, accepted, judged or deleted; everybody says why.
    result = server.accept()
    assert result.code == 1
    assert is_seen(reference, result.err), result.err
    assert [result.json[key] for key in ("accepted", "rejected", "healed")] == [[], [], []]
    for arguments in (("prune",), ("check",), ("verify", "--all")):
        result = run("--config", server.config, *arguments)
        assert result.code == 1
        assert is_seen(reference, result.text), result.text
    assert ids(server) == backups
    assert (path.read_bytes() if path.exists() else None) == left
    assert sorted(os.listdir(server.receipts / SET)) == receipts
    assert os.listdir(server.inbox / "redis-1") == [arrived]
    assert os.listdir(server.inbox / "drill-1") == [drill.name]


def accepted(server: BackupServer) -> dict[str, str]:
    """When each backup of the store was accepted."""
    return {key: item.at for key, item in catalogue.read(server.store / SET).present().items()}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_catalogue_that_lost_lines_is_put_right(
    server: BackupServer, hasty: None, loss: str
) -> None:
    backups = history_of(server)
    drill_id = drill_report(server, backups[-1], 0.05)
    assert server.accept().code == 0
    before = accepted(server)
    lose(server, loss)
    rebuilt = typed(server, "lost-catalogue#rebuild")
    assert rebuilt.code == 0, rebuilt.text
    assert {key: accepted(server)[key] for key in backups} == before
    [drilled] = catalogue.read(server.store / SET).drills(backups[-1])
    assert catalogue_format.parse_timestamp(drilled.at) == manifest.id_time(drill_id)
    if loss == "an older copy":
        # It names what was pruned since.
        assert "is not in the store" in typed(server, "lost-catalogue#check").out
        moved = block("lost-catalogue#aside").replace("/var/lib/redis-backup", str(server.root))
        subprocess.run(shlex.split(moved), check=True)
        assert typed(server, "lost-catalogue#rebuild").code == 0
    result = typed(server, "lost-catalogue#check")
    assert result.code == 0, result.text
    assert accepted(server) == before
    # It deletes what it would have deleted: nothing more today.
    assert pruned(server).json["sets"][0]["deleted"] == []
    assert ids(server) == backups
    assert verified(server).code == 0


def test_a_damaged_backup_is_not_written_into_a_rebuilt_catalogue(server: BackupServer) -> None:
    backups = history_of(server)
    payload = server.store / SET / backups[3] / "dump.rdb.zst"
    payload.write_bytes(payload.read_bytes()[:-1])
    (server.store / SET / "catalogue.jsonl").unlink()
    result = typed(server, "lost-catalogue#rebuild")
    assert result.code == 1
    assert f"{SET}/{backups[3]}/dump.rdb.zst" in result.err
    assert list(accepted(server)) == [item for item in backups if item != backups[3]]


def test_a_single_backup_that_no_kill_left_is_not_healed(server: BackupServer) -> None:
    backups = [store_backup(server, days) for days in (2, 1)]
    stranger = manifest.make_id(time.time() - 9 * DAY, "redis-1")
    os.utime(make_upload(server.store / SET, DUMP.read_bytes(), stranger), (1, 1))
    result = server.accept()
    assert result.code == 1
    assert is_seen("lost-catalogue#one", result.err), result.err
    assert list(accepted(server)) == backups
    assert typed(server, "lost-catalogue#rebuild").code == 0
    assert accepted(server)[stranger] == catalogue_format.timestamp(manifest.id_time(stranger))


def test_there_is_no_such_set_to_rebuild(server: BackupServer) -> None:
    result = run("--config", server.config, "accept", "--rebuild", "../other")
    assert (result.code, "is no set in" in result.err) == (2, True)


# --- check ---


def checked(server: BackupServer) -> tuple[int, dict[str, str]]:
    """Exit code, and what is wrong by check."""
    result = run("--config", server.config, "--json", "check")
    found = {item["check"]: item for item in result.json["checks"]}
    assert set(found) == {"catalogue", "backup", "drill", "disk"}
    wrong = {name: item["message"] for name, item in found.items() if not item["ok"]}
    assert result.json["ok"] == (not wrong) == (result.code == 0)
    return result.code, wrong


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait before the second look."""
    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_check_is_content(server: BackupServer) -> None:
    backup_id = store_backup(server, 0.5, drill="passed")
    assert checked(server) == (0, {})
    lines = run("--config", server.config, "check").out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["ok"] * 4
    assert re.fullmatch(
        rf"ok: backup {SET}: {backup_id}: accepted 12 h ago, data [0-9]+ h old", lines[1]
    )


def test_check_without_any_backup(server: BackupServer) -> None:
    shutil.rmtree(server.store / SET)
    code, wrong = checked(server)
    assert (code, wrong) == (1, {"backup": "there is none yet", "drill": "there was none yet"})
    assert is_seen("backup-is-late#none", run("--config", server.config, "check").out)


def test_check_late(server: BackupServer) -> None:
    backup_id = store_backup(server, 1.5, drill="passed")
    code, wrong = checked(server)
    assert code == 1
    assert wrong["backup"] == f"{backup_id}: accepted 36.0 h ago, 26.0 h are allowed"
    assert "36.0 h ago, 26.0 h are allowed" in wrong["drill"]
    server.write_config(max_backup_age_seconds=2 * DAY, max_drill_age_seconds=2 * DAY)
    assert checked(server) == (0, {})


def test_check_backup_from_the_future(server: BackupServer) -> None:
    store_backup(server, -1, drill="passed")
    code, wrong = checked(server)
    assert code == 1
    assert "the clock was set back" in wrong["backup"].replace("this server's clock", "the clock")


def test_check_failed_drills(server: BackupServer) -> None:
    store_backup(server, 0.2, drill="passed")
    newest = store_backup(server, 0.1, drill="failed")
    code, wrong = checked(server)
    assert (code, list(wrong)) == (1, ["drill"])
    assert f"of {newest}, failed" in wrong["drill"]


def test_check_an_older_backup_that_is_proven_makes_the_newest_no_better(
    server: BackupServer,
) -> None:
    older = store_backup(server, 0.2)
    newest = store_backup(server, 0.1, drill="failed")
    drill_id = manifest.make_id(time.time(), "drill-1")
    proven = catalogue_format.Entry(
        event="drilled",
        id=older,
        set=SET,
        at=catalogue_format.timestamp(time.time()),
        manifest_sha256=next(
            entry.manifest_sha256
            for entry in catalogue.read(server.store / SET).entries
            if entry.id == older
        ),
        host="drill-1",
        previous="",
        drill_id=drill_id,
        level="values",
        verdict="passed",
    )
    catalogue.append(server.store / SET, proven)
    code, wrong = checked(server)
    assert (code, list(wrong)) == (1, ["drill"])
    assert wrong["drill"].startswith("the last one of the newest backup, ")
    assert f"of {newest}, failed" in wrong["drill"]


def test_check_a_drill_that_could_not_run(server: BackupServer) -> None:
    store_backup(server, 0.2, drill="passed")
    drills = server.store / SET / "drills"
    drills.mkdir()
    report = drills / f"{manifest.make_id(time.time(), 'drill-1')}.json"
    report.write_text(json.dumps({"verdict": "failed", "reason": "the store cannot be reached"}))
    code, wrong = checked(server)
    assert (code, list(wrong)) == (1, ["drill"])
    assert wrong["drill"].endswith("failed: the store cannot be reached")


def test_check_the_store(server: BackupServer, hasty: None) -> None:
    backup_id = store_backup(server, 0.2, drill="passed")
    (server.store / SET / backup_id / "dump.rdb.zst").unlink()
    assert list(checked(server)[1]) == ["backup"]
    shutil.rmtree(server.store / SET / backup_id)
    assert "is not in the store" in checked(server)[1]["catalogue"]


def test_check_a_broken_chain(server: BackupServer, hasty: None) -> None:
    for days in (0.2, 0.1):
        store_backup(server, days)
    path = server.store / SET / "catalogue.jsonl"
    path.write_text(path.read_text().split("\n", 1)[1])
    result = run("--config", server.config, "check")
    assert result.code == 1
    assert f"FAILED: catalogue {SET}: {SET}/catalogue.jsonl line 1: does not carry" in result.out


def test_check_does_not_cry_over_an_accept_at_work(
    server: BackupServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory is in the store a moment before its line is."""
    store_backup(server, 0.1, drill="passed")
    arriving = manifest.make_id(time.time(), "redis-1")
    directory = make_upload(server.store / SET, DUMP.read_bytes(), arriving)

    def accepted_meanwhile(_: float) -> None:
        digest = manifest.sha256((directory / "manifest.json").read_bytes())
        at = catalogue_format.timestamp(time.time())
        catalogue.append(
            server.store / SET,
            Entry("accepted", arriving, SET, at, digest, "redis-1", FIRST_PREVIOUS),
        )

    monkeypatch.setattr(time, "sleep", accepted_meanwhile)
    assert checked(server) == (0, {})


def test_check_a_full_disk(server: BackupServer, monkeypatch: pytest.MonkeyPatch) -> None:
    backup_id = store_backup(server, 0.1, drill="passed")
    size = (server.store / SET / backup_id / "dump.rdb.zst").stat().st_size
    for free, wrong in ((1024 + 3 * size, []), (1023 + 3 * size, ["disk"])):
        monkeypatch.setattr(check, "free_bytes", lambda _, free=free: free)
        assert list(checked(server)[1]) == wrong


def test_check_expects_nothing_of_a_set_whose_hosts_left(server: BackupServer) -> None:
    store_backup(server, 100)
    (server.root / "uploaders.d" / "redis-1.json").unlink()
    result = run("--config", server.config, "check")
    assert (result.code, len(result.out.splitlines())) == (0, 2), result.text
