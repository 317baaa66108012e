"""What keeps a Redis host from making its backup, or from delivering it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support import runbooks
from tests.support.live import Play, accept, ask, info, setting, wait_for

REDIS = ("redis-1", "redis-2", "redis-3")
DATA = "/mnt/redis_data"
SERVER = "/var/lib/redis-backup"

# The host's configuration with a few keys changed, in a file of its own beside nobody's.
CHANGED = """
import json, os, pwd, sys
with open("/etc/redis-backup/redis.json") as file:
    config = json.load(file)
for key, value in json.loads(sys.argv[1]).items():
    if isinstance(value, dict):
        config[key].update(value)
    else:
        config[key] = value
user = pwd.getpwnam("redis")
path = "/run/changed.json"
descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
os.fchown(descriptor, user.pw_uid, user.pw_gid)
with os.fdopen(descriptor, "w") as file:
    json.dump(config, file)
"""
HASTE = {"retry_delays_seconds": [0.1]}


def create(host: Any, *arguments: str, **changes: Any) -> Any:
    """Run `redis-backup create` as cron does, with changes to the configuration."""
    host.check_output("python3 -c %s %s", CHANGED, json.dumps(changes))
    words = " ".join(("create", *arguments))
    return host.run(f"runuser -u redis -- redis-backup --config /run/changed.json {words}")


def refused(done: Any, *references: str) -> None:
    """The command failed with an error that a runbook quotes, and no traceback."""
    assert done.rc == 1, done
    assert "Traceback" not in done.stderr
    for reference in references:
        assert runbooks.is_seen(reference, done.stderr), done.stderr


def accepted(hosts: dict[str, Any]) -> list[str]:
    """The ids of all backups, oldest first."""
    lines = hosts["backup-1"].check_output(f"cat {SERVER}/store/redis/catalogue.jsonl")
    entries = map(json.loads, lines.splitlines())
    return [entry["id"] for entry in entries if entry["event"] == "accepted"]


def nothing_is_left(host: Any) -> bool:
    return bool(host.check_output(f"ls -A {DATA}/.redis-backup") == "lock")


def in_sync(hosts: dict[str, Any]) -> None:
    def both_links_are_up() -> bool:
        links = [info(hosts[name], "replication") for name in REDIS[1:]]
        return [link["master_link_status"] for link in links] == ["up", "up"]

    wait_for(both_links_are_up, 120)


@contextmanager
def small_disk(host: Any, path: str, size: str, user: str) -> Iterator[None]:
    """A small file system in the place of a directory, with what was in it."""
    kept = f"/var/tmp/kept{path.replace('/', '-')}"
    mode = host.check_output(f"stat -c %a {path}")
    host.check_output(
        f"rm -rf {kept} && cp -a {path} {kept} && mount -t tmpfs -o size={size} none {path}"
        f" && chown {user}:{user} {path} && chmod {mode} {path} && cp -a {kept}/. {path}/"
    )
    try:
        yield
    finally:
        host.check_output(f"umount --lazy {path} && rm -rf {kept}")


def fill(host: Any, path: str, leave: int) -> None:
    """Fill the disk of a directory up to so many KiB."""
    free = int(host.check_output(f"df --output=avail -k {path} | tail -1"))
    host.check_output(f"fallocate -l {free - leave}K {path}/filler")


# --- the disk of the data, and whose turn it is ---


@pytest.fixture(scope="class")
def small_data_disk(hosts: dict[str, Any]) -> Iterator[Any]:
    """redis-2, first in turn, keeps its data on a disk of 64 MiB."""
    host = hosts["redis-2"]
    host.check_output("systemctl stop redis-server")
    with small_disk(host, DATA, "64m", "redis"):
        host.check_output("systemctl start redis-server")
        in_sync(hosts)
        yield host
        host.check_output("systemctl stop redis-server")
    host.check_output("systemctl start redis-server")
    in_sync(hosts)


class TestFullDisk:
    def test_the_first_hosts_disk_is_full_and_a_backup_appears_all_the_same(
        self, hosts: dict[str, Any], small_data_disk: Any
    ) -> None:
        fill(small_data_disk, DATA, leave=4096)
        before = info(small_data_disk, "persistence")
        # Seconds, times the rank: redis-1 waits for longer than redis-3 needs, even when its
        # upload is found by the timer of redis-backup-accept.
        delays = {"redis-1": 30, "redis-2": 1, "redis-3": 1}
        with ThreadPoolExecutor() as pool:  # at the same time, as cron starts them
            runs = {
                name: pool.submit(create, hosts[name], turn_delay_seconds=delays[name])
                for name in REDIS
            }
            done = {name: run.result() for name, run in runs.items()}
        assert "filler" in small_data_disk.check_output(
            runbooks.block("no-room-on-a-redis-host#look")
        )
        assert small_data_disk.run(runbooks.block("stale-replica#log")).rc == 0
        small_data_disk.check_output(f"rm {DATA}/filler")
        refused(done["redis-2"], "no-room-on-a-redis-host#snapshot")
        assert done["redis-3"].rc == 0, done["redis-3"]
        assert done["redis-1"].rc == 75, done["redis-1"]
        assert runbooks.is_seen("backup-is-late#turn", done["redis-1"].stderr), done["redis-1"]
        assert accepted(hosts)[-1].endswith("-redis-3")
        # No BGSAVE was tried, so none could fail and make Redis refuse writes.
        after = info(small_data_disk, "persistence")
        assert after["rdb_saves"] == before["rdb_saves"]
        assert after["rdb_last_bgsave_status"] == "ok"
        assert nothing_is_left(small_data_disk)

    def test_a_disk_that_fills_while_redis_saves(
        self, hosts: dict[str, Any], small_data_disk: Any
    ) -> None:
        host = small_data_disk
        ask(hosts["redis-1"], "EVAL", "for i = 1, 500 do redis.call('set', 'k' .. i, i) end", "0")
        ask(host, "CONFIG", "SET", "rdb-key-save-delay", "200000")
        reserve = {"disk_reserve_bytes": 16 * 2**20}
        with ThreadPoolExecutor() as pool:
            run = pool.submit(create, host, "--now", **reserve)

            def saving() -> bool:
                return bool(info(host, "persistence")["rdb_bgsave_in_progress"])

            wait_for(saving)
            fill(host, DATA, leave=2048)
            refused(run.result(), "no-room-on-a-redis-host#meanwhile")
        assert info(host, "persistence")["rdb_last_bgsave_status"] == "ok"
        assert nothing_is_left(host)
        assert not host.run(f"ls {DATA}/temp-*.rdb").stdout
        # With room again, the next run is good.
        ask(host, "CONFIG", "SET", "rdb-key-save-delay", "0")
        host.check_output(f"rm {DATA}/filler")
        assert create(host, "--now", **reserve).rc == 0


def test_without_a_replica_in_sync_the_master_acts(hosts: dict[str, Any]) -> None:
    in_sync(hosts)
    passwords = {name: setting(hosts[name], "masterauth") for name in REDIS[1:]}
    for name in passwords:
        ask(hosts[name], "CONFIG", "SET", "masterauth", "wrong")
        ask(hosts[name], "CLIENT", "KILL", "TYPE", "master")

    def no_link_is_up() -> bool:
        return not any(
            info(hosts[name], "replication")["master_link_status"] == "up" for name in passwords
        )

    try:
        wait_for(no_link_is_up)
        refused(create(hosts["redis-2"]), "stale-replica#link")
        assert nothing_is_left(hosts["redis-2"])
        # Nobody is before it, so it waits for nobody.
        done = create(hosts["redis-1"], turn_delay_seconds=3600)
        assert done.rc == 0, done
        assert accepted(hosts)[-1].endswith("-redis-1")
    finally:
        for name, password in passwords.items():
            ask(hosts[name], "CONFIG", "SET", "masterauth", password)
    in_sync(hosts)
    said = hosts["redis-2"].check_output(runbooks.block("stale-replica#turn"))
    assert "redis-2 is a replica of set redis: rank 0" in said


def test_two_hosts_at_once_do_no_harm(hosts: dict[str, Any]) -> None:
    before = accepted(hosts)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(create, hosts[name], "--now") for name in REDIS[1:]]
        assert [run.result().rc for run in runs] == [0, 0]
    new = accepted(hosts)[len(before) :]
    assert sorted(backup_id.partition("-")[2] for backup_id in new) == list(REDIS[1:])


# --- Redis itself ---


def test_redis_is_down(hosts: dict[str, Any]) -> None:
    host = hosts["redis-3"]
    host.check_output("systemctl stop redis-server")
    refused(create(host, "--now"), "redis-does-not-answer#down")
    assert host.run(runbooks.block("redis-does-not-answer#log")).rc == 0
    assert host.run(runbooks.block("redis-does-not-answer#start")).rc == 0
    in_sync(hosts)
    assert create(host, "--now").rc == 0


# --- the way to the backup server ---


def test_the_backup_server_is_down(hosts: dict[str, Any]) -> None:
    hosts["backup-1"].check_output("systemctl stop redis-backup-rsyncd")
    done = create(hosts["redis-2"], "--now", transport=HASTE)
    refused(done, "backup-server-unreachable#down", "backup-server-unreachable#again")
    assert nothing_is_left(hosts["redis-2"])
    assert hosts["backup-1"].run(runbooks.block("backup-server-unreachable#start")).rc == 0
    assert create(hosts["redis-2"], "--now").rc == 0


def test_a_wrong_secret(hosts: dict[str, Any], play: Callable[..., Play]) -> None:
    host = hosts["redis-2"]
    spoil = 's/("secret": ").*(")/\\1not-this-one\\2/'
    host.check_output("sed -Ei %s /etc/redis-backup/redis.json", spoil)
    done = create(host, "--now", transport=HASTE)
    refused(done, "backup-server-unreachable#secret")
    assert "not-this-one" not in done.stdout + done.stderr
    assert nothing_is_left(host)
    # The page's remedy.
    mended = play(*runbooks.playbook("backup-server-unreachable#deploy"))
    assert mended.code == 0, mended.output[-3000:]
    assert create(host, "--now").rc == 0


# --- the disk of the backup server ---


@pytest.fixture
def large_data(hosts: dict[str, Any]) -> Iterator[None]:
    """4 MiB that cannot be compressed."""
    noise = "local s = {} for i = 1, 4096 do s[i] = string.char(math.random(0, 255)) end"
    script = f"for k = 1, 1024 do {noise} redis.call('set', 'n' .. k, table.concat(s)) end"
    ask(hosts["redis-1"], "EVAL", script, "0", db=3)
    yield
    ask(hosts["redis-1"], "FLUSHDB", db=3)


def test_the_inbox_is_full(hosts: dict[str, Any], large_data: None) -> None:
    server = hosts["backup-1"]
    before = accepted(hosts)
    with small_disk(server, f"{SERVER}/inbox/redis-2", "1m", "redis-backup"):
        # What is mounted while it runs does not show in its view of the system.
        server.check_output("systemctl restart redis-backup-rsyncd")
        refused(create(hosts["redis-2"], "--now", transport=HASTE), "backup-server-full#inbox")
        assert nothing_is_left(hosts["redis-2"])
        # Another host's inbox is another one.
        assert create(hosts["redis-3"], "--now").rc == 0
    server.check_output("systemctl restart redis-backup-rsyncd")
    assert len(accepted(hosts)) == len(before) + 1
    assert create(hosts["redis-2"], "--now").rc == 0


def test_the_store_is_full(hosts: dict[str, Any]) -> None:
    server = hosts["backup-1"]
    before = accepted(hosts)
    with small_disk(server, f"{SERVER}/store", "64m", "redis-backup"):
        done = create(hosts["redis-2"], "--now", receipt_timeout_seconds=4)
        refused(done, "backup-server-full#unconfirmed")
        accept(server, 1)
        said = server.check_output(runbooks.block("backup-server-full#log"))
        assert runbooks.is_seen("backup-server-full#store", said), said
        late = server.run(runbooks.block("backup-server-full#check"))
        assert late.rc == 1
        assert runbooks.is_seen("backup-server-full#disk", late.stdout), late.stdout
        # What is there is whole, and waits in the inbox.
        assert server.run("runuser -u redis-backup -- redis-backup verify --all").rc == 0
        assert accepted(hosts) == before
        (waiting,) = server.check_output(f"ls {SERVER}/inbox/redis-2").split()
    server.check_output(runbooks.block("backup-server-full#accept"))

    def it_is_accepted() -> bool:
        return accepted(hosts) == [*before, waiting]

    wait_for(it_is_accepted)
    wait_for(lambda: server.check_output(f"ls {SERVER}/inbox/redis-2") == "")
