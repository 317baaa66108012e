"""What a run costs is agreed to before, and what is not ours, or not as it ought to be, is seen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play, ask, info, play_against, setting, wait_for
from tests.support.runbooks import block, is_seen, playbook

REDIS = ("redis-1", "redis-2")
DEPLOY = "playbooks/deploy_redis.yml"
DATA = "/srv/redis data 100%é'"
CONFIG, LOG = "/etc/redis/redis.conf", "/var/log/redis/redis-server.log"
EVICTING: dict[str, Any] = {"redis_maxmemory": "2", "redis_maxmemory_policy": "allkeys-lru"}


@pytest.fixture(scope="module")
def play(inventory: Path) -> Any:
    def run(name: str, *words: str, **variables: object) -> Play:
        return play_against(inventory, name, "-e", json.dumps(variables), *words)

    return run


def run_ids(hosts: dict[str, Any]) -> list[str]:
    return [str(info(hosts[name], "server")["run_id"]) for name in REDIS]


def plain(play: Play) -> str:
    return " ".join(play.output.split())


def good(done: Play, changed: int | None = None) -> None:
    assert done.code == 0, done.output[-3000:]
    assert changed is None or done.total_changed == changed, done.output[-3000:]


def owner(host: Any, path: str) -> str:
    return str(host.check_output(f"stat -c '%U:%G %a' {path}"))


def test_a_port_of_another_daemon_is_not_taken(hosts: dict[str, Any], play: Any) -> None:
    server = hosts["backup-1"]
    server.check_output("systemd-run --unit=foreign-rsync python3 -m http.server 873")
    wait_for(lambda: server.run("grep -q ':0369 .* 0A ' /proc/net/tcp").rc == 0)
    refused = play("site.yml")
    assert refused.code != 0
    assert is_seen("backup-server-unreachable#port", refused.output), refused.output[-3000:]
    server.run_expect([3, 4], "systemctl is-active redis-backup-rsyncd.service")
    server.check_output("systemctl stop foreign-rsync")


def test_a_data_directory_of_an_odd_name_is_served(hosts: dict[str, Any], play: Any) -> None:
    good(play("site.yml"))
    for name in REDIS:
        assert setting(hosts[name], "dir") == DATA
        assert owner(hosts[name], f'"{DATA}"') == "redis:redis 750"
    wait_for(lambda: info(hosts["redis-2"], "replication")["master_link_status"] == "up")
    before = run_ids(hosts)
    good(play("site.yml", redis_dir=f"/{DATA}/"), changed=0)
    assert run_ids(hosts) == before
    made = hosts["redis-1"].run("runuser -u redis -- redis-backup create --now")
    assert made.rc == 0, made.stderr


def test_a_directory_of_others_stays_theirs(hosts: dict[str, Any], play: Any) -> None:
    for name in REDIS:
        hosts[name].check_output("mkdir -p /srv/shared && touch /srv/shared/{1..40}.txt")
    before = run_ids(hosts)
    other = {"redis_port": 6380, "redis_set_name": "other", "redis_dir": "/srv/shared"}
    refused = play(DEPLOY, "--check", **other)
    assert refused.code != 0
    assert is_seen("moving-the-data#shared", refused.output), refused.output[-3000:]
    assert "4.txt" not in refused.output
    assert owner(hosts["redis-1"], "/srv/shared") == "root:root 755"
    # An empty server's, which no data protects.
    taken = play(DEPLOY, "--check", **{**other, "redis_dir": DATA})
    assert taken.code != 0
    assert is_seen("moving-the-data#taken", taken.output), taken.output[-3000:]
    assert run_ids(hosts) == before


def test_a_file_of_root_is_seen_before_a_server_is_stopped_for_good(
    hosts: dict[str, Any], play: Any
) -> None:
    wrong = hosts["redis-2"]
    wrong.check_output(f"chown root:root {CONFIG} {LOG} && chmod 0600 {CONFIG} {LOG}")
    before = run_ids(hosts)
    refused = play("playbooks/rolling_restart.yml")
    assert refused.code != 0
    assert is_seen("restarting-all-servers#not-readable", refused.output), refused.output[-3000:]
    assert run_ids(hosts) == before
    planned = play(DEPLOY, "--check", "--diff")
    good(planned, changed=1)
    assert is_seen("restarting-all-servers#mended", planned.output), planned.output[-3000:]
    good(play(DEPLOY), changed=1)
    assert owner(wrong, CONFIG) == "redis:redis 640"
    assert owner(wrong, LOG).startswith("redis:")
    good(play("playbooks/rolling_restart.yml"))
    assert not set(before) & set(run_ids(hosts))


def test_keys_go_only_with_consent_to_as_many(hosts: dict[str, Any], play: Any) -> None:
    master = hosts["redis-1"]
    ask(master, "EVAL", "for i = 1, 3000 do redis.call('SET', 'k' .. i, i) end", "0")
    wait_for(lambda: ask(hosts["redis-2"], "DBSIZE") == 3000)
    refused = play(DEPLOY, "--check", **EVICTING)
    assert refused.code != 0
    assert is_seen("changing-a-setting#refused", refused.output), refused.output[-3000:]
    assert "with allkeys-lru all 3000 keys are deleted at once" in plain(refused)
    entries = sorted(set(re.findall(r"redis_accept: \[([^\]]+)\]", plain(refused))))
    assert entries == [f"redis-{number}:maxmemory:3200-keys" for number in (1, 2)]
    # Without consent, and with one that was given for fewer.
    ask(master, "EVAL", "for i = 1, 900 do redis.call('SET', 'm' .. i, i) end", "0")
    wait_for(lambda: ask(hosts["redis-2"], "DBSIZE") == 3900)
    for accept in ([], entries):
        refused = play(DEPLOY, **EVICTING, redis_accept=accept)
        assert refused.code != 0
        assert "redis-1:maxmemory:4100-keys" in plain(refused)
        assert bool(accept) is ("and it is more now" in plain(refused))
        assert ask(master, "DBSIZE") == 3900
    command, words = playbook("changing-a-setting#accept")[0], block("changing-a-setting#accept")
    accepted = words.replace(":3200-", ":4100-").split("-e ")[1].strip("'")
    good(play(command, "-e", accepted, **EVICTING))
    wait_for(lambda: ask(master, "DBSIZE") == 0)
    good(play(DEPLOY, **EVICTING), changed=0)
