"""Deploy, backup and drill on other systems and engines than those of `default`; in this order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.live import Play, accept, ask, info, setting, wait_for
from tests.support.runbooks import is_seen

# Inventory group (also the name of the set, but for valkey's), hosts, engine, release, unit, port.
SETS = {
    "eleven": (["eleven-1", "eleven-2"], "redis", "6.0", "redis-server@6380", 6380),
    "thirteen": (["thirteen-1"], "redis", "8.0", "redis-server", 6379),
    "valkey": (["valkey-1"], "valkey", "8.1", "valkey-server", 6379),
}
SET_NAMES = {"eleven": "eleven", "thirteen": "thirteen", "valkey": "sessions"}
FILL = "for i = 1, 20 do redis.call('SET', 'key:' .. i, ARGV[1], 'EX', 86400) end"
# Oldest first.
LIST_REPORTS = "ls -tr /var/lib/redis-backup/store/*/drills/*/report.json"
REDIS_HOSTS = [host for members, *_ in SETS.values() for host in members]
by_set = pytest.mark.parametrize("group", SETS)


def release(version: str) -> str:
    return ".".join(version.split(".")[:2])


@by_set
def test_the_server_is_the_one_of_the_inventory(hosts: dict[str, Any], group: str) -> None:
    members, engine, version, unit, port = SETS[group]
    for name in members:
        server = info(hosts[name], "server")
        # Valkey's redis_version is the one that it is compatible with.
        assert release(server["valkey_version" if engine == "valkey" else "redis_version"]) == (
            version
        )
        assert int(server["tcp_port"]) == port
        assert server["executable"] == f"/usr/bin/{engine}-server"
        service = hosts[name].service(f"{unit}.service")
        assert service.is_running
        assert service.is_enabled
        process = hosts[name].process.get(comm=f"{engine}-server"[:15])
        assert process.user == engine


def test_no_packaged_server_runs_beside_one_on_another_port(hosts: dict[str, Any]) -> None:
    for name in set(SETS["eleven"][0]) & set(hosts):
        packaged = hosts[name].service("redis-server.service")
        assert not packaged.is_running
        assert not packaged.is_enabled
        assert not hosts[name].socket("tcp://127.0.0.1:6379").is_listening


def test_what_only_newer_servers_know_is_set_there(hosts: dict[str, Any]) -> None:
    assert setting(hosts["thirteen-1"], "aof-timestamp-enabled") == "yes"
    assert setting(hosts["valkey-1"], "aof-timestamp-enabled") == "yes"
    assert ask(hosts["eleven-1"], "CONFIG", "GET", "aof-timestamp-enabled") in ([], {})
    assert setting(hosts["thirteen-1"], "dir") == "/mnt/redis_data"
    assert setting(hosts["valkey-1"], "dir") == "/var/lib/valkey"


def test_data_is_replicated_on_the_oldest(hosts: dict[str, Any]) -> None:
    for name in ("eleven-1", "thirteen-1", "valkey-1"):
        ask(hosts[name], "EVAL", FILL, "0", f"of {name}")
        ask(hosts[name], "XADD", "stream", "*", "field", "value")
        ask(hosts[name], "HSET", "hash", "field", "value", db=1)
    replica = info(hosts["eleven-2"], "replication")
    assert (replica["role"], replica["master_link_status"]) == ("slave", "up")
    assert ask(hosts["eleven-1"], "WAIT", "1", "20000") == 1
    assert ask(hosts["eleven-2"], "GET", "key:7") == "of eleven-1"


def test_a_backup_now_wants_to_know_of_which_set(play: Callable[..., Play]) -> None:
    run = play("playbooks/backup_now.yml")
    assert run.code != 0
    assert is_seen("several-sets#which", run.output), run.output


@by_set
def test_a_set_is_backed_up(play: Callable[..., Play], group: str) -> None:
    run = play("playbooks/backup_now.yml", "-e", f"redis_replication_group={group}")
    assert run.code == 0, run.output
    name = SET_NAMES[group]
    assert re.search(rf"{name}/\S+, made by the (master|replica)", run.output), run.output
    assert "db0:keys=21,expires=20" in run.output


def test_every_backup_is_proven_by_a_server_of_its_release(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    assert play("playbooks/restore_drill.yml").code == 0
    accept(hosts["backup-1"])
    newest = {}
    for path in hosts["backup-1"].check_output(LIST_REPORTS).split():
        report = json.loads(hosts["backup-1"].check_output(f"cat {path}"))
        newest[report["set"]] = report
    proven = {}
    for name, report in newest.items():
        found = [report[key] for key in ("verdict", "level", "sandbox")]
        assert found[0] == "passed", report
        assert found[1] == "values"
        assert found[2] == "enforced"
        proven[name] = (report["engine"], release(report["server_version"]))
    assert proven == {
        SET_NAMES[group]: (engine, version) for group, (_, engine, version, *_) in SETS.items()
    }


def test_a_given_backup_is_proven_by_the_drill_host_of_its_set(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    found = hosts["backup-1"].check_output("cd /var/lib/redis-backup/store && ls -d eleven/*Z-*")
    run = play("playbooks/restore_drill.yml", "-e", f"redis_restore_drill_id={found}")
    assert run.code == 0, run.output
    assert re.search(rf"PASSED +{found} ", run.output), run.output
    assert run.output.count("PASSED ") == 1


DIGEST_OF_A_RESTORED_BACKUP = """
set -eu
there=$(mktemp -d)
trap 'kill "$(cat "$there/pid")"; rm -rf "$there"' EXIT
echo "$2" | base64 --decode | zstd --decompress --quiet -o "$there/dump.rdb"
"$1-server" --port 0 --unixsocket "$there/socket" --dir "$there" --save "" --appendonly no \
  --daemonize yes --pidfile "$there/pid" --logfile "$there/log" $3 >&2
until "$1-cli" -s "$there/socket" ping | grep --quiet PONG; do sleep 0.1; done
"$1-cli" -s "$there/socket" DEBUG DIGEST
"""


@by_set
def test_restored_data_has_the_debug_digest_of_its_source(
    hosts: dict[str, Any], group: str
) -> None:
    """Redis' own digest agrees too, by hand and without our tool on the way back."""
    members, engine, version, *_ = SETS[group]
    name = SET_NAMES[group]
    store = f"/var/lib/redis-backup/store/{name}"
    payload = hosts["backup-1"].check_output(f"base64 -w 0 {store}/*/dump.rdb.zst")
    drill = hosts["backup-1" if group == "eleven" else "drill-1"]
    options = "" if version == "6.0" else "--enable-debug-command local"
    restored = drill.check_output(
        "bash -c %s - %s %s %s", DIGEST_OF_A_RESTORED_BACKUP, engine, payload, options
    )
    assert re.fullmatch("[0-9a-f]{40}", restored), restored
    assert restored != "0" * 40
    assert restored == ask(hosts[members[0]], "DEBUG", "DIGEST")


def test_the_oldest_python_does_all_that_a_backup_server_does(hosts: dict[str, Any]) -> None:
    server = hosts["backup-1"]
    assert server.check_output("python3 --version").startswith("Python 3.9")
    for command in ("list", "check", "verify --all", "prune --dry-run"):
        # It drills too: the configuration of the drill lies beside that of the server.
        server.check_output(f"runuser --user=redis-backup -- redis-backup {command}")


WRONG_HOST = """
import json, os
with open("/etc/redis-backup/drill.json") as file:
    config = json.load(file)
config["sets"] = {"eleven": {"assertions": []}}
with open("/var/lib/redis-backup/drill/other.json", "w") as file:
    os.chmod(file.name, 0o600)
    json.dump(config, file)
"""


def test_a_drill_on_a_host_of_another_release_fails_and_names_both(hosts: dict[str, Any]) -> None:
    """As when a set is added to the wrong drill host."""
    drill = hosts["drill-1"]
    user = "runuser --user=redis-backup --"
    drill.check_output(f"{user} /usr/bin/python3 -c '{WRONG_HOST}'")
    run = drill.run(f"{user} redis-backup --config /var/lib/redis-backup/drill/other.json drill")
    assert run.rc == 1
    assert is_seen("drill-of-another-release#drill", run.stdout + run.stderr), run
    drill.check_output("rm /var/lib/redis-backup/drill/other.json")


def test_an_engine_that_the_system_does_not_have_is_refused(play: Callable[..., Play]) -> None:
    run = play("playbooks/deploy_redis.yml", "--limit", "eleven-1", "-e", "redis_engine=valkey")
    assert run.code != 0
    assert run.total_changed == 0
    assert is_seen("unknown-system#refused", run.output), run.output


def test_a_password_that_a_rewrite_damaged_is_mended_before_a_restart(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    """Redis 6.0 and Valkey 8.1 do not quote it in CONFIG REWRITE; the lab's has blanks.

    The same run stops a packaged server beside an instance, and lets one with data be.
    """
    for name in REDIS_HOSTS:
        assert ask(hosts[name], "CONFIG", "REWRITE") in (True, "OK")
    # Somebody's on port 6379 of one host, and the package's own, without data, on the other.
    hosts["eleven-1"].check_output("systemctl enable --now redis-server.service")
    hosts["eleven-1"].check_output("redis-cli SET somebody theirs")
    hosts["eleven-2"].check_output("systemctl enable --now redis-server.service")
    plan = play("playbooks/deploy_redis.yml", "--check", "--diff")
    assert plan.code == 0, plan.output
    assert is_seen("rewritten-password#plan", plan.output), plan.output
    mended = play("playbooks/deploy_redis.yml")
    assert mended.code == 0, mended.output
    assert {host for host, count in mended.changed.items() if count} == {
        "eleven-1",
        "eleven-2",
        "valkey-1",
    }
    assert hosts["eleven-1"].check_output("redis-cli GET somebody") == "theirs"
    test_no_packaged_server_runs_beside_one_on_another_port({"eleven-2": hosts["eleven-2"]})
    for name, unit in (("eleven-2", "redis-server@6380"), ("valkey-1", "valkey-server")):
        hosts[name].check_output(f"systemctl restart {unit}.service")

        def answers(name: str = name) -> bool:
            return bool(ask(hosts[name], "DBSIZE") == 21)

        wait_for(answers)


def test_the_status_shows_every_set(hosts: dict[str, Any], play: Callable[..., Play]) -> None:
    """The drill on the wrong host was the last of its set, so only a good one ends the finding."""
    wait_for(lambda: info(hosts["eleven-2"], "replication")["master_link_status"] == "up")
    failed = play("playbooks/show_status.yml")
    assert failed.code != 0, failed.output
    assert re.search(r"1 thing is wrong:\s+\* drill of set eleven: .* failed", failed.output)
    assert play("playbooks/restore_drill.yml").code == 0
    run = play("playbooks/show_status.yml")
    assert run.code == 0, run.output
    for name in REDIS_HOSTS:
        assert re.search(rf"{name} +[0-9.]+:\d+ +(master|replica)", run.output), run.output
    for name in SET_NAMES.values():
        assert re.search(rf"backup +{name}/", run.output), run.output


def test_at_the_end_nothing_is_left_to_do(play: Callable[..., Play]) -> None:
    run = play("site.yml")
    assert (run.code, run.total_changed) == (0, 0), run.output
