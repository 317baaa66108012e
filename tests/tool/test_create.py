"""`redis-backup create` when something is in the way: one clear line, the right exit code, nothing
left behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis_backup.config.model import RedisAccess
from redis_backup.formats import lease
from redis_backup.host import create as create_module
from redis_backup.host import snapshot, standing
from redis_backup.host.server import RedisServer
from redis_backup.repository import identity as identity_module

from tests.support.runbooks import is_seen
from tests.tool.backup_lab import (
    PACKAGE,
    PASSWORD,
    SECRET,
    SET,
    Lab,
    RedisProcess,
    Result,
    fill,
    free_port,
    lab,
    refusal,
    run,
    run_process,
    start_redis,
    wait_until,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab that accepts at once, for tests that do not change it."""
    with lab(tmp_path_factory.mktemp("shared"), "redis-1", "redis-2") as made:
        yield made


@pytest.fixture(scope="module")
def server(shared: Lab) -> RedisProcess:
    """A Redis with data."""
    process = shared.redis("redis-1")
    fill(process.client())
    return process


def refused(result: Result, *words: str, code: int = 1) -> None:
    """The command ended with this code and one line that says all of these words and no secret."""
    assert refusal(result, *words, code=code).startswith("redis-backup: ")
    assert PASSWORD not in result.text
    assert SECRET not in result.text


def clock(sleep: Callable[[float], None]) -> types.SimpleNamespace:
    """`time` for one module of the tool, whose pauses are made use of."""
    return types.SimpleNamespace(monotonic=time.monotonic, sleep=sleep)


def left(server: RedisProcess) -> list[str]:
    """What is in the staging directory beside the lock."""
    staging = server.data / ".redis-backup"
    return sorted(entry.name for entry in staging.iterdir() if entry.name != "lock")


def test_wrong_password(shared: Lab, server: RedisProcess) -> None:
    config = shared.host_config("redis-1", server, redis={"password": "not-this-one"})
    result = run("create", "--now", "--config", config)
    refused(result, "refused the password")
    assert is_seen("redis-does-not-answer#password", result.err)
    assert "not-this-one" not in result.text


def test_no_password_where_one_is_needed(shared: Lab, server: RedisProcess) -> None:
    config = shared.host_config("redis-1", server, redis={"password": None})
    refused(run("create", "--now", "--config", config), "refused the password")


def test_server_down(shared: Lab, server: RedisProcess) -> None:
    port = free_port()
    config = shared.host_config(
        "redis-1", server, redis={"unixsocket": None, "address": "127.0.0.1", "port": port}
    )
    started = time.monotonic()
    refused(run("create", "--now", "--config", config), f"127.0.0.1:{port}", "cannot be reached")
    assert time.monotonic() - started < 5


def test_another_instance_on_the_port(shared: Lab) -> None:
    port = free_port()
    other = shared.redis("another", port=port)
    config = shared.host_config(
        "redis-1", other, hosts=[{"name": "redis-1", "address": "127.0.0.1", "port": 6379}]
    )
    refused(run("create", "--now", "--config", config), str(port), "another instance")


def test_lock_held(shared: Lab, server: RedisProcess) -> None:
    config = shared.host_config("redis-1", server)
    create_module.make_staging(server.data / ".redis-backup")
    with (server.data / ".redis-backup" / "lock").open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        refused(run("create", "--now", "--config", config), "locked", code=75)


def test_wrong_rsync_secret(shared: Lab, server: RedisProcess) -> None:
    config = shared.host_config("redis-1", server, transport={"secret": "not-this-secret"})
    result = run("create", "--now", "--config", config)
    refused(result, "wrong rsync secret", "inbox-redis-1")
    assert is_seen("backup-server-unreachable#secret", result.err)
    assert "not-this-secret" not in result.text
    assert left(server) == []


def test_module_of_another_host(shared: Lab, server: RedisProcess) -> None:
    config = shared.host_config("redis-1", server, transport={"inbox_module": "inbox-redis-2"})
    refused(run("create", "--now", "--config", config), "refused user redis-1", "inbox-redis-2")


def test_unknown_module(shared: Lab, server: RedisProcess) -> None:
    config = shared.host_config("redis-1", server, transport={"inbox_module": "nothing"})
    refused(run("create", "--now", "--config", config), "has no module nothing")


def test_rsync_daemon_down_is_tried_again_then_told(shared: Lab, server: RedisProcess) -> None:
    config = shared.host_config("redis-1", server, transport={"port": free_port()})
    result = run("create", "--now", "--config", config)
    refused(result, "is the rsync daemon of the backup server up?")
    assert "next try in 0.1 s" in result.err
    assert left(server) == []


def test_no_room_starts_no_bgsave(shared: Lab, server: RedisProcess) -> None:
    before = server.client().info("persistence")["rdb_saves"]
    config = shared.host_config("redis-1", server, disk_reserve_bytes=2**60)
    refused(run("create", "--now", "--config", config), "free", "no BGSAVE was started")
    assert server.client().info("persistence")["rdb_saves"] == before


@pytest.mark.parametrize(
    ("last_dump", "then", "memory", "dataset", "needed"),
    [
        (None, None, 1500, 1000, 1100),
        (1000, 3000, 3000, 2000, 1500),
        (1000, 3000, 2000, 1000, 1500),
        (10, 1000, 3000, 2000, 15 + 2200),  # it has grown since
        (10, None, 3000, 2000, 2200),  # nobody knows by how much
        (0, 0, 0, 0, 0),
    ],
)
def test_room_for_a_snapshot(
    last_dump: int | None, then: int | None, memory: int, dataset: int, needed: int
) -> None:
    assert snapshot.needed_bytes(last_dump, then, memory, dataset) == needed


def test_rdbchecksum_off(shared: Lab) -> None:
    other = shared.redis("no-checksum", rdbchecksum="no")
    config = shared.host_config("redis-1", other)
    refused(run("create", "--now", "--config", config), "rdbchecksum is off")


def test_failing_bgsave(shared: Lab) -> None:
    other = shared.redis("failing")
    fill(other.client())
    config = shared.host_config("redis-1", other)
    # Redis renames the finished RDB over this name, which a directory that is not empty refuses.
    (other.data / "dump.rdb" / "in-the-way").mkdir(parents=True)
    refused(
        run("create", "--now", "--config", config), "BGSAVE failed", "rdb_last_bgsave_status:err"
    )
    assert left(other) == []


def test_a_save_that_changes_no_file_is_no_snapshot(tmp_path: Path) -> None:
    dump = tmp_path / "dump.rdb"
    dump.write_bytes(b"old")
    place = snapshot.Place(tmp_path, "dump.rdb")
    descriptor = os.open(dump, os.O_RDONLY)
    try:
        with pytest.raises(Exception, match="same file as before"):
            snapshot._link(place, tmp_path / "link", descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("running", ["bgsave", "bgrewriteaof"])
def test_waits_for_a_child_that_is_already_running(
    shared: Lab, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shared.redis(f"slow-{running}", rdb_key_save_delay="30000")
    client = other.client()
    client.mset({f"key:{number}": number for number in range(50)})
    getattr(client, running)()
    # It goes on when the tool begins to wait.
    other.signal_child(signal.SIGSTOP)

    def sleep(seconds: float) -> None:
        other.signal_child(signal.SIGCONT)
        time.sleep(seconds)

    monkeypatch.setattr(snapshot, "time", clock(sleep))
    # What is written now is not in a running save, so it shows whose snapshot was taken.
    client.set("late", "1")
    client.config_set("rdb-key-save-delay", 0)
    config = shared.host_config("redis-1", other)
    result = run("create", "--now", "--json", "--config", config)
    assert result.code == 0, result.text
    assert is_seen("redis-does-not-answer#busy", result.err)
    assert result.json["databases"] == {"0": {"keys": 51, "expires": 0}}


def test_bgsave_that_takes_too_long(shared: Lab) -> None:
    other = shared.redis("slower", rdb_key_save_delay="500000")
    other.client().mset({f"key:{number}": number for number in range(50)})
    config = shared.host_config("redis-1", other, bgsave_timeout_seconds=1)
    refused(
        run("create", "--now", "--config", config),
        "BGSAVE did not finish within 1 s",
        "bgsave_timeout_seconds",
    )
    # It goes on, and now it is in the way of the next one.
    result = run("create", "--now", "--config", config)
    refused(result)
    assert is_seen("redis-does-not-answer#too-long", result.err)
    other.signal_child(signal.SIGUSR1)


def test_loading(shared: Lab) -> None:
    # Redis answers between blocks of the file while it loads: small blocks, slow keys.
    source = shared.redis("loading-source", rdbcompression="no")
    source.client().mset({f"key:{number}": "x" * 1024 for number in range(5000)})
    source.client().save()
    other = shared.redis(
        "loading",
        dump=(source.data / "dump.rdb").read_bytes(),
        ready=False,
        key_load_delay="10000",
        loading_process_events_interval_bytes="1024",
    )
    config = shared.host_config("redis-1", other)
    result = run("create", "--now", "--config", config)
    refused(result, "is loading")
    assert is_seen("redis-does-not-answer#loading", result.err)


def test_missing_programs(shared: Lab, server: RedisProcess, tmp_path: Path) -> None:
    config = shared.host_config("redis-1", server)
    for missing in ("zstd", "rsync"):
        programs = tmp_path / f"without-{missing}"
        programs.mkdir()
        for name in {"zstd", "rsync"} - {missing}:
            (programs / name).symlink_to(f"/usr/bin/{name}")
        result = run_process("create", "--now", "--config", config, PATH=str(programs))
        refused(result, f"{missing} is not installed")


def test_missing_redis_module(shared: Lab, server: RedisProcess, tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError('no redis', name='redis')\n")
    config = shared.host_config("redis-1", server)
    path = f"{tmp_path}:{PACKAGE}"
    refused(run_process("create", "--config", config, PYTHONPATH=path), "python3-redis")


def test_uploaded_but_not_confirmed(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1", kick=False) as made:
        server = made.redis("redis-1")
        fill(server.client())
        config = made.host_config("redis-1", server, receipt_timeout_seconds=0.2)
        refused(run("create", "--now", "--config", config), "uploaded, not confirmed")
        # What a killed run left goes with the next one.
        (server.data / ".redis-backup" / "20200101T000000Z-redis-1").mkdir()
        (server.data / ".redis-backup" / "20200101T000000Z-redis-1" / "dump.rdb").write_bytes(b"x")
        refused(run("create", "--now", "--config", config), "uploaded, not confirmed")
        assert left(server) == []


def test_what_a_killed_redis_left_goes(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        gone, new = ended_process(), ended_process()
        # Which a running server may be writing; which is no name of Redis; of a process that runs.
        kept = {f"temp-{new}.rdb", "temp-other.rdb", f"temp-{os.getpid()}.rdb"}
        for name in (f"temp-{gone}.rdb", f"temp-1700000000.{gone}.rdb", *kept):
            (server.data / name).write_bytes(b"x")
            if name != f"temp-{new}.rdb":
                os.utime(server.data / name, (1, 1))
        result = run("create", "--now", "--config", made.host_config("redis-1", server))
        assert result.code == 0, result.text
        assert f"removed: {server.data / f'temp-{gone}.rdb'}: " in result.out
        assert {path.name for path in server.data.glob("temp-*")} == kept


def ended_process() -> int:
    """The number of a process that is gone."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_save_that_runs_keeps_its_file_whatever_the_clock_says(tmp_path: Path) -> None:
    server = start_redis(tmp_path / "redis-1", rdb_key_save_delay="1000000")
    try:
        fill(server.client())
        place = snapshot.Place(server.data, "dump.rdb")
        access = RedisAccess("127.0.0.1", 1, None, PASSWORD, str(server.socket))
        left = server.data / f"temp-{ended_process()}.rdb"
        left.write_bytes(b"x")
        os.utime(left, (1, 1))
        server.client().bgsave()
        wait_until(lambda: len(list(server.data.glob("temp-*"))) == 2, "the file of the save")
        [saving] = set(server.data.glob("temp-*")) - {left}
        # As if the server had been started while the clock was ahead.
        os.utime(saving, (1, 1))
        assert snapshot.sweep(RedisServer(access), place) == []
        assert saving.exists()
        os.kill(int(saving.name[5:-4]), signal.SIGUSR1)  # which ends it, without a failure
        wait_until(lambda: not saving.exists(), "the end of the save")
        assert snapshot.sweep(RedisServer(access), place) == [left]
    finally:
        server.stop()


@pytest.mark.parametrize(
    "info",
    [
        {"uptime_in_seconds": "-3600"},
        {"uptime_in_seconds": "60", "rdb_bgsave_in_progress": "1"},
        {"uptime_in_seconds": "60", "master_sync_in_progress": "1"},
    ],
    ids=str,
)
def test_nothing_is_swept_while_the_clock_or_a_save_speaks_against_it(
    tmp_path: Path, info: dict[str, str]
) -> None:
    """A file of no process that is seen from here, and old by the clock."""
    (tmp_path / f"temp-{ended_process()}.rdb").write_bytes(b"x")
    now = time.time() + 1000
    place = snapshot.Place(tmp_path, "dump.rdb")
    asked: Any = SimpleNamespace(time=lambda: int(now), info=lambda: info)
    assert snapshot.sweep(asked, place) == []
    idle = {"uptime_in_seconds": "60", "rdb_bgsave_in_progress": "0"}
    asked = SimpleNamespace(time=lambda: int(now), info=lambda: idle)
    assert len(snapshot.sweep(asked, place)) == 1


def test_the_second_of_the_request_has_begun_for_every_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The `ctime` of an RDB comes from a clock that is some milliseconds behind TIME."""
    access = RedisAccess("127.0.0.1", 1, None, None, None)
    server = RedisServer(access)
    replies = [[b"170", b"3000"], [b"170", b"19999"], [b"170", b"20001"]]
    slept: list[float] = []
    monkeypatch.setattr(server, "command", lambda *_: replies.pop(0))
    monkeypatch.setattr(time, "sleep", slept.append)
    assert server.settled_time() == 170
    assert (replies, slept) == ([], [0.017, 1e-06])


def test_a_large_backup_has_more_time_to_be_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert create_module.receipt_wait(90, 0, 0) == 90
    # 100 GiB and 30 GiB stored: the server reads more than one hour of it, not ninety seconds.
    assert 3600 < create_module.receipt_wait(90, 100 * 2**30, 30 * 2**30) < 4 * 3600
    # As if this small backup were large.
    monkeypatch.setattr(create_module, "_ACCEPTED_PER_SECOND", 500)
    with lab(tmp_path, "redis-1", kick=False) as made:
        server = made.redis("redis-1")
        fill(server.client())
        config = made.host_config("redis-1", server, receipt_timeout_seconds=0.1)

        def accept_late() -> None:
            wait_until(lambda: list(made.server.inbox.glob("*/*/manifest.json")), "the upload")
            time.sleep(1)
            made.server.accept_process()

        late = threading.Thread(target=accept_late)
        late.start()
        result = run("create", "--now", "--config", config)
        late.join()
        assert result.code == 0, result.text


def test_redis_comes_first(tmp_path: Path) -> None:
    """What walks and compresses stands back; the manifest says what it took, and the settings."""
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1", rdbcompression="no", databases="20")
        fill(server.client())
        programs = tmp_path / "programs"
        programs.mkdir()
        told = programs / "zstd"
        zstd = shutil.which("zstd")
        told.write_text(f'#!/bin/sh\n(nice; ionice) >{tmp_path}/told\nexec {zstd} "$@"\n')
        told.chmod(0o755)
        config = made.host_config("redis-1", server)
        path = f"{programs}:{os.environ['PATH']}"
        result = run_process("create", "--now", "--json", "--config", config, PATH=path)
        assert result.code == 0, result.text
        assert (tmp_path / "told").read_text().split() == ["19", "idle"]
        [stored] = made.server.store.glob(f"*/{result.json['id']}/manifest.json")
        data = json.loads(stored.read_text())
        assert set(data["seconds"]) == {"snapshot", "walk", "compress"}
        assert all(0 <= spent < 60 for spent in data["seconds"].values())
        settings = data["settings"]
        assert (settings["rdbcompression"], settings["databases"]) == ("no", "20")
        assert settings["hash-max-listpack-value"] == "64"
        assert not [name for name in settings if "ziplist" in name]


def test_a_compressor_that_ends_early_is_told(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        programs = tmp_path / "programs"
        programs.mkdir()
        (programs / "zstd").write_text("#!/bin/sh\necho no room for me >&2\nexit 3\n")
        (programs / "zstd").chmod(0o755)
        config = made.host_config("redis-1", server)
        path = f"{programs}:{os.environ['PATH']}"
        result = run_process("create", "--now", "--config", config, PATH=path)
        refused(result, "zstd failed on", "no room for me")
        assert left(server) == []


def test_a_receipt_of_another_repository_confirms_nothing(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        own = identity_module.require(made.server.loaded())
        other = "00000000-0000-0000-0000-000000000000"
        config = made.host_config("redis-1", server, repository=other)
        refused(
            run("create", "--now", "--config", config),
            f"keeps another repository ({own})",
            f"was deployed with ({other})",
            "is the file system of the store mounted there?",
        )
        assert left(server) == []
        config = made.host_config("redis-1", server, repository=own)
        assert run("create", "--now", "--config", config).code == 0


def test_no_backup_while_a_restore_is_at_work(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        path = tmp_path / "lease.json"
        config = made.host_config("redis-1", server, lease=str(path))
        found = lease.Lease(SET, "plan-1", None, (), "redis-3", "2026-01-02T03:04:06Z")
        path.write_bytes(lease.encode(found))
        saves = server.client().info("persistence")["rdb_saves"]
        for arguments in (("--now",), ()):
            refused(
                run("create", *arguments, "--config", config),
                "a restore onto redis-3 (plan plan-1, until 2026-01-02T03:04:06Z) is at work",
            )
        path.write_text("{")
        refused(run("create", "--config", config), str(path), "not valid JSON")
        assert server.client().info("persistence")["rdb_saves"] == saves
        assert not list(made.server.inbox.rglob("dump.rdb.zst"))
        path.unlink()
        assert run("create", "--config", config).code == 0


def test_deferred_by_the_server(tmp_path: Path) -> None:
    """What takes the backup server long is not rejected, and the host is told what it waits for."""
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        many = "for k = 1, 200000 do redis.call('set', k, k) end"
        server.client().eval(many, 0)
        script = made.server.root / "kick"
        right = script.read_text()
        impatient = (
            "import runpy, sys; "
            f"sys.path.insert(0, '{PACKAGE}'); "
            "from redis_backup.repository import patience; "
            "patience._FIRST = patience._LEAST = 0.02; patience._AGAIN = 1; "
            f"sys.argv = ['redis-backup', '--config', '{made.server.config}', 'accept']; "
            "runpy.run_module('redis_backup', run_name='__main__')"
        )
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{impatient}"\n')
        config = made.host_config("redis-1", server, receipt_timeout_seconds=8)
        result = run("create", "--now", "--config", config)
        refused(
            result,
            "uploaded, not confirmed",
            "deferred by the backup server: verifying it takes more than",
            "it goes on trying",
        )
        assert left(server) == []
        [upload] = (made.server.inbox / "redis-1").iterdir()
        checked = run("--config", made.server.config, "check").out
        assert f"deferred: {upload.name} of redis-1 waits since" in checked, checked
        script.write_text(right)
        wait_until(lambda: not made.server.started(), "the end of what the transfer started")
        assert made.server.accept().json["accepted"] == [f"{SET}/{upload.name}"]
        assert made.server.receipt(upload.name)["status"] == "accepted"


def test_rejected_by_the_server(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        made.server.write_config(uploads_per_day=1)
        config = made.host_config("redis-1", server)
        assert run("create", "--now", "--config", config).code == 0
        refused(run("create", "--now", "--config", config), "rejected", "the limit is 1")


def test_killed_in_the_middle_leaves_nothing_that_hurts(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1", rdb_key_save_delay="100000")
        server.client().mset({f"key:{number}": number for number in range(100)})
        config = made.host_config("redis-1", server)
        process = subprocess.Popen(
            [sys.executable, "-m", "redis_backup", "--config", str(config), "create", "--now"],
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with process:
            wait_until(
                lambda: server.client().info("persistence")["rdb_bgsave_in_progress"], "BGSAVE"
            )
            process.send_signal(signal.SIGTERM)
            said = process.communicate()[0].decode()
        assert process.returncode == 1
        assert "stopped by SIGTERM" in said
        assert "Traceback" not in said
        assert left(server) == []
        server.client().config_set("rdb-key-save-delay", 0)
        server.signal_child(signal.SIGUSR1)
        assert run("create", "--now", "--config", config).code == 0


class Set:
    """A master and two replicas on loopback."""

    def __init__(self, made: Lab) -> None:
        self.made = made
        self.ports = {name: free_port() for name in ("redis-1", "redis-2", "redis-3")}
        self.processes: dict[str, RedisProcess] = {}
        for name, port in self.ports.items():
            self.processes[name] = (
                made.redis(name, port=port)
                if name == "redis-1"
                else made.redis(name, port=port, replicaof=f"127.0.0.1 {self.ports['redis-1']}")
            )
        fill(self.processes["redis-1"].client())
        self.wait()

    def wait(self) -> None:
        """Wait until both replicas are in sync."""

        def in_sync() -> bool:
            info = self.processes["redis-1"].client().info("replication")
            states = [info[f"slave{number}"]["state"] for number in range(info["connected_slaves"])]
            return states == ["online", "online"]

        wait_until(in_sync, "two replicas")

    def config(self, name: str, **changes: Any) -> Path:
        """The configuration of a host of the set."""
        hosts = [
            {"name": host, "address": "127.0.0.1", "port": port}
            for host, port in self.ports.items()
        ]
        return self.made.host_config(name, self.processes[name], hosts=hosts, **changes)


def test_turns_of_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab(tmp_path, "redis-1", "redis-2", "redis-3") as made:
        group = Set(made)
        configs = {name: group.config(name) for name in group.ports}
        results: dict[str, Result] = {}

        waited: dict[str, float] = {}

        # As cron starts them: the first in turn makes its backup while the others wait.
        def wait_of_redis_3(seconds: float) -> None:
            waited["redis-3"] = seconds
            monkeypatch.setattr(standing, "time", clock(wait_of_redis_1))
            results["redis-1"] = run("create", "--json", "--config", configs["redis-1"])

        def wait_of_redis_1(seconds: float) -> None:
            waited["redis-1"] = seconds
            monkeypatch.undo()
            results["redis-2"] = run("create", "--json", "--config", configs["redis-2"])

        group.config("redis-3", turn_delay_seconds=3600)
        group.config("redis-1", turn_delay_seconds=3600)
        monkeypatch.setattr(standing, "time", clock(wait_of_redis_3))
        results["redis-3"] = run("create", "--json", "--config", configs["redis-3"])
        assert waited == {"redis-3": 3600, "redis-1": 7200}
        assert results["redis-2"].code == 0, results["redis-2"].text
        backup_id = results["redis-2"].json["id"]
        assert results["redis-2"].json["role"] == "replica"
        assert results["redis-2"].json["freshness"] == "ok"
        for name in ("redis-3", "redis-1"):
            refused(results[name], "not this host's turn", backup_id, code=75)
        assert backup_id.endswith("-redis-2")

        # Receipts that were there before make nobody yield.
        group.config("redis-3", turn_delay_seconds=0.1)
        result = run("create", "--json", "--config", configs["redis-3"])
        assert result.code == 0, result.text
        assert "no other backup appeared" in result.err

        # Receipts that cannot be read make nobody yield either.
        group.config(
            "redis-1",
            turn_delay_seconds=0.1,
            receipt_timeout_seconds=0,
            transport={"receipts_module": "nothing"},
        )
        result = run("create", "--json", "--config", configs["redis-1"])
        assert "receipts cannot be read, so this host acts" in result.err
        assert "uploaded, not confirmed" in result.err


def test_a_replica_whose_link_is_down(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1", "redis-2", "redis-3") as made:
        group = Set(made)
        config = group.config("redis-2")
        group.processes["redis-1"].stop()
        client = group.processes["redis-2"].client()
        wait_until(
            lambda: client.info("replication")["master_link_status"] == "down", "the link to drop"
        )
        saves = client.info("persistence")["rdb_saves"]
        for arguments in (("create",), ("create", "--now")):
            refused(run(*arguments, "--config", config), "link", "is down")
        assert client.info("persistence")["rdb_saves"] == saves


def test_a_replica_of_a_strange_master(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-2") as made:
        port = free_port()
        made.redis("strange", port=port)
        replica = made.redis("redis-2", port=free_port(), replicaof=f"127.0.0.1 {port}")
        client = replica.client()
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the link")
        config = made.host_config("redis-2", replica)
        refused(run("create", "--now", "--config", config), "no host of set")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "other"}, ("kind", "host, server, drill")),
        ({"surprise": 1}, ("unknown key", "surprise")),
        ({"set": "../etc"}, ("set", "not allowed")),
        ({"zstd_level": "3"}, ("zstd_level", "whole number")),
        ({"redis": {"port": 70000, "unixsocket": None, "address": "127.0.0.1"}}, ("port", "70000")),
        ({"hosts": []}, ("hosts", "does not name this host")),
        ({"turn_delay_seconds": -1}, ("turn_delay_seconds", "at least 0")),
    ],
)
def test_configuration_that_is_wrong(
    shared: Lab, server: RedisProcess, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    config = shared.host_config("redis-1", server, **change)
    refused(run("create", "--config", config), str(config), *words, code=2)


def test_configuration_that_cannot_be_read(
    shared: Lab, server: RedisProcess, tmp_path: Path
) -> None:
    refused(run("create", "--config", tmp_path / "none.json"), "no such configuration", code=2)
    refused(run("create", "--config", tmp_path), "not a file", code=2)
    config = shared.host_config("redis-1", server)
    config.chmod(0o640)
    refused(run("create", "--config", config), "0640", "0600", code=2)
    config.chmod(0o600)
    text = config.read_text()
    for content in (
        "{",
        "[]",
        '{"kind": "host", "kind": "host"}',
        "\udcff",
        text[:-1] + ',"a":NaN}',
    ):
        config.write_text(content, errors="surrogateescape")
        refused(run("create", "--config", config), str(config), code=2)


def test_commands_of_other_hosts(shared: Lab, server: RedisProcess) -> None:
    config = shared.host_config("redis-1", server)
    for command in (("accept",), ("list",), ("show", "x"), ("verify",)):
        refused(run("--config", config, *command), "works on the backup server", code=2)
    refused(run("--config", config, "drill"), "works on the drill host", code=2)
    refused(run("--config", shared.server.config, "create"), "works on a Redis host", code=2)


def test_usage() -> None:
    assert run().code == 2
    assert run("nothing").code == 2
    assert run("show").code == 2
    assert run("--help").code == 0


def test_errors_as_json(tmp_path: Path) -> None:
    result = run("--json", "create", "--config", tmp_path / "none.json")
    assert json.loads(result.out)["exit"] == 2
    assert "no such configuration" in json.loads(result.out)["error"]
