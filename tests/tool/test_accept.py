"""`redis-backup accept`: what a host may have sent, good, broken or hostile, and what a kill
leaves.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis_backup.base import files
from redis_backup.base.errors import ToolError
from redis_backup.base.output import Output
from redis_backup.formats import agreement
from redis_backup.formats import catalogue as catalogue_format
from redis_backup.formats import identity as identity_format
from redis_backup.formats.catalogue import Entry
from redis_backup.repository import accept, catalogue, ledger, limits, reread, store
from redis_backup.repository import identity as identity_module
from redis_backup.repository.ledger import Ledger

from tests.support.rdb_builder import length, resealed, string
from tests.support.runbooks import is_seen
from tests.tool.backup_lab import (
    SET,
    BackupServer,
    Result,
    id_now,
    lab,
    make_upload,
    refusal,
    run,
    run_process,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BackupServer]:
    """A backup server that nobody kicks."""
    with lab(tmp_path, "redis-1", "redis-2", rsync=False) as made:
        yield made.server


def ascii_start(text: str) -> str:
    """A name for a parameter that may be long or odd."""
    return ascii(text[:5])


def with_aux(dump: bytes, fields: dict[str, str]) -> bytes:
    """A dump with more AUX fields behind its header, its checksum right again."""
    more = b"".join(
        b"\xfa" + string(name.encode()) + string(value.encode()) for name, value in fields.items()
    )
    return resealed(dump[:9] + more + dump[9:])


def forked_later(dump: bytes, seconds: int) -> bytes:
    """The same dump, forked so much later."""
    at = dump.index(b"\x05ctime\xc2") + 7
    moment = int.from_bytes(dump[at : at + 4], "little") + seconds
    return resealed(dump[:at] + moment.to_bytes(4, "little") + dump[at + 4 :])


def inbox(server: BackupServer, host: str = "redis-1") -> Path:
    """A host's inbox."""
    return server.inbox / host


def ids(server: BackupServer) -> list[str]:
    """What is in the store."""
    directory = server.store / SET
    return store.backup_ids(directory) if directory.is_dir() else []


def lines(server: BackupServer) -> list[tuple[str, str]]:
    """Events and ids of the catalogue."""
    return [(entry.event, entry.id) for entry in catalogue.read(server.store / SET).entries]


def rejected(server: BackupServer, result: Result, backup_id: str, *words: str) -> None:
    """Exactly this upload was rejected, its host is told why, and nothing of it is left."""
    assert result.code == 0, result.text
    [entry] = result.json["rejected"]
    assert entry["id"] == backup_id
    for word in words:
        assert word in entry["reason"]
    assert result.json["accepted"] == []
    assert ids(server) == []
    assert list(inbox(server).iterdir()) == []
    assert list((server.store / ".incoming").iterdir()) == []
    receipt = server.receipt(backup_id)
    assert receipt["status"] == "rejected"
    assert receipt["reason"] == entry["reason"]


def test_a_good_upload(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)
    result = server.accept()
    assert result.code == 0, result.text
    assert result.json["accepted"] == [f"{SET}/{backup_id}"]
    assert ids(server) == [backup_id]
    assert lines(server) == [("accepted", backup_id)]
    receipt = server.receipt(backup_id)
    assert receipt["status"] == "accepted"
    [line] = catalogue.read(server.store / SET).entries
    assert receipt["event"]["at"] == line.at
    assert receipt["repository"] == identity_module.require(server.loaded())
    # What hosts read is a copy of what lies beside the backup.
    beside = server.store / SET / backup_id / "receipt.json"
    assert json.loads(beside.read_bytes()) == receipt
    assert list(inbox(server).iterdir()) == []
    quiet = run("--config", server.config, "accept")
    assert (quiet.code, quiet.text) == (0, "")


def test_copies_and_never_keeps_the_sender_s_inode(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    upload = make_upload(inbox(server), dump, backup_id)
    # The sender still has the file open when it is accepted.
    with (upload / "dump.rdb.zst").open("r+b") as sender:
        assert server.accept().json["accepted"] == [f"{SET}/{backup_id}"]
        sender.seek(0)
        sender.write(b"overwritten")
    assert run("--config", server.config, "verify").code == 0


def test_a_corrupted_payload(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    payload = make_upload(inbox(server), dump, backup_id) / "dump.rdb.zst"
    raw = bytearray(payload.read_bytes())
    raw[len(raw) // 2] ^= 1
    payload.write_bytes(raw)
    rejected(
        server, server.accept(), backup_id, f"{SET}/{backup_id}/dump.rdb.zst", "sha256", "manifest"
    )


@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_payload_of_another_size(server: BackupServer, dump: bytes, change: bytes) -> None:
    backup_id = id_now("redis-1")
    payload = make_upload(inbox(server), dump, backup_id) / "dump.rdb.zst"
    payload.write_bytes(payload.read_bytes() + change if change else payload.read_bytes()[:-1])
    words = ("more than the announced",) if change else ("arrived as",)
    rejected(server, server.accept(), backup_id, *words)


def test_a_malformed_rdb_under_right_hashes(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    upload = make_upload(inbox(server), dump, backup_id)
    damaged = bytearray(dump)
    damaged[len(damaged) // 2] ^= 1
    repack(upload, bytes(damaged))
    rejected(server, server.accept(), backup_id, f"{SET}/{backup_id}/dump.rdb.zst")


def test_more_than_announced_when_decompressed(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    upload = make_upload(inbox(server), dump, backup_id)
    repack(upload, dump + bytes(50_000_000), size=len(dump))
    rejected(server, server.accept(), backup_id, f"more than the announced {len(dump)} bytes")


def test_a_size_that_no_dump_has(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    upload = make_upload(inbox(server), dump, backup_id)
    repack(upload, dump, size=2**40)
    rejected(server, server.accept(), backup_id, str(2**40), "no dump is so well compressed")


@pytest.mark.parametrize("offset", ["²", "٣", "9" * 5000, "-1", "1_0"], ids=ascii_start)
def test_a_position_that_no_server_writes_stops_nobody(
    server: BackupServer, dump: bytes, offset: str
) -> None:
    odd, good = id_now("redis-1"), id_now("redis-2")
    upload = make_upload(inbox(server), dump, odd, repl_id="a" * 40, repl_offset=1)
    repack(upload, with_aux(dump, {"repl-id": "a" * 40, "repl-offset": offset}))
    make_upload(inbox(server, "redis-2"), dump, good)
    result = server.accept()
    assert result.code == 0, result.text
    assert "replication position is (None, None)" in result.json["rejected"][0]["reason"]
    assert result.json["accepted"] == [f"{SET}/{good}"]


def test_a_string_that_no_memory_holds_is_refused(server: BackupServer, dump: bytes) -> None:
    """A few bytes can promise 132 MB, or more than the unit's LimitAS leaves."""
    runs = 500_000
    packed = b"\x00x" + b"\xe0\xff\x00" * runs
    value = b"\xc3" + length(len(packed)) + length(1 + 264 * runs) + packed
    head = dump[: dump.index(b"\xfe\x00\xfb")]
    keys = b"\xfe\x00\xfb\x01\x00\x00" + string(b"key") + value
    backup_id = id_now("redis-1")
    upload = make_upload(inbox(server), resealed(head + keys + dump[-9:]), backup_id)
    assert (upload / "dump.rdb.zst").stat().st_size < 2000
    command = ("--config", server.config, "--json", "accept")
    result = run_process(*command, prefix=["prlimit", f"--as={128 << 20}"])
    rejected(server, result, backup_id, "a string that this process has no memory for")


def test_a_fault_of_the_tool_stops_one_upload_only(
    server: BackupServer, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, good = id_now("redis-1"), id_now("redis-2")
    make_upload(inbox(server), dump, odd)
    make_upload(inbox(server, "redis-2"), dump, good)
    real = agreement.compare

    def odd_one_out(info: Any, claim: Any) -> str | None:
        if claim.id == odd:
            raise KeyError("nobody thought of this")
        return real(info, claim)

    with monkeypatch.context() as patch:
        patch.setattr(reread, "compare", odd_one_out)
        result = server.accept()
    assert result.code == 1
    [problem] = result.json["problems"]
    assert problem == f"redis-1/{odd}: not accepted: KeyError: 'nobody thought of this'"
    assert result.json["accepted"] == [f"{SET}/{good}"]
    # The upload stays: the tool that comes next may know better.
    assert os.listdir(inbox(server)) == [odd]
    assert server.accept().json["accepted"] == [f"{SET}/{odd}"]


def test_counts_that_lie(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    counts = {"0": {"keys": 303, "expires": 100}, "5": {"keys": 1, "expires": 0}}
    make_upload(inbox(server), dump, backup_id, databases=counts)
    rejected(server, server.accept(), backup_id, "db0 has 304 keys", "manifest says 303")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"schema": 1}, "schema 1 is not known, only 2"),
        ({"set": "other"}, "is about other/"),
        ({"requires": ["new-thing"]}, "requires what this tool does not know (new-thing)"),
        ({"fork_time": 1_500_000_000}, "more than a day off"),
        ({"files": []}, "exactly one file"),
        ({"rdb": {"magic": "REDIS", "version": 9}}, "version"),
        ({"host": "redis-2"}, "not one of host"),
    ],
)
def test_manifests_that_lie(
    server: BackupServer, dump: bytes, changes: dict[str, Any], word: str
) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id, **changes)
    rejected(server, server.accept(), backup_id, word)


def test_an_id_of_another_day(server: BackupServer, dump: bytes) -> None:
    for offset in (-2 * 86400, 2 * 86400):
        backup_id = id_now("redis-1", offset)
        make_upload(inbox(server), dump, backup_id)
        rejected(server, server.accept(), backup_id, "more than a day off")


def test_what_waited_for_long_is_accepted_and_is_not_the_newest(
    server: BackupServer, dump: bytes
) -> None:
    """The server was down, or its store full: ids and times are held against the arrival."""
    waited, newer = id_now("redis-1"), id_now("redis-2", 60)
    make_upload(inbox(server), dump, waited)
    make_upload(inbox(server, "redis-2"), forked_later(dump, 60), newer)
    # In a run that is more than a day late, as the others: by the server's clock.
    (inbox(server) / waited).rename(server.root / waited)
    assert acceptor(server, clock=lambda: time.time() + 3600).run().accepted == [f"{SET}/{newer}"]
    (server.root / waited).rename(inbox(server) / waited)
    late = acceptor(server, clock=lambda: time.time() + 30 * 3600).run()
    assert (late.accepted, late.rejected) == ([f"{SET}/{waited}"], [])
    known = catalogue.read(server.store / SET)
    newest = known.newest()
    assert newest is not None
    assert (list(known.present()), newest.id) == ([newer, waited], newer)
    assert known.present()[waited].at > known.present()[newer].at


def test_an_id_of_another_host_gets_no_receipt(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-2")
    make_upload(inbox(server), dump, backup_id)
    result = server.accept()
    assert "not one of redis-1" in result.json["rejected"][0]["reason"]
    assert ids(server) == []
    assert list((server.receipts / SET).iterdir()) == []
    # The host that it belongs to is not hindered.
    make_upload(inbox(server, "redis-2"), dump, backup_id)
    assert server.accept().json["accepted"] == [f"{SET}/{backup_id}"]


def test_a_replayed_id(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)
    server.accept()
    before = snapshot_of(server.store / SET)
    receipt = server.receipt(backup_id)
    for changes in ({}, {"tool_version": "another"}):
        make_upload(inbox(server), dump, backup_id, **changes)
        result = server.accept()
        assert result.code == 0
        assert result.json["accepted"] == []
        assert len(result.json["rejected"]) == len(changes)
        assert snapshot_of(server.store / SET) == before
        assert server.receipt(backup_id) == receipt
        assert list(inbox(server).iterdir()) == []


def test_links_in_the_inbox(server: BackupServer, dump: bytes, tmp_path: Path) -> None:
    elsewhere = make_upload(tmp_path / "elsewhere", dump, id_now("redis-1"))
    inbox(server).joinpath(elsewhere.name).symlink_to(elsewhere)
    rejected(server, server.accept(), elsewhere.name, "is not a directory")
    assert sorted(os.listdir(elsewhere)) == ["dump.rdb.zst", "manifest.json"]

    for age, name in ((60, "dump.rdb.zst"), (120, "manifest.json")):
        backup_id = id_now("redis-1", -age)
        upload = make_upload(inbox(server), dump, backup_id)
        (upload / name).unlink()
        (upload / name).symlink_to(elsewhere / name)
        rejected(server, server.accept(), backup_id, name, "not a regular file")
        assert (elsewhere / name).exists()


def test_pipes_and_directories_in_the_place_of_files(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    upload = make_upload(inbox(server), dump, backup_id)
    (upload / "dump.rdb.zst").unlink()
    os.mkfifo(upload / "dump.rdb.zst")
    rejected(server, server.accept(), backup_id, "dump.rdb.zst: is not a regular file")
    backup_id = id_now("redis-1", -60)
    upload = make_upload(inbox(server), dump, backup_id)
    (upload / "manifest.json").unlink()
    (upload / "manifest.json" / "deep" / "down").mkdir(parents=True)
    rejected(server, server.accept(), backup_id, "manifest.json: is not a regular file")


def test_other_names_in_an_upload(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    upload = make_upload(inbox(server), dump, backup_id)
    (upload / "more\x1b[31m").write_text("x")
    rejected(server, server.accept(), backup_id, "exactly dump.rdb.zst and manifest.json")


def test_names_that_are_no_ids(server: BackupServer) -> None:
    for name in (".hidden", "-rf", "20260101T000000Z", "drills", "20261399T000000Z-redis-1"):
        (inbox(server) / name).mkdir()
    (inbox(server) / "file").write_text("x")
    server.accept()
    # A directory with the form of an id may still be arriving.
    assert os.listdir(inbox(server)) == ["20261399T000000Z-redis-1"]


def test_a_tree_too_deep_to_walk_is_removed(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    inner = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=inner)
        following = os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner = following
    os.close(inner)
    files.remove_entry(descriptor, "d")
    os.close(descriptor)
    assert os.listdir(tmp_path) == []


def test_incomplete_uploads_stay_until_they_are_old(server: BackupServer, dump: bytes) -> None:
    first, second = id_now("redis-1"), id_now("redis-1", -1)
    (make_upload(inbox(server), dump, first) / "manifest.json").unlink()
    # rsync's name of a file that is still arriving.
    (inbox(server) / second).mkdir()
    (inbox(server) / second / ".manifest.json.Ab3dE9").write_text("{")
    assert server.accept().json == {
        "accepted": [],
        "rejected": [],
        "deferred": [],
        "drills": [],
        "finished": [],
        "problems": [],
    }
    assert sorted(os.listdir(inbox(server))) == sorted((first, second))
    acceptor(server, clock=lambda: time.time() + 86401).run()
    assert os.listdir(inbox(server)) == []


def test_what_a_killed_transfer_left_does_not_hold_the_next_one_up(
    server: BackupServer, dump: bytes
) -> None:
    backup_id, drill_id = id_now("redis-1"), id_now("drill-1")
    upload = make_upload(inbox(server), dump, backup_id)
    (upload / ".dump.rdb.zst.AbC123").write_bytes(b"half of it")
    assert server.accept().json["accepted"] == [f"{SET}/{backup_id}"]
    assert os.listdir(inbox(server)) == []
    assert sorted(os.listdir(server.store / SET / backup_id)) == [
        "dump.rdb.zst",
        "manifest.json",
        "receipt.json",
    ]
    send_report(server, drill_id, a_report(backup_id=backup_id))
    (inbox(server, "drill-1") / drill_id / ".report.json.AbC123").write_text("{")
    assert server.accept().json["drills"] == [f"{SET}/drills/{drill_id}"]
    assert os.listdir(inbox(server, "drill-1")) == []


def test_rejections_count_against_the_day(server: BackupServer, dump: bytes) -> None:
    server.write_config(uploads_per_day=2)
    good = id_now("redis-2")
    make_upload(inbox(server, "redis-2"), dump, good)
    sent = [id_now("redis-1", number - 10) for number in range(6)]
    for backup_id in sent:
        make_upload(inbox(server), dump, backup_id, files=[])
    result = server.accept()
    assert result.code == 1
    assert "redis-1: 4 uploads within a day" in result.json["problems"][0]
    reasons = [entry["reason"] for entry in result.json["rejected"]]
    assert ["exactly one file" in reason for reason in reasons] == [True, True, False, False]
    assert ["the limit is 2" in reason for reason in reasons] == [False, False, True, True]
    # The rest is not even looked at; other hosts go on.
    assert sorted(os.listdir(inbox(server))) == sent[4:]
    assert result.json["accepted"] == [f"{SET}/{good}"]
    assert server.accept().json["rejected"] == []
    later = acceptor(server, clock=lambda: time.time() + 86401)
    assert [entry["id"] for entry in later.run().rejected] == sent[4:]


def test_zeros_may_be_compressed_as_far_as_they_go(server: BackupServer, dump: bytes) -> None:
    """A dump full of empty bitmaps: more than a thousand-fold is no reason to refuse it."""
    backup_id = id_now("redis-1")
    keys = b"\xfe\x00\xfb\x01\x00\x00" + string(b"bitmap") + b"\x80" + bytes.fromhex("02625a00")
    bare = dump[:9] + keys + bytes(40_000_000) + b"\xff" + bytes(8)
    sparse = with_aux(bare, {"redis-ver": "7.0.15", "ctime": str(int(time.time()))})
    upload = make_upload(inbox(server), sparse, backup_id)
    [file] = json.loads((upload / "manifest.json").read_text())["files"]
    assert file["size"] > 1000 * file["stored_size"]
    assert server.accept().json["accepted"] == [f"{SET}/{backup_id}"]


def test_one_host_cannot_have_the_room_of_all(
    server: BackupServer, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, other = id_now("redis-1", -1), id_now("redis-1"), id_now("redis-2")
    size = (make_upload(inbox(server), dump, first) / "dump.rdb.zst").stat().st_size
    # Two of them are more than half of this store.
    monkeypatch.setattr(limits, "total_bytes", lambda _: 4 * size - 1)
    assert server.accept().json["accepted"] == [f"{SET}/{first}"]
    make_upload(inbox(server), dump, second)
    make_upload(inbox(server, "redis-2"), dump, other)
    result = server.accept()
    assert result.json["accepted"] == [f"{SET}/{other}"]
    [entry] = result.json["rejected"]
    assert "accepted within a day" in entry["reason"]
    assert "over 50 % of the store" in entry["reason"]
    # What is no longer there takes no room.
    monkeypatch.setattr(limits, "total_bytes", lambda _: 4 * size)
    make_upload(inbox(server), dump, id_now("redis-1", 1))
    assert len(server.accept().json["accepted"]) == 1


def test_a_flood_of_names_is_no_flood_of_lines(server: BackupServer, dump: bytes) -> None:
    for number in range(500):
        (inbox(server) / f"x{number}").write_text("")
    good = id_now("redis-1")
    make_upload(inbox(server), dump, good)
    result = server.accept()
    assert result.json["accepted"] == [f"{SET}/{good}"]
    assert len(result.json["rejected"]) == 20
    assert "rejected: redis-1: 179 more, not shown" in result.err
    assert is_seen("host-taken-over#flood", result.err), result.err
    assert result.code == 1
    assert len(result.err.splitlines()) < 30
    # So many a run; the last of them finds nothing to say.
    assert [server.accept().code for _ in range(2)] == [1, 0]
    assert os.listdir(inbox(server)) == []


def test_names_that_come_as_fast_as_they_are_refused_hold_nobody_up(
    server: BackupServer, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.write_config(uploads_per_day=10)
    (inbox(server) / "x").write_text("")
    good = id_now("redis-2")
    make_upload(inbox(server, "redis-2"), dump, good)
    calls = {"removed": 0, "read": 0}
    remove, read = files.remove_entry, catalogue.read

    def another(directory: int, name: str) -> None:
        remove(directory, name)
        if name.startswith("x"):
            (inbox(server) / f"x{calls['removed']}").write_text("")
            calls["removed"] += 1
            if calls["removed"] > 1000:
                raise KilledError

    def counted(set_dir: Path) -> catalogue_format.Catalogue:
        calls["read"] += 1
        return read(set_dir)

    monkeypatch.setattr(accept, "remove_entry", another)
    monkeypatch.setattr(catalogue, "read", counted)
    result = acceptor(server).run()
    assert result.accepted == [f"{SET}/{good}"]
    assert calls["removed"] == 20
    # They cost no reading of the catalogue either.
    assert calls["read"] < 10
    [problem] = result.problems
    assert problem.startswith("redis-1: 20 entries of its inbox in one run")


def test_what_root_has_at_the_top_of_a_file_system_is_no_upload(
    server: BackupServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox(server) / "lost+found").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 4711)
        assert acceptor(server).run().rejected == []
    assert os.listdir(inbox(server)) == ["lost+found"]
    # One that the host made is.
    assert len(server.accept().json["rejected"]) == 1
    assert os.listdir(inbox(server)) == []


def test_reports_of_a_day_are_counted(server: BackupServer) -> None:
    server.write_config(uploads_per_day=3)
    for number in range(4):
        send_report(server, id_now("drill-1", number), a_report())
    result = server.accept()
    assert len(result.json["drills"]) == 3
    assert "reported 3 drills of redis within a day" in result.json["rejected"][0]["reason"]


def test_an_id_that_was_rejected_is_not_verified_again(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id, files=[])
    rejected(server, server.accept(), backup_id, "exactly one file")
    before = server.receipt(backup_id)
    make_upload(inbox(server), dump, backup_id)
    result = server.accept()
    assert "rejected before" in result.json["rejected"][0]["reason"]
    assert server.receipt(backup_id) == before
    assert os.listdir(inbox(server)) == []


def test_no_room_keeps_the_upload(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)
    server.write_config(disk_reserve_bytes=2**60)
    result = server.accept()
    assert result.code == 1
    assert "make room" in result.json["problems"][0]
    assert os.listdir(inbox(server)) == [backup_id]
    server.write_config()
    assert server.accept().json["accepted"] == [f"{SET}/{backup_id}"]


def test_a_broken_catalogue_accepts_nothing_more(server: BackupServer, dump: bytes) -> None:
    for offset in (-2, -1):
        make_upload(inbox(server), dump, id_now("redis-1", offset))
    assert len(server.accept().json["accepted"]) == 2
    path = server.store / SET / "catalogue.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[1])
    make_upload(inbox(server), dump, id_now("redis-1"))
    result = server.accept()
    assert result.code == 1
    assert "catalogue.jsonl line 1" in result.json["problems"][0]
    assert len(os.listdir(inbox(server))) == 1


class KilledError(BaseException):
    """The process ends here."""


KILLED_AT = {
    "begun": (accept.Acceptor, "_examine"),
    "examined": (accept.Acceptor, "_conclude"),
    "receipt": (ledger, "write_durably"),
    "rename": (Path, "rename"),
    "line": (catalogue, "append"),
    "publish": (Ledger, "publish"),
    "removal": (accept, "remove_entry"),
}


@pytest.mark.parametrize("point", KILLED_AT)
def test_killed_at(
    server: BackupServer, dump: bytes, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)

    def kill(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        # Before each of the steps; what a killed process would leave must stay.
        patch.setattr(accept, "remove_tree", lambda _: None)
        patch.setattr(*KILLED_AT[point], kill)
        with pytest.raises(KilledError):
            acceptor(server).run()
    assert server.accept().code == 0
    assert ids(server) == [backup_id]
    assert lines(server) == [("accepted", backup_id)]
    assert server.receipt(backup_id)["status"] == "accepted"
    assert os.listdir(inbox(server)) == []
    assert os.listdir(server.store / ".incoming") == []
    assert run("--config", server.config, "verify").code == 0


def test_killed_again_and_again(
    server: BackupServer, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run ends before its line, and the host takes the upload away meanwhile."""
    sent = []
    for number, host in enumerate(("redis-2", "redis-1", "redis-1")):
        sent.append(id_now(host, number - 3))
        make_upload(inbox(server, host), dump, sent[-1])
        with monkeypatch.context() as patch:

            def kill(*_: Any) -> None:
                raise KilledError

            patch.setattr(Ledger, "_append", kill)
            with pytest.raises(KilledError):
                acceptor(server).run()
        assert ids(server) == sorted(sent, key=lambda item: item[:16])
        shutil.rmtree(inbox(server, host) / sent[-1])
    result = server.accept()
    assert (result.code, result.json["finished"]) == (0, [f"{SET}/{sent[-1]}"])
    assert lines(server) == [("accepted", backup_id) for backup_id in sent]
    # The receipts for the hosts are not forgotten either.
    assert [server.receipt(backup_id)["status"] for backup_id in sent] == ["accepted"] * 3


def test_in_the_store_without_a_receipt_counts_for_nothing(
    server: BackupServer, dump: bytes
) -> None:
    """Somebody else put it there: nothing is guessed, and nobody's upload waits for it."""
    strange, good = id_now("redis-1"), id_now("redis-2")
    make_upload(server.store / SET, dump, strange)
    make_upload(inbox(server, "redis-2"), dump, good)
    result = server.accept()
    assert (result.code, result.json["accepted"]) == (0, [f"{SET}/{good}"])
    assert lines(server) == [("accepted", good)]
    assert "has no receipt" in run("--config", server.config, "verify").out
    assert sorted(os.listdir(server.store / SET / strange)) == ["dump.rdb.zst", "manifest.json"]


def test_our_own_directory_that_is_gone_is_a_problem(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)
    shutil.rmtree(server.receipts)
    result = server.accept()
    assert result.code == 1
    assert any(f"redis-1/{backup_id}: not accepted" in text for text in result.json["problems"])
    assert os.listdir(inbox(server)) == [backup_id]


def test_a_receipt_that_was_lost_is_given_again(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)
    server.accept()
    path = server.receipts / SET / f"{backup_id}.json"
    before = path.read_bytes()
    path.unlink()
    assert server.accept().code == 0
    assert path.read_bytes() == before


def test_a_long_line_that_was_cut_leaves_nothing_behind(server: BackupServer, dump: bytes) -> None:
    first, second = id_now("redis-1", -1), id_now("redis-1")
    make_upload(inbox(server), dump, first)
    server.accept()
    with (server.store / SET / "catalogue.jsonl").open("ab") as file:
        file.write(b"x" * 2000)
    make_upload(inbox(server), dump, second)
    assert server.accept().code == 0
    assert not catalogue.read(server.store / SET).torn
    assert lines(server) == [("accepted", first), ("accepted", second)]


def test_a_line_whose_writer_was_killed_is_written_again(server: BackupServer, dump: bytes) -> None:
    first, second = id_now("redis-1", -1), id_now("redis-1")
    make_upload(inbox(server), dump, first)
    server.accept()
    make_upload(inbox(server), dump, second)
    server.accept()
    path = server.store / SET / "catalogue.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert server.accept().json["finished"] == [f"{SET}/{second}"]
    assert lines(server) == [("accepted", first), ("accepted", second)]
    assert run("--config", server.config, "verify").code == 0


def test_told_to_stop_in_the_middle(
    server: BackupServer, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offset in (-1, 0):
        make_upload(inbox(server), dump, id_now("redis-1", offset))
    real = accept.Acceptor._conclude

    def told(self: accept.Acceptor, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(accept.Acceptor, "_conclude", told)
        result = run("--config", server.config, "accept")
    assert result.code == 1
    assert result.err == "redis-backup: stopped by SIGTERM\n"
    assert len(os.listdir(inbox(server))) == 2
    assert os.listdir(server.store / ".incoming") == []
    assert len(server.accept().json["accepted"]) == 2


def test_what_ends_while_another_run_is_at_work_is_left_to_the_timer(
    server: BackupServer, dump: bytes
) -> None:
    late = id_now("redis-1")
    make_upload(inbox(server), dump, late)
    with files.locked(server.store / accept.ACCEPTING_NAME):
        refused = server.accept()
    assert refused.code == 75
    assert "another run is at work" in refused.err
    assert sorted(os.listdir(server.store)) == [".accepting", "repository.json"]
    assert os.listdir(inbox(server)) == [late]
    assert server.accept().json["accepted"] == [f"{SET}/{late}"]


def test_receipts_of_what_is_gone_are_dropped_in_time(server: BackupServer, dump: bytes) -> None:
    gone, backup_id = id_now("redis-1", -1), id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)
    server.accept()
    make_upload(inbox(server), dump, gone, files=[])
    assert len(server.accept().json["rejected"]) == 1
    later = acceptor(server, clock=lambda: time.time() + 13 * 86400)
    later.run()
    assert len(list((server.receipts / SET).iterdir())) == 2
    acceptor(server, clock=lambda: time.time() + 15 * 86400).run()
    assert [path.name for path in (server.receipts / SET).iterdir()] == [f"{backup_id}.json"]


def test_reports_of_drills(server: BackupServer, dump: bytes) -> None:
    backup_id, drill_id = id_now("redis-1"), id_now("drill-1")
    make_upload(inbox(server), dump, backup_id)
    server.accept()
    report = {
        **a_report(backup_id=backup_id, verdict="passed", level="load"),
        "databases": {"restored": {"0": {"keys": 3, "expires": 1}, "\x1b[2J": {"keys": 4}}},
        "rpo_seconds": 5.2,
        "rto_seconds": {"fetch": 0.5, "\x1b[2J": 1},
    }

    def send(identity: str, data: Any) -> Result:
        send_report(server, identity, data)
        result = server.accept()
        assert result.code == 0, result.text
        assert list(inbox(server, "drill-1").iterdir()) == []
        return result

    assert send(drill_id, report).json["drills"] == [f"{SET}/drills/{drill_id}"]
    assert lines(server) == [("accepted", backup_id), ("drilled", backup_id)]
    stored = server.store / SET / "drills" / drill_id
    assert json.loads((stored / "report.json").read_text()) == report
    assert server.report_receipt(drill_id) == json.loads((stored / "receipt.json").read_text())
    shown = run("--config", server.config, "show", f"{SET}/{backup_id}", "--json").json
    assert [drill["verdict"] for drill in shown["drills"]] == ["passed"]
    assert shown["drills"][0]["drill_id"] == drill_id
    assert shown["drills"][0]["report"] == report
    text = run("--config", server.config, "show", backup_id).out
    for row in ("restored db0  keys=3,expires=1", "RPO", "5 s from", "RTO", "fetch 0.50 s"):
        assert row in text
    assert "\x1b" not in text
    assert "passed (load)" in run("--config", server.config, "list").out

    # What another host wrote may be any number.
    odd = {
        **report,
        "databases": {"restored": {"0": {"keys": 10**400, "expires": 0}, "²": {"keys": 1}}},
        "rpo_seconds": 10**400,
        "rto_seconds": {"fetch": -(10**400), "load": 1.5},
    }
    raw = json.dumps(odd).replace("1.5", "1e999")
    assert send(id_now("drill-1", 1), raw).json["drills"] != []
    seen = run("--config", server.config, "show", backup_id)
    assert seen.code == 0, seen.text
    assert "restored" not in seen.out
    assert "RPO" not in seen.out
    assert "RTO" not in seen.out

    for identity, data, word in (
        (drill_id, {**report, "more": 1}, "reported before, with other content"),
        (id_now("drill-1", 3), {**report, "backup_id": id_now("redis-2")}, "never accepted"),
        (id_now("drill-1", 3), {**report, "set": "../x"}, '"set" has a form'),
        (id_now("drill-1", 3), {**report, "set": "unknown"}, "no host here"),
        (id_now("drill-1", 3), {**report, "verdict": "a\nb"}, "verdict"),
        (id_now("redis-1", 3), report, "not one of drill-1"),
        (id_now("drill-1", 3), [], "JSON object"),
    ):
        assert word in send(identity, data).json["rejected"][0]["reason"]
    assert len(lines(server)) == 3

    # A drill that found nothing to restore is kept, although it is no line of any backup.
    assert send(id_now("drill-1", 5), a_report()).json["drills"] != []
    assert len(lines(server)) == 3
    # A report whose line is missing gets it.
    path = server.store / SET / "catalogue.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert server.accept().code == 0
    assert lines(server) == [("accepted", backup_id)] + [("drilled", backup_id)] * 2
    assert run("--config", server.config, "verify").code == 0


def test_a_backup_host_cannot_report_drills(server: BackupServer) -> None:
    directory = inbox(server) / id_now("redis-1")
    directory.mkdir()
    (directory / "report.json").write_text("{}")
    assert server.accept().json["drills"] == []
    assert not (server.store / SET).exists()


def test_root_does_not_leave_files_that_the_service_cannot_read(
    server: BackupServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_another(_: Path) -> SimpleNamespace:
        return SimpleNamespace(st_uid=1)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", of_another)
        with pytest.raises(ToolError, match=r"run this as that user .sudo -u"):
            files.check_owner(server.store)


def acceptor(server: BackupServer, clock: Any = time.time) -> accept.Acceptor:
    """An acceptor without its lock."""
    return accept.Acceptor(server.loaded(), Output(True), clock)


def repack(upload: Path, dump: bytes, size: int | None = None) -> None:
    """Put another dump into an upload, with sizes and hashes that are right (but for `size`)."""
    from redis_backup.transport import zstd

    plain, stored = upload / "plain", upload / "dump.rdb.zst"
    plain.write_bytes(dump)
    stored.unlink()
    packed = zstd.compress(plain, stored, 3)
    plain.unlink()
    data = json.loads((upload / "manifest.json").read_text())
    data["files"][0].update(
        size=packed.plain.size if size is None else size,
        sha256=packed.plain.sha256,
        stored_size=packed.stored.size,
        stored_sha256=packed.stored.sha256,
    )
    (upload / "manifest.json").write_text(json.dumps(data))


def snapshot_of(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_entry_without_its_chain_is_not_written(server: BackupServer) -> None:
    (server.store / SET).mkdir()
    about = (id_now("redis-1"), SET, "2026-01-01T00:00:00Z", "0" * 64, "d")
    known = catalogue.read(server.store / SET)
    with pytest.raises(catalogue_format.CatalogueError, match="never accepted"):
        catalogue.append(server.store / SET, known, [Entry("drilled", *about, n=1)])
    assert list((server.store / SET).iterdir()) == []


def test_a_store_whose_file_system_is_not_mounted(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)
    mounted = server.root / "mounted"
    server.store.rename(mounted)
    server.store.mkdir()
    refusal(server.accept(), "there is no repository", "is its file system mounted?")
    assert list(server.store.iterdir()) == []
    # Another one than that of this server is mounted there.
    other = identity_format.new(time.time())
    (server.store / "repository.json").write_bytes(identity_format.encode(other))
    refusal(server.accept(), f"this is repository {other.id}", "the right file system")
    assert os.listdir(server.store) == ["repository.json"]
    assert os.listdir(inbox(server)) == [backup_id]
    shutil.rmtree(server.store)
    mounted.rename(server.store)
    assert server.accept().json["accepted"] == [f"{SET}/{backup_id}"]


def test_backups_whose_repository_has_lost_both_its_files_are_not_taken_for_new(
    server: BackupServer, dump: bytes
) -> None:
    make_upload(inbox(server), dump, id_now("redis-1"))
    server.accept()
    for path in (server.store / "repository.json", server.loaded().identity):
        path.unlink()
    refusal(server.accept(), f"there are backups of {SET}", "adopt-repository")
    assert run("--config", server.config, "adopt-repository").code == 0
    assert server.accept().code == 0


def test_reports_about_something_else_are_refused(server: BackupServer, dump: bytes) -> None:
    backup_id = id_now("redis-1")
    make_upload(inbox(server), dump, backup_id)
    server.accept()
    own = identity_module.require(server.loaded())
    other = "00000000-0000-0000-0000-000000000000"
    accepted = server.receipt(backup_id)["manifest_sha256"]
    good = {"backup_id": backup_id, "repository": own, "manifest_sha256": accepted}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"repository": other}, f"is about repository {other}, this one is {own}"),
        ({"manifest_sha256": "0" * 64}, f"is 0{'0' * 63}, the accepted one's {accepted}"),
        ({"requires": ["new-thing"]}, "does not know (new-thing)"),
        ({"schema": 1}, "schema 1 is not known"),
    ]
    for number, (changes, word) in enumerate(cases):
        drill_id = id_now("drill-1", number)
        send_report(server, drill_id, a_report(**{**good, **changes}))
        [entry] = server.accept().json["rejected"]
        assert word in entry["reason"]
        receipt = server.report_receipt(drill_id)
        assert (receipt["status"], receipt["reason"]) == ("rejected", entry["reason"])
    assert lines(server) == [("accepted", backup_id)]
    send_report(server, id_now("drill-1", 9), a_report(**good, surprise=1))
    assert len(server.accept().json["drills"]) == 1


def test_killed_before_the_drill_host_was_told(
    server: BackupServer, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its report is in the store, so it is confirmed, and not taken for a second one."""
    drill_id = id_now("drill-1")
    send_report(server, drill_id, a_report())

    def kill(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(accept.Acceptor, "_write_receipt", kill)
        with pytest.raises(KilledError):
            acceptor(server).run()
    result = server.accept()
    assert (result.code, result.json["rejected"], result.json["drills"]) == (0, [], [])
    assert server.report_receipt(drill_id)["status"] == "accepted"
    assert os.listdir(inbox(server, "drill-1")) == []


def a_report(**changes: Any) -> dict[str, Any]:
    """The report of a drill that found nothing to restore, with changes."""
    report = {"schema": 2, "set": SET, "backup_id": None, "verdict": "failed", "level": "none"}
    return {**report, **changes}


def send_report(server: BackupServer, drill_id: str, report: Any) -> None:
    """Upload a report as `drill-1` does; text as it is."""
    directory = inbox(server, "drill-1") / drill_id
    directory.mkdir()
    text = report if isinstance(report, str) else json.dumps(report)
    (directory / "report.json").write_text(text)


def test_a_killed_beginning_is_finished_unless_there_are_backups(
    server: BackupServer, dump: bytes
) -> None:
    """Between the two files that name a repository."""
    config = server.loaded()
    own = identity_module.require(config)
    config.identity.unlink()
    assert run("--config", server.config, "adopt-repository", "--begin").code == 0
    assert identity_module.require(config) == own
    make_upload(inbox(server), dump, id_now("redis-1"))
    assert server.accept().code == 0
    config.identity.unlink()
    refused = run("--config", server.config, "adopt-repository", "--begin")
    assert refused.code == 1
    assert "run `redis-backup adopt-repository`" in refused.err
    assert not config.identity.exists()
    assert run("--config", server.config, "adopt-repository").code == 0
    assert identity_module.require(config) == own
