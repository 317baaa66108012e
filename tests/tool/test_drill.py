"""The restore drill against a real repository: rsync's daemon, zstd, and a redis-server that loads.

Without systemd the sandboxed server is a plain child process (`unit: null`), so `sandbox` is `none`
and has to be allowed; how the confinement is judged is in test_drill_sandbox.py.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import signal
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
from redis_backup.config import model
from redis_backup.config import reader as tool_config
from redis_backup.drill import decisions
from redis_backup.drill import run as drill_run
from redis_backup.formats import manifest
from redis_backup.repository import catalogue, identity
from redis_backup.sandbox import client, launchers, server
from redis_backup.transport import rsync, zstd

from tests.support import rdb_builder
from tests.tool.backup_lab import (
    PACKAGE,
    SET,
    Lab,
    Result,
    drill_config,
    dump_of_server,
    free_port,
    id_now,
    lab,
    make_upload,
    run,
    run_process,
    start_redis,
    store_backup,
    wait_until,
)

REPORT_KEYS = {
    "id",
    "host",
    "repository",
    "manifest_sha256",
    "warnings",
    "set",
    "backup_id",
    "verdict",
    "level",
    "freshness",
    "engine",
    "server_version",
    "databases",
    "rpo_seconds",
    "rto_seconds",
    "assertions",
    "sandbox",
    "started",
    "finished",
    "tool_version",
}
REDIS_SERVER = shutil.which("redis-server") or "redis-server"


@contextmanager
def repository(tmp_path: Path, *, kick: bool = True) -> Iterator[Lab]:
    """A backup server with an empty store and its daemon; the drill's work directory exists."""
    (tmp_path / "work").mkdir(mode=0o700)
    with lab(tmp_path, "redis-1", kick=kick) as made:
        yield made


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An RDB with 404 keys in two databases, of which 100 have expired by now and 100 have not."""

    def soon_gone(pipe: Any) -> None:
        for number in range(100):
            # Long enough to be in the file, short enough to be over before it is drilled.
            pipe.set(f"gone:{number}", "x", px=3000)

    dump = dump_of_server(tmp_path_factory.mktemp("dump"), soon_gone)
    time.sleep(3.1)
    return dump


DATABASES = {"0": {"keys": 404, "expires": 200}, "5": {"keys": 1, "expires": 0}}


def store(made: Lab, dump: bytes, backup_id: str, set_name: str = SET, **changes: Any) -> Path:
    """Put a backup into the store as `accept` does, with changes to its manifest's JSON."""
    return store_backup(made.server, dump, backup_id, set_name, **changes)


def drilled(made: Lab, *arguments: str, **changes: Any) -> tuple[Result, dict[str, Any]]:
    """Run one drill as the command line does; gives what it said and its report."""
    result = run("--config", drill_config(made, **changes), "--json", "drill", *arguments)
    assert result.out.startswith("{"), result.text
    drills = result.json["drills"]
    assert len(drills) == 1
    report: dict[str, Any] = drills[0]["report"]
    assert result.code == (0 if drills[0]["passed"] else 1)
    left = sorted(path.name for path in (made.root / "work").rglob("*") if path.is_file())
    assert left == [".lock"] + ["report.json"] * left.count("report.json")
    return result, report


def failed(made: Lab, *arguments: str, **changes: Any) -> dict[str, Any]:
    """The report of a drill that must fail; the verdict and the reason are said to people too."""
    result, report = drilled(made, *arguments, **changes)
    assert result.code == 1
    assert report["verdict"] == "failed"
    assert set(report) == REPORT_KEYS | {"reason"}
    text = "\n".join(result.json["drills"][0]["text"])
    assert text.startswith("FAILED")
    assert report["reason"] in text
    return report


def test_a_good_backup_passes_and_everybody_is_told(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id)
        result, report = drilled(made)
        drill_id = result.json["drills"][0]["drill_id"]
        assert set(report) == REPORT_KEYS
        assert set(report["rto_seconds"]) == {"fetch", "verify", "load", "ready"}
        rto = report["rto_seconds"]
        # The server's log counts milliseconds, of which this takes hardly one.
        assert all(rto[phase] > 0 for phase in rto if phase != "load")
        # Walking goes on beside loading.
        assert max(rto["fetch"] + rto["verify"], rto["load"]) < rto["ready"] < 60
        assert 0.5 < report["rpo_seconds"] < 60
        # A hundred of these keys have expired since: they were in the memory that was saved.
        assert report["databases"] == {"backup": DATABASES, "restored": DATABASES}
        assert {key: report[key] for key in ("set", "backup_id", "verdict", "level")} == {
            "set": SET,
            "backup_id": backup_id,
            "verdict": "passed",
            "level": "values",
        }
        assert (report["engine"], report["server_version"][:4]) == ("redis", "7.0.")
        assert (report["freshness"], report["sandbox"]) == ("unknown", "none")
        assert result.json["drills"][0]["uploaded"] is True
        # The server has it, and its catalogue knows that this backup was drilled.
        kept = made.server.store / SET / "drills" / drill_id / "report.json"
        wait_until(kept.exists, "the report on the backup server")
        assert {"schema": 2, **report} == json.loads(kept.read_text())
        wait_until(lambda: catalogue.read(made.server.store / SET).has_drill(drill_id), "its line")
        line = catalogue.read(made.server.store / SET).drills(backup_id)[0]
        assert (line.level, line.verdict, line.host) == ("values", "passed", "drill-1")
        receipt = made.server.report_receipt(drill_id)
        assert (receipt["status"], receipt["event"]["verdict"]) == ("accepted", "passed")
        assert receipt["manifest_sha256"] == manifest.sha256(kept.read_bytes())
        assert (report["id"], report["host"]) == (drill_id, "drill-1")
        assert report["repository"] == identity.require(made.server.loaded())
        assert report["manifest_sha256"] == line.manifest_sha256
        local = tmp_path / "work" / "reports" / drill_id / "report.json"
        assert {"schema": 2, **report} == json.loads(local.read_text())


def test_people_read_a_verdict(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id)
        result = run("--config", drill_config(made), "drill")
        assert result.code == 0, result.text
        assert f"PASSED  {SET}/{backup_id}" in result.out
        assert "backup 404 keys, 200 expires; restored 404 keys, 200 expires" in result.out


def test_the_newest_is_drilled_unless_another_is_named(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        # By the order of the catalogue: the clock of the host that made the first one was wrong.
        old, new = id_now("redis-1"), id_now("redis-1", -3600)
        store(made, dump, old)
        store(made, dump, new)
        assert drilled(made)[1]["backup_id"] == new
        assert drilled(made, old)[1]["backup_id"] == old
        assert drilled(made, f"{SET}/{old}")[1]["backup_id"] == old


def test_every_set_has_its_drill(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id)
        sets: dict[str, Any] = {SET: {"assertions": []}, "other": {"assertions": []}}
        result = run("--config", drill_config(made, sets=sets), "--json", "drill")
        assert result.code == 1
        other, first = result.json["drills"]
        assert other["report"]["verdict"] == "failed"
        assert "no backup of set other was accepted yet" in other["report"]["reason"]
        assert first["report"]["verdict"] == "passed"
        assert other["drill_id"] != first["drill_id"]
        vague = run("--config", drill_config(made, sets=sets), "drill", backup_id)
        assert vague.code == 2
        assert "write SET/ID" in vague.err


@contextmanager
def two_sets(tmp_path: Path, dump: bytes, **changes: Any) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """Two sets, `other` with a backup whose manifest has these changes, drilled first."""
    with repository(tmp_path) as made:
        another = {"host": "other-1", "kind": "host", "set": "other"}
        uploader = made.server.root / "uploaders.d" / "other-1.json"
        uploader.write_text(json.dumps(another))
        (made.server.inbox / "other-1").mkdir()
        store(made, dump, id_now("redis-1"), "other", **changes)
        store(made, dump, id_now("redis-1"))
        yield made, {SET: {"assertions": []}, "other": {"assertions": []}}


def other_fails_alone(result: Result) -> str:
    """The reason why `other` failed; the set after it passed, and both were reported."""
    assert result.code == 1
    assert "Traceback" not in result.err
    other, first = result.json["drills"]
    assert first["report"]["verdict"] == "passed", first["report"]
    assert other["report"]["verdict"] == "failed"
    assert other["uploaded"]
    reason: str = other["report"]["reason"]
    return reason


@pytest.mark.parametrize("version", ["7." + "9" * 5000, "7.0." + "9" * 5000, "7.0" + "a" * 5000])
def test_a_version_that_no_server_has_fails_its_set_only(
    tmp_path: Path, dump: bytes, version: str
) -> None:
    with two_sets(tmp_path, dump, server_version=version) as (made, sets):
        result = run("--config", drill_config(made, sets=sets), "--json", "drill")
        assert '"server_version" has a form that is not allowed' in other_fails_alone(result)


def test_a_fault_of_the_tool_fails_its_set_only(
    tmp_path: Path, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decisions.impossible_pair

    def fault(claim: Any) -> str | None:
        if claim.set == "other":
            raise KeyError("nobody thought of this")
        return real(claim)

    monkeypatch.setattr(drill_run, "impossible_pair", fault)
    with two_sets(tmp_path, dump) as (made, sets):
        result = run("--config", drill_config(made, sets=sets), "--json", "drill")
        assert other_fails_alone(result) == "KeyError: 'nobody thought of this'"


def test_without_python3_redis_a_drill_fails_and_says_so(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        path = tmp_path / "without"
        path.mkdir()
        (path / "redis.py").write_text("raise ModuleNotFoundError('no redis', name='redis')\n")
        arguments = ("--config", drill_config(made), "--json", "drill")
        result = run_process(*arguments, PYTHONPATH=f"{path}:{PACKAGE}")
        assert result.code == 1
        [told] = result.json["drills"]
        assert told["uploaded"]
        assert "apt-get install python3-redis" in told["report"]["reason"]


def test_progress_that_is_no_number_is_not_shown(tmp_path: Path) -> None:
    class Odd:
        """A server that answers what it likes while it loads."""

        said = iter(("x", "nan", "inf", "9" * 400))

        def info(self, _: str) -> dict[str, str]:
            word = next(self.said, None)
            return {"loading": "1", "loading_loaded_perc": word} if word else {"loading": "0"}

    heard: list[float] = []
    client: Any = Odd()
    launcher = launchers.ProcessLauncher(tmp_path)
    server.SandboxServer(tmp_path, launcher).wait_loaded(client, 10, heard.append)
    assert heard == []


@pytest.mark.parametrize("target", ["nonsense", "redis/", "../../etc", "wrong/20260101T000000Z-a"])
def test_a_target_that_is_none_is_a_usage_error(tmp_path: Path, target: str) -> None:
    with repository(tmp_path) as made:
        assert run("--config", drill_config(made), "drill", target).code == 2


def test_a_flipped_byte_in_the_store_is_named(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        stored = store(made, dump, backup_id) / "dump.rdb.zst"
        content = bytearray(stored.read_bytes())
        content[len(content) // 2] ^= 1
        stored.write_bytes(content)
        report = failed(made)
        assert f"{SET}/{backup_id}/dump.rdb.zst: sha256 is" in report["reason"]
        assert report["level"] == "none"
        assert report["databases"] == {"backup": DATABASES, "restored": None}
        assert report["rto_seconds"]["load"] is None


def test_a_changed_manifest_is_named(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        changed = store(made, dump, backup_id) / "manifest.json"
        changed.write_text(changed.read_text().replace('"keys": 404', '"keys": 403'))
        report = failed(made)
        assert f"{SET}/{backup_id}/manifest.json: sha256 is" in report["reason"]
        assert report["engine"] is None


@pytest.mark.parametrize(
    "databases",
    [
        {**DATABASES, "0": {"keys": 403, "expires": 200}},
        {**DATABASES, "0": {"keys": 404, "expires": 199}},
        {"0": DATABASES["0"]},
        {**DATABASES, "7": {"keys": 1, "expires": 0}},
    ],
    ids=["keys", "expires", "db missing", "db too many"],
)
def test_a_wrong_count_fails_though_every_hash_is_right(
    tmp_path: Path, dump: bytes, databases: dict[str, Any]
) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id, databases=databases)
        report = failed(made)
        assert report["reason"].startswith(f"{SET}/{backup_id}/dump.rdb")
        assert report["level"] == "form"
        assert report["databases"]["restored"] is None


def test_a_server_that_loads_less_fails(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id)
        # As a master it drops what has expired: the difference that a drill must not overlook.
        server = tmp_path / "master"
        server.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = --version ] && exec {REDIS_SERVER} --version\n'
            f'sed -i /^replicaof/d "$1" && exec {REDIS_SERVER} "$1"\n'
        )
        server.chmod(0o755)
        report = failed(made, servers={"redis": str(server)})
        assert "db0 had 404 keys and 200 expires in the backup" in report["reason"]
        assert "has 304 and 100" in report["reason"]
        assert report["level"] == "counts"
        assert report["databases"]["restored"]["0"] == {"keys": 304, "expires": 100}


@pytest.mark.parametrize(
    ("commands", "named"),
    [
        (["HSET user:1 name B"], "db0: user:1"),
        (["LSET queue 7 x"], "db0: queue"),
        (["SELECT 5", "SET five 6"], "db5: five"),
        (["PEXPIREAT queue 33333333333333"], "db0: queue; db0 had 404 keys and 200 expires"),
        (["RENAME queue queues"], "db0: queue, queues"),
        (
            ["FUNCTION LOAD #!lua\xa0name=a\nredis.register_function('a',function()end)"],
            "functions or data of modules",
        ),
    ],
)
def test_a_server_that_holds_other_values_fails_though_every_count_was_right(
    tmp_path: Path, dump: bytes, monkeypatch: pytest.MonkeyPatch, commands: list[str], named: str
) -> None:
    real = server.SandboxServer.saved_again
    left = list(commands)

    def meddled(self: server.SandboxServer, client: client.Client) -> Any:
        """What it had loaded was right, and now something else happens to it."""
        client.call("CONFIG", "SET", "replica-read-only", "no")
        while left:
            client.call(*(word.replace("\xa0", " ") for word in left.pop(0).split(" ")))
        return real(self, client)

    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id)
        with monkeypatch.context() as patch:
            patch.setattr(server.SandboxServer, "saved_again", meddled)
            report = failed(made)
        assert f"{SET}/{backup_id}/dump.rdb: the server that loaded it" in report["reason"]
        assert f"holds other values than the backup: {named}" in report["reason"]
        assert report["level"] == "load"
        assert drilled(made)[1]["level"] == "values"


def test_a_server_with_the_settings_of_the_manifest_saves_the_same_bytes(
    tmp_path: Path, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look at what it saves is enough then; else what differs is decoded."""
    real = server.SandboxServer.saved_again
    asked: list[int] = []

    def counted(self: server.SandboxServer, client: client.Client) -> Any:
        asked.append(1)
        return real(self, client)

    monkeypatch.setattr(server.SandboxServer, "saved_again", counted)
    with repository(tmp_path) as made:
        for age, settings, times in (
            (120, {}, 1),
            (60, {"rdbcompression": "no"}, 2),
            (0, {"rdbcompression": "yes", "hash-max-listpack-entries": "1"}, 2),
        ):
            store(made, dump, id_now("redis-1", -age), settings=settings)
            assert drilled(made)[1]["level"] == "values"
            assert len(asked) == times, settings
            asked.clear()


def test_a_file_that_takes_longer_than_any_honest_one_ends_the_drill(
    tmp_path: Path, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decisions.time_allowed(0) == 900
    assert 3600 < decisions.time_allowed(3 * 2**30) < 6 * 3600
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id)
        monkeypatch.setattr(drill_run, "time_allowed", lambda _size: -1)
        report = failed(made)
        assert f"walk {SET}/{backup_id} takes more than -1 s for" in report["reason"]
        assert report["level"] == "bytes"


@pytest.mark.parametrize("last", [b"\0" * 8, b"\1" * 8], ids=["none", "wrong"])
def test_a_checksum_that_is_not_right_fails_though_every_hash_is(
    tmp_path: Path, dump: bytes, last: bytes
) -> None:
    """The server computes it while the tool walks; what it refuses the tool has to name."""
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        bad = tmp_path / "bad.rdb"
        bad.write_bytes(dump[:-8] + last)
        packed = zstd.compress(bad, tmp_path / "bad.zst", 3)
        files = [
            {
                "name": "dump.rdb",
                "stored_name": "dump.rdb.zst",
                "codec": "zstd",
                "size": packed.plain.size,
                "sha256": packed.plain.sha256,
                "stored_size": packed.stored.size,
                "stored_sha256": packed.stored.sha256,
            }
        ]
        directory = store(made, dump, backup_id, files=files)
        (tmp_path / "bad.zst").replace(directory / "dump.rdb.zst")
        report = failed(made)
        assert report["reason"].startswith(f"{SET}/{backup_id}/dump.rdb.zst: byte {len(dump) - 8}:")
        assert "checksum" in report["reason"]
        assert report["level"] == "bytes"


def test_a_backup_without_a_line_in_the_catalogue_is_not_trusted(
    tmp_path: Path, dump: bytes
) -> None:
    # The report of the first drill would start `accept`, which gives a backup without a line the
    # line that a killed one owes it: the second drill would find it or not.
    with repository(tmp_path, kick=False) as made:
        known, unknown = id_now("redis-1", -60), id_now("redis-1")
        store(made, dump, known)
        make_upload(made.server.store / SET, dump, unknown)
        report = failed(made, unknown, receipt_timeout_seconds=0)
        assert f"{SET}/{unknown}: has no line in the catalogue" in report["reason"]
        assert drilled(made, receipt_timeout_seconds=0)[1]["backup_id"] == known


def test_a_broken_chain_is_not_trusted(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        for age in (120, 60):
            store(made, dump, id_now("redis-1", -age))
        lines = made.server.store / SET / "catalogue.jsonl"
        lines.write_text(lines.read_text().replace('"host":"redis-1"', '"host":"redis-9"', 1))
        report = failed(made, receipt_timeout_seconds=0)
        assert f"{SET}/catalogue.jsonl line 1" in report["reason"]


def test_a_missing_payload_is_named(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        (store(made, dump, backup_id) / "dump.rdb.zst").unlink()
        reason = failed(made)["reason"]
        assert reason == f"{SET}/{backup_id}/dump.rdb.zst: is not in the repository"


def test_no_backup_is_a_failed_drill(tmp_path: Path) -> None:
    with repository(tmp_path) as made:
        report = failed(made)
        assert "no backup of set redis was accepted yet" in report["reason"]
        assert (report["backup_id"], report["level"]) == (None, "none")
        assert (report["rpo_seconds"], report["sandbox"]) == (None, None)


def test_a_server_of_another_release_proves_nothing(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        directory = store(
            made,
            dump,
            backup_id,
            server_version="6.2.14",
            rdb={"magic": "REDIS", "version": 9},
        )
        # Refused by the manifest: the payload is not even asked for.
        (directory / "dump.rdb.zst").unlink()
        reason = failed(made)["reason"]
        assert f"{SET}/{backup_id}/manifest.json: the backup is of redis 6.2" in reason
        assert f"{REDIS_SERVER} on this drill host is redis 7.0" in reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server_version": "6.2.14"}, "redis 6.2.14 wrote RDB version 10"),
        ({"rdb": {"magic": "VALKEY", "version": 80}}, "which no Redis does"),
        ({"engine": "valkey", "server_version": "9.0.1"}, "but it writes version 80 with VALKEY"),
        (
            {
                "engine": "valkey",
                "server_version": "8.0.1",
                "rdb": {"magic": "REDIS", "version": 11},
            },
            "the backup is of valkey 8.0, but this drill host has no valkey server configured",
        ),
    ],
    ids=["too new", "magic", "valkey", "no server"],
)
def test_an_impossible_pair_is_refused_by_the_manifest(
    tmp_path: Path, dump: bytes, changes: dict[str, Any], words: str
) -> None:
    with repository(tmp_path) as made:
        directory = store(made, dump, id_now("redis-1"), **changes)
        (directory / "dump.rdb.zst").unlink()
        report = failed(made)
        assert words in report["reason"]
        assert report["level"] == "none"


def test_a_header_that_is_not_the_manifests_is_refused_before_a_server_starts(
    tmp_path: Path, dump: bytes
) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(
            made,
            dump,
            backup_id,
            server_version="7.2.4",
            rdb={"magic": "REDIS", "version": 11},
        )
        server = tmp_path / "server.sh"
        server.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=7.2.4 sha=0" && exit\n'
            f"touch {tmp_path}/started\n"
        )
        server.chmod(0o755)
        report = failed(made, servers={"redis": str(server)})
        assert (
            "the file is REDIS version 10, the manifest says REDIS version 11" in report["reason"]
        )
        assert not (tmp_path / "started").exists()


def test_assertions_ask_the_restored_data(tmp_path: Path, dump: bytes) -> None:
    questions = [
        {"db": 0, "command": ["HGET", "user:1", "name"], "expect": {"equals": "A"}},
        {"db": 0, "command": ["LLEN", "queue"], "expect": {"at_least": 50}},
        {"db": 5, "command": ["GET", "five"], "expect": {"equals": 5}},
        {"db": 5, "command": ["GET", "none"], "expect": {"equals": None}},
        {"db": 0, "command": ["LRANGE", "queue", 0, 1], "expect": {"equals": [0, 1]}},
        {"db": 0, "command": ["OBJECT", "ENCODING", "five"], "expect": {"equals": None}},
        {"db": 0, "command": ["INFO", "server"], "expect": {"matches": "redis_version:7\\.0"}},
        {"db": 0, "command": ["GET", "gone:1"], "expect": {"equals": None}},
    ]
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        result, report = drilled(made, sets={SET: {"assertions": questions}})
        assert result.code == 0, report
        assert [item["passed"] for item in report["assertions"]] == [True] * len(questions)
        assert "8 of 8 hold" in "\n".join(result.json["drills"][0]["text"])


def test_an_assertion_that_writes_though_it_is_a_read(tmp_path: Path) -> None:
    """PFCOUNT keeps what it counted in the value, on replicas too."""
    server = start_redis(tmp_path / "redis")
    with server.client() as client:
        client.pfadd("visitors", *range(100))
        client.save()
    server.stop()
    questions = [{"command": ["PFCOUNT", "visitors"], "expect": {"at_least": 90}}]
    with repository(tmp_path) as made:
        store(made, (server.data / "dump.rdb").read_bytes(), id_now("redis-1"))
        report = drilled(made, sets={SET: {"assertions": questions}})[1]
        assert (report["verdict"], report["level"]) == ("passed", "values"), report
        assert [item["passed"] for item in report["assertions"]] == [True]


FAILING = (
    ({"command": ["LLEN", "queue"], "expect": {"at_least": 51}}, "at_least 51: got 50"),
    ({"command": ["GET", "user:1"], "expect": {"equals": "A"}}, "the server says 'WRONGTYPE"),
    ({"command": ["SET", "a", "b"], "expect": {"equals": "OK"}}, "that only reads"),
    ({"command": ["FLUSHALL"], "expect": {"equals": "OK"}}, "that only reads"),
    ({"command": ["CONFIG", "GET", "*"], "expect": {"matches": "."}}, "that only reads"),
    ({"command": ["EVAL", "return 1", "0"], "expect": {"equals": 1}}, "that only reads"),
    ({"command": ["NONSENSE"], "expect": {"equals": 1}}, "that only reads"),
    ({"db": 99, "command": ["DBSIZE"], "expect": {"equals": 1}}, "DB index is out of range"),
)


def test_assertions_that_do_not_hold_fail_the_drill(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id)
        held = {"command": ["LLEN", "queue"], "expect": {"equals": 50}}
        questions = [held, *(question for question, _ in FAILING)]
        report = failed(made, sets={SET: {"assertions": questions}})
        assert f"{SET}/{backup_id}/dump.rdb: 8 of 9 assertions do not hold" in report["reason"]
        assert FAILING[0][1] in report["reason"]
        # The data was proven all the same: the level says so.
        assert report["level"] == "values"
        first, *others = report["assertions"]
        assert first["passed"]
        assert first["actual"] == 50
        for result, (_, words) in zip(others, FAILING, strict=True):
            assert not result["passed"]
            assert words in result["reason"]


def test_an_assertion_that_is_none_fails_its_set_only(tmp_path: Path, dump: bytes) -> None:
    with two_sets(tmp_path, dump) as (made, sets):
        sets["other"] = {"assertions": [{"command": "GET a"}]}
        result = run("--config", drill_config(made, sets=sets), "--json", "drill")
        reason = other_fails_alone(result)
        assert "set other: assertion 1: command must be a list" in reason


def test_a_backup_that_missed_what_its_master_had_is_stale(tmp_path: Path) -> None:
    with repository(tmp_path) as made:
        server = made.redis("redis-1", port=free_port())
        made.redis("redis-2", port=free_port(), replicaof=f"127.0.0.1 {server.port}")
        with server.client() as client:
            wait_until(lambda: client.info("replication")["connected_slaves"], "the replica")
            client.set("a", 1)
            wait_until(
                lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "the transfer"
            )
            # A server with a replica has a history, which its RDB tells.
            client.save()
        content = (server.data / "dump.rdb").read_bytes()
        aux = _aux(tmp_path, content)
        position: dict[str, Any] = {
            "repl_id": aux["repl-id"],
            "repl_offset": int(aux["repl-offset"]),
        }
        reached: dict[str, Any] = {**position, "master": dict(position)}
        store(made, content, id_now("redis-1", -60), **reached)
        assert drilled(made)[1]["freshness"] == "ok"
        ahead = {"repl_id": aux["repl-id"], "repl_offset": int(aux["repl-offset"]) + 1}
        backup_id = id_now("redis-1")
        store(made, content, backup_id, **position, master=ahead)
        report = failed(made)
        assert report["freshness"] == "stale"
        assert f"{SET}/{backup_id}/dump.rdb: stale: it ends at offset" in report["reason"]
        assert report["level"] == "values"


def _aux(tmp_path: Path, content: bytes) -> dict[str, str]:
    path = tmp_path / "aux.rdb"
    path.write_bytes(content)
    aux: dict[str, str] = run("inspect", "--json", path).json["aux"]
    return aux


def test_a_backup_that_is_too_old_is_stale(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        assert drilled(made, max_age_seconds=3600)[1]["verdict"] == "passed"
        report = failed(made, max_age_seconds=0)
        assert report["freshness"] == "stale"
        assert "more than the 0 s allowed" in report["reason"]


def test_a_backup_that_was_asked_for_by_id_may_be_old(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        store(made, dump, backup_id)
        report = drilled(made, backup_id, max_age_seconds=0)[1]
        assert (report["verdict"], report["freshness"]) == ("passed", "unknown")


def test_a_backup_server_that_is_down_is_a_failed_drill(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        made.server.stop()
        result, report = drilled(made)
        assert result.code == 1
        assert report["verdict"] == "failed"
        assert "nothing listens on 127.0.0.1" in report["reason"]
        assert result.json["drills"][0]["uploaded"] is False
        kept = tmp_path / "work" / "reports" / result.json["drills"][0]["drill_id"]
        assert json.loads((kept / "report.json").read_text()) == {"schema": 2} | {
            key: value for key, value in report.items() if value is not None
        }


def test_a_report_that_does_not_arrive_is_no_success(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        result, report = drilled(made, transport={"inbox_module": "inbox-nobody"})
        assert report["verdict"] == "passed"
        assert result.code == 1
        assert "has no module inbox-nobody" in "\n".join(result.json["drills"][0]["text"])


def test_a_report_that_is_refused_is_no_success(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        (made.server.root / "uploaders.d" / "redis-1.json").unlink()
        result, report = drilled(made)
        assert (result.code, report["verdict"]) == (1, "passed")
        [told] = result.json["drills"]
        assert (told["passed"], told["uploaded"]) == (False, False)
        reason = "the backup server rejected it: the report is about set redis, which has no host"
        assert reason in "\n".join(told["text"])
        assert made.server.report_receipt(told["drill_id"])["status"] == "rejected"


def test_a_drill_of_another_repository_fails(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        own = identity.require(made.server.loaded())
        other = "00000000-0000-0000-0000-000000000000"
        assert drilled(made, repository=own)[1]["repository"] == own
        reason = failed(made, repository=other)["reason"]
        assert f"keeps repository {own}, this host was deployed with {other}" in reason
        # A file system that is not mounted there.
        (made.server.store / "repository.json").rename(tmp_path / "elsewhere")
        reason = failed(made, receipt_timeout_seconds=0)["reason"]
        assert "has no repository in it: is its file system mounted?" in reason


def test_a_payload_that_grew_is_not_fetched_to_its_end(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        payload = store(made, dump, id_now("redis-1")) / "dump.rdb.zst"
        payload.write_bytes(payload.read_bytes() + os.urandom(1_000_000))
        report = failed(made)
        assert "larger than it was announced" in report["reason"]
        assert report["level"] == "none"
        assert not list((tmp_path / "work" / "fetch").iterdir())


def test_a_wrong_secret_is_a_failed_drill(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        report = failed(made, transport={"secret": "not-the-secret"})
        assert "wrong rsync secret or user" in report["reason"]
        assert "not-the-secret" not in json.dumps(report)


def test_no_room_fails_before_the_download(
    tmp_path: Path, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with repository(tmp_path) as made:
        backup_id = id_now("redis-1")
        (store(made, dump, backup_id) / "dump.rdb.zst").unlink()
        needed = drill_run.DISK_RESERVE + len(dump)
        monkeypatch.setattr(files, "free_bytes", lambda _path: needed)
        reason = failed(made)["reason"]
        assert f"{SET}/{backup_id}/dump.rdb.zst: no room for the drill" in reason


def test_no_memory_fails_before_the_download(
    tmp_path: Path, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with repository(tmp_path) as made:
        (store(made, dump, id_now("redis-1")) / "dump.rdb.zst").unlink()
        monkeypatch.setattr(drill_run, "memory_available", lambda: drill_run.MEMORY_RESERVE)
        assert "no memory for the drill" in failed(made)["reason"]


def test_a_held_lock_is_waited_for_and_then_a_failure(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        loaded = tool_config.load(drill_config(made))
        assert isinstance(loaded, model.DrillConfig)
        output = Output(True, io.StringIO(), io.StringIO())
        with (tmp_path / "work" / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            started = time.monotonic()
            [outcome] = drill_run.run(loaded, None, output, lock_wait=0.5)
            assert time.monotonic() - started >= 0.5
            assert outcome.report["verdict"] == "failed"
            assert "another drill has held it" in outcome.report["reason"]
            assert outcome.uploaded
        [outcome] = drill_run.run(loaded, None, output, lock_wait=0.5)
        assert outcome.passed


def test_a_work_directory_open_to_others_is_refused(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        (tmp_path / "work").chmod(0o750)
        result = run("--config", drill_config(made), "--json", "drill")
        assert result.code == 1
        assert "with mode 0700" in result.json["drills"][0]["report"]["reason"]


def test_a_server_that_does_not_start_fails_with_its_words(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        server = tmp_path / "server.sh"
        server.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = --version ] && exec {REDIS_SERVER} --version\n'
            f'echo "nonsense yes" >>"$1"; exec {REDIS_SERVER} "$1"\n'
        )
        server.chmod(0o755)
        reason = failed(made, servers={"redis": str(server)})["reason"]
        assert "the sandboxed server did not come up" in reason
        assert "Bad directive" in reason


def test_a_library_of_functions_does_not_drive_the_terminal(tmp_path: Path) -> None:
    """Its code fails with words of its own, which the server logs and the drill's reason quotes."""
    code = b"#!lua name=x\nlocal t = {}; t['\x1b]0;owned\x07']()"
    written = rdb_builder.Rdb(10).aux(b"redis-ver", b"7.0.15")
    written.aux(b"ctime", str(int(time.time())).encode())
    hostile = written.opcode(rdb_builder.FUNCTION2, rdb_builder.string(code)).end()
    with repository(tmp_path) as made:
        store(made, hostile, id_now("redis-1"), databases={})
        reason = failed(made)["reason"]
        assert "]0;owned" in reason
        assert reason.isprintable()
        shown = run("--config", drill_config(made), "drill")
        assert "]0;owned" in shown.text
        assert shown.text.replace("\n", "").isprintable()


def _hanging_server(tmp_path: Path) -> Path:
    server = tmp_path / "hang"
    server.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && exec {REDIS_SERVER} --version\n'
        f"echo $$ >{tmp_path}/pid; exec sleep 600\n"
    )
    server.chmod(0o755)
    return server


def _start_and_hang(made: Lab, tmp_path: Path, **changes: Any) -> tuple[subprocess.Popen[str], int]:
    path = drill_config(made, servers={"redis": str(_hanging_server(tmp_path))}, **changes)
    child = subprocess.Popen(
        [sys.executable, "-m", "redis_backup", "--config", str(path), "--json", "drill"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(
        lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(),
        "the sandboxed server",
    )
    return child, int((tmp_path / "pid").read_text())


def test_a_drill_that_is_stopped_cleans_up_and_tells(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        child, server = _start_and_hang(made, tmp_path)
        child.terminate()
        out, _ = child.communicate(timeout=30)
        assert child.returncode == 1
        [told] = json.loads(out)["drills"]
        assert told["report"]["verdict"] == "failed"
        assert "stopped by SIGTERM" in told["report"]["reason"]
        assert told["uploaded"] is True
        assert not Path(f"/proc/{server}").exists()
        assert list((tmp_path / "work" / "sandbox" / "in").iterdir()) == []


def test_a_run_that_is_stopped_does_not_go_on_with_the_next_set(
    tmp_path: Path, dump: bytes
) -> None:
    with two_sets(tmp_path, dump) as (made, sets):
        child, server = _start_and_hang(made, tmp_path, sets=sets)
        child.terminate()
        # The next set would start another server and wait for it.
        wait_until(lambda: child.poll() is not None, "the end of the run", 25)
        assert child.stdout is not None
        drills = json.loads(child.stdout.read())["drills"]
        child.communicate()
        assert child.returncode == 1
        assert [told["report"]["reason"] for told in drills] == ["stopped by SIGTERM"] * 2
        assert all(told["uploaded"] for told in drills)
        assert int((tmp_path / "pid").read_text()) == server


def test_a_run_that_is_stopped_while_it_reports_tells_the_rest(
    tmp_path: Path, dump: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rsync.upload

    def told_meanwhile(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        real(*arguments, **options)

    with two_sets(tmp_path, dump) as (made, sets):
        path = drill_config(made, sets=sets)
        monkeypatch.setattr(rsync, "upload", told_meanwhile)
        result = run("--config", path, "--json", "drill")
        assert result.code == 1
        told = result.json["drills"]
        assert [item["uploaded"] for item in told] == [True, True]
        assert [item["report"].get("reason") for item in told] == [None, "stopped by SIGTERM"]


def test_what_a_killed_drill_left_is_gone_after_the_next(tmp_path: Path, dump: bytes) -> None:
    with repository(tmp_path) as made:
        store(made, dump, id_now("redis-1"))
        child, server = _start_and_hang(made, tmp_path)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert (tmp_path / "work" / "sandbox" / "in" / "dump.rdb").exists()
        assert Path(f"/proc/{server}").exists()
        _, report = drilled(made)
        assert report["verdict"] == "passed"
        wait_until(
            lambda: (
                not Path(f"/proc/{server}").exists()
                or "\nState:\tZ" in Path(f"/proc/{server}/status").read_text()
            ),
            "the end of the old server",
        )
