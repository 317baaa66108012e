"""A backup is made, proved by a drill, and a spoilt one is found out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play, ask, info

STORE = "/var/lib/redis-backup/store/redis"


def keyspace(host: Any) -> dict[str, dict[str, int]]:
    """Keys and expires per db, from INFO."""
    return {
        name.removeprefix("db"): {"keys": counts["keys"], "expires": counts["expires"]}
        for name, counts in info(host, "keyspace").items()
    }


def newest(hosts: dict[str, Any]) -> str:
    """Id of the newest accepted backup, read from the catalogue on the server."""
    lines = hosts["backup-1"].check_output(f"cat {STORE}/catalogue.jsonl").splitlines()
    ids = [entry["id"] for entry in map(json.loads, lines) if entry["event"] == "accepted"]
    return str(ids[-1])


@pytest.fixture(scope="module", autouse=True)
def quiet_data(hosts: dict[str, Any]) -> None:
    """Data of several kinds in several databases; nothing writes while these tests run."""
    fill = """
        for i = 1, 1000 do redis.call('set', 'key:' .. i, string.rep('x', i), 'ex', 86400) end
        redis.call('hset', 'hash', 'field', 'value')
        redis.call('zadd', 'ranking', '1.5', 'member')
        redis.call('xadd', 'stream', '1-1', 'field', 'value')
        redis.call('xgroup', 'create', 'stream', 'group', '0')
    """
    for db in (0, 1, 5):
        ask(hosts["redis-1"], "FLUSHDB", db=db)
        ask(hosts["redis-1"], "EVAL", fill, "0", db=db)


def test_backup_and_drill_prove_every_count(
    hosts: dict[str, Any], play: Callable[..., Play], tmp_path: Path
) -> None:
    before = keyspace(hosts["redis-1"])
    assert set(before) >= {"0", "1", "5"}

    made = play("playbooks/backup_now.yml")
    assert made.code == 0, made.output
    drilled = play("playbooks/restore_drill.yml", "-e", f"redis_restore_drill_reports={tmp_path}")
    assert drilled.code == 0, drilled.output

    (path,) = tmp_path.iterdir()
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["verdict"] == "passed"
    assert report["level"] == "values"
    assert report["sandbox"] == "enforced"
    assert report["freshness"] == "ok"
    assert report["databases"]["backup"] == report["databases"]["restored"] == before
    assert report["backup_id"] == newest(hosts)
    assert report["rpo_seconds"] >= 0
    assert set(report["rto_seconds"]) == {"fetch", "verify", "load", "ready"}
    assert keyspace(hosts["redis-1"]) == before


@pytest.fixture
def flipped_byte(hosts: dict[str, Any]) -> Iterator[str]:
    """One byte in the middle of the newest stored backup, flipped; put back afterwards."""
    backup = newest(hosts)
    path = f"{STORE}/{backup}/dump.rdb.zst"
    flip = (
        "import sys; f = open(sys.argv[1], 'r+b'); f.seek(0, 2); at = f.tell() // 2; f.seek(at); "
        "b = f.read(1)[0] ^ 1; f.seek(at); f.write(bytes([b]))"
    )
    server = hosts["backup-1"]
    server.check_output("python3 -c %s %s", flip, path)
    yield backup
    server.check_output("python3 -c %s %s", flip, path)


def test_a_flipped_byte_fails_the_drill_and_is_named(
    play: Callable[..., Play], flipped_byte: str, tmp_path: Path
) -> None:
    drilled = play("playbooks/restore_drill.yml", "-e", f"redis_restore_drill_reports={tmp_path}")
    assert drilled.code != 0
    name = f"redis/{flipped_byte}/dump.rdb.zst"
    assert name in drilled.output
    (path,) = tmp_path.iterdir()
    assert name in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["verdict"] == "failed"


def test_verify_on_the_server_finds_it_too(hosts: dict[str, Any], flipped_byte: str) -> None:
    command = "runuser -u redis-backup -- redis-backup verify --all"
    found = hosts["backup-1"].run(command)
    assert found.rc == 1
    assert f"redis/{flipped_byte}/dump.rdb.zst" in found.stdout + found.stderr


def test_after_that_everything_is_well_again(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    hosts["backup-1"].run_expect([0], "runuser -u redis-backup -- redis-backup verify --all")
    assert play("playbooks/restore_drill.yml").code == 0


def cron_line(host: Any, path: str) -> tuple[list[str], str, str]:
    """Schedule, user and command of the one entry in a file of /etc/cron.d."""
    lines = [
        line
        for line in host.check_output(f"cat {path}").splitlines()
        if line.strip() and not line.startswith("#") and "=" not in line.split()[0]
    ]
    (line,) = lines
    words = line.split(None, 6)
    return words[:5], words[5], words[6]


@pytest.mark.parametrize("name", ["redis-1", "redis-2", "redis-3"])
def test_cron_makes_the_backup(hosts: dict[str, Any], name: str) -> None:
    schedule, user, _ = cron_line(hosts[name], "/etc/cron.d/redis-backup-redis")
    assert (schedule, user) == (["5", "0", "*", "*", "*"], "redis")
    assert hosts[name].service("cron").is_running


def test_the_command_of_the_cron_entry_works_as_cron_runs_it(hosts: dict[str, Any]) -> None:
    host = hosts["redis-2"]
    before = newest(hosts)
    _, user, command = cron_line(host, "/etc/cron.d/redis-backup-redis")
    # As cron does it: a shell, nearly no environment, no terminal. redis-2 is the first in turn.
    done = host.run(
        "env -i HOME=/ LOGNAME=%s PATH=/usr/bin:/bin setpriv --reuid=%s --regid=%s --init-groups"
        " /bin/sh -c %s", user, user, user, command.replace("\\%", "%"),
    )  # fmt: skip
    assert done.rc == 0, done
    assert newest(hosts) > before


def test_cron_runs_the_drill(hosts: dict[str, Any]) -> None:
    _, user, command = cron_line(hosts["drill-1"], "/etc/cron.d/redis-restore-drill")
    assert user == "redis-backup"
    assert "/usr/local/bin/redis-backup" in command
