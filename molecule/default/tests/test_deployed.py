"""What a fresh deployment is: replication, persistence, access, confinement."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.live import ask, info, setting, wait_for

pytestmark = pytest.mark.first

testinfra_hosts = ["redis"]

CONFIG_FILE = "/etc/redis/redis.conf"
DROPIN = "/etc/systemd/system/redis-server.service.d/50-managed.conf"


def main_pid(host: Any) -> str:
    return str(host.check_output("systemctl show --property MainPID --value redis-server.service"))


def test_replication(host: Any, hosts: dict[str, Any]) -> None:
    name = host.check_output("hostname")
    state = info(host, "replication")
    if name == "redis-1":
        assert state["role"] == "master"
        assert state["connected_slaves"] == 2
        replicas = [state["slave0"], state["slave1"]]
        assert {replica["state"] for replica in replicas} == {"online"}

        def both_answer() -> bool:
            now = info(host, "replication")
            return all(now[name]["lag"] <= 1 for name in ("slave0", "slave1"))

        wait_for(both_answer)
        assert len({replica["ip"] for replica in replicas}) == 2
    else:
        assert state["role"] == "slave"
        assert state["master_link_status"] == "up"
        assert state["slave_read_only"] == 1
        master = info(hosts["redis-1"], "replication")
        assert state["slave_repl_offset"] <= master["master_repl_offset"]
        assert state["master_replid"] == master["master_replid"]


def test_a_write_arrives_and_a_replica_takes_none(host: Any, hosts: dict[str, Any]) -> None:
    name = host.check_output("hostname")
    assert ask(hosts["redis-1"], "SET", "molecule:write", name, db=9)
    wait_for(lambda: bool(ask(host, "GET", "molecule:write", db=9) == name))
    if name != "redis-1":
        assert "read only replica" in ask(host, "SET", "molecule:write", "x", db=9)["error"]


def test_persistence(host: Any) -> None:
    state = info(host, "persistence")
    assert state["loading"] == 0
    assert state["aof_enabled"] == 1
    assert state["aof_last_bgrewrite_status"] == "ok"
    ask(host, "BGSAVE", "SCHEDULE")
    wait_for(lambda: not info(host, "persistence")["rdb_bgsave_in_progress"])
    after = info(host, "persistence")
    assert after["rdb_saves"] > state["rdb_saves"]
    assert after["rdb_last_bgsave_status"] == "ok"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("save", "900 1 300 10 60 10000"),
        ("dir", "/mnt/redis_data"),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("rdbchecksum", "yes"),
        ("stop-writes-on-bgsave-error", "yes"),
        ("aof-timestamp-enabled", "yes"),
        ("maxmemory-policy", "noeviction"),
        ("replica-read-only", "yes"),
    ],
)
def test_the_running_server_has_the_setting(host: Any, name: str, value: str) -> None:
    assert setting(host, name) == value


def test_nobody_gets_in_without_the_password(host: Any) -> None:
    assert "NOAUTH" in host.run("redis-cli PING").stdout
    address = setting(host, "replica-announce-ip")
    assert "NOAUTH" in host.run(f"redis-cli -h {address} PING").stdout


def test_the_password_is_on_every_node_for_its_master(host: Any) -> None:
    password = setting(host, "requirepass")
    assert password
    assert setting(host, "masterauth") == password


@pytest.mark.parametrize(
    ("path", "mode", "owner"),
    [
        (CONFIG_FILE, 0o640, "redis"),
        ("/mnt/redis_data", 0o750, "redis"),
        ("/etc/redis-backup/redis.json", 0o600, "redis"),
        ("/etc/cron.d/redis-backup-redis", 0o644, "root"),
        (CONFIG_FILE + ".managed", 0o644, "root"),
    ],
)
def test_modes(host: Any, path: str, mode: int, owner: str) -> None:
    file = host.file(path)
    assert (file.mode, file.user) == (mode, owner)


def test_the_unit_comes_back_after_a_reboot(host: Any) -> None:
    service = host.service("redis-server")
    assert service.is_running
    assert service.is_enabled


@pytest.mark.parametrize("namespace", ["mnt", "user"])
def test_the_server_is_confined_in_a_namespace_of_its_own(host: Any, namespace: str) -> None:
    own = host.check_output(f"readlink /proc/{main_pid(host)}/ns/{namespace}")
    assert own != host.check_output(f"readlink /proc/1/ns/{namespace}")


# Enters the mount namespace of a process and tries to create a file there. Not by nsenter: in there
# nothing but redis-server may be executed, as the unit says.
TOUCH = """
import ctypes, os, sys
ns = os.open(f"/proc/{sys.argv[1]}/ns/mnt", os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(ns, 0):
    raise OSError(ctypes.get_errno(), "setns")
try:
    open(sys.argv[2], "x").close()
    os.unlink(sys.argv[2])
    print("written")
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/etc/molecule-was-here", "Read-only file system"),
        ("/usr/molecule-was-here", "Read-only file system"),
        ("/mnt/molecule-was-here", "Read-only file system"),
        ("/mnt/redis_data/molecule-was-here", "written"),
    ],
)
def test_the_server_sees_the_system_read_only_but_for_its_data(
    host: Any, path: str, outcome: str
) -> None:
    assert host.check_output("python3 -c %s %s %s", TOUCH, main_pid(host), path) == outcome


def test_without_the_dropin_the_data_directory_cannot_be_written(host: Any) -> None:
    if info(host, "replication")["role"] == "master":
        # The master goes on serving; a replica shows it as well.
        assert host.file(DROPIN).exists
        return
    log = "/var/log/redis/redis-server.log"
    before = host.file(log).size
    host.check_output(f"mv {DROPIN} /var/tmp/50-managed.conf && systemctl daemon-reload")
    try:
        host.run("systemctl --no-block restart redis-server")
        since = f"tail --bytes +{before + 1} {log}"
        wait_for(lambda: bool(re.search("Read-only file system", host.run(since).stdout)), 120)
    finally:
        host.check_output(f"mv /var/tmp/50-managed.conf {DROPIN} && systemctl daemon-reload")
        host.run("systemctl reset-failed redis-server; systemctl restart redis-server")
    wait_for(lambda: bool(info(host, "replication")["master_link_status"] == "up"))
