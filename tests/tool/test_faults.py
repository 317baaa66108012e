"""Faults of backups: a clear line, nothing lost, nothing left behind, and a good backup next.

What only whole hosts show (full disks, units, accounts) is in the Molecule scenario ``faults``.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from redis_backup.base import files
from redis_backup.host import create as create_module
from redis_backup.host import snapshot
from redis_backup.host import standing as standing_module
from redis_backup.rdb import walker

from tests.support import runbooks, servers
from tests.support.wire import Wire
from tests.tool.backup_lab import (
    PACKAGE,
    SET,
    Lab,
    RedisProcess,
    Result,
    fill,
    free_port,
    lab,
    refusal,
    run,
    wait_until,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "rdb"


def refused(result: Result, reference: str, *words: str) -> None:
    """The command failed with one line, which a runbook quotes."""
    last = refusal(result, *words)
    assert runbooks.is_seen(reference, last), last


def left(server: RedisProcess) -> list[str]:
    """What is left in the data directory of a server, beside the data and the lock."""
    found = {str(path.relative_to(server.data)) for path in server.data.rglob("*")}
    return sorted(found - {"dump.rdb", ".redis-backup", ".redis-backup/lock"})


def a_backup_works(config: Path) -> str:
    """The next run makes a backup; its id."""
    result = run("create", "--now", "--json", "--config", config)
    assert result.code == 0, result.text
    return str(result.json["id"])


def wait_for_empty_inbox(made: Lab) -> None:
    """An upload is removed after its host was told of it."""
    inbox = made.server.inbox / "redis-1"
    wait_until(lambda: not list(inbox.iterdir()), "an empty inbox")


# --- the network ---


def loaded(made: Lab, size: int = 400_000) -> RedisProcess:
    """A Redis whose backup is about so large: what cannot be compressed is as large as it was."""
    server = made.redis("redis-1")
    noise = "local s = {} for i = 1, 1000 do s[i] = string.char(math.random(0, 255)) end"
    script = f"for k = 1, ARGV[1] do {noise} redis.call('set', 'k' .. k, table.concat(s)) end"
    server.client().eval(script, 0, size // 1000)
    return server


def test_a_wire_that_is_cut_in_mid_transfer(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made, Wire(made.server.port) as wire:
        server = loaded(made)
        wire.cut_after = 200_000
        config = made.host_config("redis-1", server, transport={"port": wire.port})
        refused(
            run("create", "--now", "--config", config), "backup-server-unreachable#cut", "2 times"
        )
        assert wire.sent > 200_000, "it was never in the middle"
        assert left(server) == []
        assert not list(made.server.inbox.rglob("manifest.json"))
        # The one that the transfer kicked may still hold the lock.
        wait_until(lambda: made.server.accept().code == 0, "half an upload is nobody's fault")
        wire.cut_after = None
        backup_id = a_backup_works(config)
        assert run("--config", made.server.config, "verify", backup_id).code == 0


def test_a_wire_that_is_cut_once_is_tried_again(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made, Wire(made.server.port) as wire:
        server = loaded(made)
        wire.cut_after, wire.cuts = 200_000, 1
        config = made.host_config("redis-1", server, transport={"port": wire.port})
        result = run("create", "--now", "--json", "--config", config)
        assert result.code == 0, result.text
        assert runbooks.is_seen("backup-server-unreachable#again", result.err), result.err
        [accepted] = [path.name for path in (made.server.store / SET).iterdir() if path.is_dir()]
        assert accepted == result.json["id"]
        wait_for_empty_inbox(made)


def test_a_wire_that_carries_nothing_more(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made, Wire(made.server.port) as wire:
        server = loaded(made)
        wire.freeze_after = 200_000
        config = made.host_config(
            "redis-1",
            server,
            transport={"port": wire.port, "timeout_seconds": 1, "retry_delays_seconds": []},
        )
        refused(run("create", "--now", "--config", config), "backup-server-unreachable#silent")
        assert left(server) == []


def test_a_slow_wire_is_good_enough(tmp_path: Path) -> None:
    """Slower in all than rsync's time-out, which is about silence.

    The kernel takes all of so small a backup at once: then the client hears only what rsync's
    daemon says each half time-out to keep it. The other half, but for the second to which rsync's
    clock is exact, is what a busy machine may take.
    """
    timeout = 10
    with lab(tmp_path, "redis-1") as made, Wire(made.server.port) as wire:
        server = loaded(made)
        wire.rate = 35_000
        config = made.host_config(
            "redis-1",
            server,
            transport={
                "port": wire.port,
                "timeout_seconds": timeout,
                "retry_delays_seconds": [],
            },
        )
        started = time.monotonic()
        a_backup_works(config)
        assert time.monotonic() - started > timeout


# --- clocks ---


def settle(made: Lab) -> None:
    """Wait for each `accept` that transfers have started: one that is late takes the next upload,
    by the clock that it has.
    """
    assert made.server.process is not None
    wait_until(lambda: not made.server.started(), "the end of what transfers started")


def shifted_acceptance(made: Lab, seconds: int) -> None:
    """Let the runs of `accept` of a lab live at another time than its Redis hosts, also by the
    ctime of what arrives.
    """
    settle(made)
    script = made.server.root / "kick"
    program = (
        "import sys, time, runpy; real = time.time; "
        f"time.time = lambda: real() + {seconds}; "
        f"sys.path.insert(0, '{PACKAGE}'); "
        "from redis_backup.repository import inbox; touched = inbox.touched; "
        f"inbox.touched = lambda *of: touched(*of) + {seconds}; "
        f"sys.argv = ['redis-backup', '--config', '{made.server.config}', 'accept']; "
        "runpy.run_module('redis_backup', run_name='__main__')"
    )
    # Files carry the time of this machine: receipts would be too old at once.
    made.server.write_config(receipts_min_age_seconds=2**40)
    script.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "{program}" >>{made.server.root}/accept.log 2>&1\n'
    )


@pytest.mark.parametrize("days", [-366, -2, 2, 366])
def test_a_clock_that_is_days_off_is_told_and_costs_nothing(tmp_path: Path, days: int) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        config = made.host_config("redis-1", server)
        first = a_backup_works(config)
        right = (made.server.root / "kick").read_text()
        shifted_acceptance(made, days * 86400)
        refused(run("create", "--now", "--config", config), "clock#rejected")
        assert left(server) == []
        settle(made)
        assert not list((made.server.inbox / "redis-1").iterdir())
        (made.server.root / "kick").write_text(right)
        second = a_backup_works(config)
        result = run("--config", made.server.config, "--json", "list")
        assert [item["id"] for item in result.json["backups"]] == [second, first]
        assert run("--config", made.server.config, "check").code == 0


@pytest.mark.parametrize("hours", [-20, 20])
def test_a_clock_that_is_hours_off_makes_no_backup_newer_than_it_is(
    tmp_path: Path, hours: int
) -> None:
    """A host that lives in the future gets no further than now: the next one of a host whose clock
    is right is newer.
    """
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        config = made.host_config("redis-1", server)
        right = (made.server.root / "kick").read_text()
        # Seen from the server, the host is so many hours ahead, or behind.
        shifted_acceptance(made, -hours * 3600)
        odd = a_backup_works(config)
        settle(made)
        (made.server.root / "kick").write_text(right)
        last = a_backup_works(config)
        result = run("--config", made.server.config, "--json", "list")
        assert {item["id"] for item in result.json["backups"]} == {odd, last}
        newest = run("--config", made.server.config, "--json", "status").json["sets"][0]["newest"]
        assert newest["id"] == last


# --- Redis ---


def test_redis_goes_away_while_it_saves(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1", rdb_key_save_delay="200000")
        server.client().mset({f"key:{number}": number for number in range(200)})
        config = made.host_config("redis-1", server)

        def gone() -> None:
            wait_until(
                lambda: server.client().info("persistence")["rdb_bgsave_in_progress"], "BGSAVE"
            )
            server.stop()

        killer = threading.Thread(target=gone)
        killer.start()
        result = run("create", "--now", "--config", config)
        killer.join()
        refused(result, "redis-does-not-answer#down")
        # What is there is what its server left: it would have removed it, had it lived.
        assert [name for name in left(server) if not name.startswith("temp-")] == []


# --- a replica that is stale and does not know ---


def test_a_stale_replica_that_believes_to_be_in_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its link carries nothing more and is still up: BGSAVE would say ok, and save old data."""
    monkeypatch.setattr(standing_module, "_SYNC_TIMEOUT", 1.0)
    with lab(tmp_path, "redis-2") as made:
        own, upstream = free_port(), free_port()
        master = made.redis("redis-1", port=upstream)
        with Wire(upstream) as wire:
            replica = made.redis("redis-2", port=own, replicaof=f"127.0.0.1 {wire.port}")
            client = replica.client()
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the link")
            hosts = [
                {"name": "redis-1", "address": "127.0.0.1", "port": wire.port},
                {"name": "redis-2", "address": "127.0.0.1", "port": own},
            ]
            config = made.host_config("redis-2", replica, hosts=hosts)
            a_backup_works(config)

            wire.frozen.set()
            master.client().set("never", "arrives")
            assert client.info("replication")["master_link_status"] == "up"
            saves = client.info("persistence")["rdb_saves"]
            refused(run("create", "--now", "--config", config), "stale-replica#behind")
            assert left(replica) == []
            assert client.info("persistence")["rdb_saves"] == saves

            # Redis itself has nothing against it, but what it saves tells its own offset, and
            # that is what a snapshot is held against.
            assert client.bgsave()
            wait_until(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "its save")
            assert client.info("persistence")["rdb_last_bgsave_status"] == "ok"
            walked = walker.inspect(replica.data / "dump.rdb")
            info = {key: str(value) for key, value in master.client().info().items()}
            position = standing_module._position(info)
            standing = standing_module.Standing(False, 0, "redis-1", position)
            with pytest.raises(Exception, match="stale") as caught:
                create_module.check_snapshot(walked, 0, standing)
            assert runbooks.is_seen("stale-replica#snapshot", str(caught.value))


# --- the disk of the data ---


@pytest.mark.parametrize("suite", sorted(servers.SUITES))
def test_the_memory_of_a_dump_is_in_its_head(suite: str) -> None:
    release = servers.SUITES[suite]
    files = sorted((FIXTURES / f"redis-{release}").glob("*.rdb"))
    assert files
    for path in files:
        told = snapshot.memory_of_dump(path.read_bytes()[:1024])
        assert told == int(walker.inspect(path).aux["used-mem"])


@pytest.mark.parametrize(
    ("head", "memory"),
    [
        (b"REDIS0010\xfa\x08used-mem\xc0\x7f", 127),
        (b"REDIS0010\xfa\x08used-mem\xc1\x00\x80", 32768),
        (b"REDIS0010\xfa\x08used-mem\x0a9876543210\xfa", 9876543210),
        (b"REDIS0010\xfa\x08used-mem\x03abc", None),
        (b"REDIS0010\xfa\x08used-mem", None),
        (b"REDIS0010\xfe", None),
        (b"", None),
    ],
)
def test_memory_of_a_dump(head: bytes, memory: int | None) -> None:
    assert snapshot.memory_of_dump(head) == memory


def test_a_save_is_stopped_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BGSAVE that failed would make this master refuse every write."""
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1", save="3600 1", rdb_key_save_delay="200000")
        client = server.client()
        client.mset({f"key:{number}": number for number in range(200)})
        config = made.host_config("redis-1", server)
        real = files.free_bytes

        def filled_meanwhile(path: Path) -> int:
            return 100 if client.info("persistence")["rdb_bgsave_in_progress"] else real(path)

        with monkeypatch.context() as patch:
            patch.setattr(snapshot, "free_bytes", filled_meanwhile)
            result = run("create", "--now", "--config", config)
        assert result.code == 1, result.text
        assert "the save was stopped before it failed" in result.err
        assert client.info("persistence")["rdb_last_bgsave_status"] == "ok"
        assert client.set("still", "writable")
        assert left(server) == []
        client.config_set("rdb-key-save-delay", 0)
        a_backup_works(config)


def test_the_disk_fills_while_it_is_compressed(tmp_path: Path) -> None:
    """A limit on the size of files ends zstd in the middle, as a full disk does."""
    with lab(tmp_path, "redis-1") as made:
        server = loaded(made)
        config = made.host_config("redis-1", server)
        done = subprocess.run(
            [
                *("bash", "-c", 'ulimit -f 100; exec "$@"', "-"),
                *(sys.executable, "-m", "redis_backup", "--config", config, "create", "--now"),
            ],
            env={"PYTHONPATH": str(PACKAGE), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert "zstd failed on" in done.stderr
        assert "ended by signal" in done.stderr
        assert left(server) == []
        a_backup_works(config)


# --- whose turn it is ---


def test_two_at_once_are_two_backups(tmp_path: Path) -> None:
    """Nobody sees the other's receipt in time: both act, and that is no harm."""
    with lab(tmp_path, "redis-1", "redis-2") as made:
        configs = {}
        for name in ("redis-1", "redis-2"):
            server = made.redis(name)
            fill(server.client())
            configs[name] = made.host_config(name, server)
        results: dict[str, Result] = {}
        processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", "redis_backup", "--config", str(path), "create", "--now"],
                env={"PYTHONPATH": str(PACKAGE), "PATH": "/usr/bin:/bin"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name, path in configs.items()
        }
        for name, process in processes.items():
            said = process.communicate()[0]
            results[name] = Result(process.returncode, said, "")
        assert {name: result.code for name, result in results.items()} == {
            "redis-1": 0,
            "redis-2": 0,
        }, results
        listed = run("--config", made.server.config, "--json", "list").json["backups"]
        assert sorted(item["host"] for item in listed) == ["redis-1", "redis-2"]
        assert run("--config", made.server.config, "verify", "--all").code == 0
