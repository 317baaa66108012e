"""A running set is changed: live, by restarts, with values that cannot work, and with its data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import normalise, settings

from tests.support.clients import acknowledged, held, held_connection, missing, writer
from tests.support.live import Play, ask, info, setting, wait_for
from tests.support.runbooks import block, is_seen, playbook

MASTER = "redis-1"
REDIS = ("redis-1", "redis-2", "redis-3")
RESTARTED = ["redis-2", "redis-3", "redis-1"]  # in this order: the master last
DEPLOY = "playbooks/deploy_redis.yml"
OLD, NEW = "/var/lib/redis", "/mnt/redis_data"
FILES = "/etc/redis/redis.conf /etc/systemd/system/redis-server.service.d/50-managed.conf"


def extra(**variables: object) -> tuple[str, str]:
    return "--extra-vars", json.dumps(variables)


def on_all(hosts: dict[str, Any], what: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: what(hosts[name]) for name in REDIS}


def run_id(host: Any) -> str:
    return str(info(host, "server")["run_id"])


def files(host: Any) -> str:
    """The configuration as it lies on the host, and what lies beside it."""
    return str(host.check_output(f"sha256sum {FILES}; ls /etc/redis {NEW} 2>&1 || true"))


def in_sync(hosts: dict[str, Any]) -> bool:
    """Whether both replicas have what the master had when it was asked."""
    master = info(hosts[MASTER], "replication")
    replicas = [info(hosts[name], "replication") for name in REDIS if name != MASTER]
    return master["connected_slaves"] == len(replicas) and all(
        state["master_link_status"] == "up"
        and state["slave_repl_offset"] >= master["master_repl_offset"]
        for state in replicas
    )


def started(host: Any) -> float:
    """When the server was started, in seconds since the machine was; the same clock everywhere."""
    show = "systemctl show --property ExecMainStartTimestampMonotonic --value redis-server"
    return int(host.check_output(show)) / 1e6


def first_sync(host: Any) -> float:
    """When the replica was in sync for the first time since it was started, in the same seconds.

    Its log knows the time of day to the millisecond, and so does the journal of the start.
    """
    process = host.check_output("systemctl show --property MainPID --value redis-server")
    line = host.check_output(
        f"grep -E '^{process}:S .*(Finished with success|Successful partial resync)'"
        " /var/log/redis/redis-server.log | head -n 1"
    )
    moment = re.match(r"\d+:S (\d+ \w+ \d+ [\d:.]+)", line)
    assert moment, line
    seconds = host.check_output(f"date --date='{moment[1]}' +%s.%N")
    offset = host.check_output(
        "python3 -c 'import time; print(time.time() - time.clock_gettime(time.CLOCK_MONOTONIC))'"
    )
    return float(seconds) - float(offset)


def config(host: Any) -> dict[str, str]:
    """All settings of the running server."""
    flat: list[str] = ask(host, "CONFIG", "GET", "*")
    return dict(zip(flat[::2], flat[1::2], strict=True))


def config_that_its_file_has_too(host: Any) -> dict[str, str]:
    """All settings of the running server, whose file must name the same: it would be started again
    as it runs, and nothing waits for that any more."""
    running = config(host)
    file = settings(
        host.check_output("test ! -e /etc/redis/redis.conf.next && cat /etc/redis/redis.conf")
    )
    for name in ("unixsocket", "databases", "maxmemory", "save", "dir", "dbfilename", "appendonly"):
        assert file.get(name, "") == normalise(name, [running[name]]), name
    return running


def test_the_plan_shows_what_happens_how_and_changes_nothing(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    before = on_all(hosts, files), on_all(hosts, run_id)
    change = extra(
        redis_maxmemory="300mb",
        redis_databases=32,
        redis_masterauth="another-secret-than-today",
        redis_previous_password="another-secret-than-today",
        redis_dir=NEW,
        redis_move_data=True,
    )
    plan = play(*playbook("changing-a-setting#plan"), *change)
    assert plan.code == 0, plan.output
    assert is_seen("changing-a-setting#plan-seen", plan.output), plan.output
    assert "masterauth: ******** -> ******** (CONFIG SET)" in plan.output
    assert "another-secret" not in plan.output
    assert (on_all(hosts, files), on_all(hosts, run_id)) == before
    assert on_all(hosts, lambda host: setting(host, "maxmemory")) == dict.fromkeys(REDIS, "0")


def test_what_can_be_set_live_is_and_no_connection_is_dropped(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    runs = on_all(hosts, run_id)
    replicas = replica_connections(hosts[MASTER])
    with held_connection(hosts[MASTER]):
        changed = play(
            DEPLOY,
            *extra(
                redis_maxmemory="300mb",
                redis_save=[{"seconds": 77, "changes": 7}],
                redis_extra_config={"hz": 25},
            ),
        )
        client = held(hosts[MASTER])
    assert changed.code == 0, changed.output
    for name in REDIS:
        running = config_that_its_file_has_too(hosts[name])
        assert running["maxmemory"] == str(300 << 20)
        assert running["save"] == "77 7"
        assert running["hz"] == "25"
    assert client["same"]
    assert client["failed"] == 0
    assert client["asked"] > 10
    assert replica_connections(hosts[MASTER]) == replicas
    assert on_all(hosts, run_id) == runs


def replica_connections(master: Any) -> set[str]:
    return set(re.findall(r"^id=(\d+)", ask(master, "CLIENT", "LIST", "TYPE", "replica"), re.M))


def test_a_restart_goes_from_server_to_server_and_loses_nothing(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    """Even where nothing is ever saved: no save points, and no append-only file."""
    runs = on_all(hosts, run_id)
    with writer(hosts[MASTER]):
        done = play(DEPLOY, *extra(redis_databases=32, redis_save=[], redis_appendonly=False))
    assert done.code == 0, done.output
    for name in REDIS:
        assert run_id(hosts[name]) != runs[name]
        running = config_that_its_file_has_too(hosts[name])
        assert (running["databases"], running["save"]) == ("32", "")
    assert info(hosts[MASTER], "replication")["role"] == "master"
    starts = [started(hosts[name]) for name in RESTARTED]
    assert starts == sorted(starts), dict(zip(RESTARTED, starts, strict=True))
    for name, following in zip(RESTARTED, starts[1:], strict=False):
        assert first_sync(hosts[name]) < following, f"{name} was not in sync yet"
    assert_nothing_lost(hosts)


def assert_nothing_lost(hosts: dict[str, Any]) -> None:
    numbers = acknowledged(hosts[MASTER])
    assert len(numbers) > 200
    wait_for(lambda: in_sync(hosts))
    assert on_all(hosts, lambda host: missing(host, numbers)) == {name: [] for name in REDIS}


def test_a_value_that_redis_does_not_know_reaches_no_file(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    before = on_all(hosts, files), on_all(hosts, run_id)
    refused = play(DEPLOY, *extra(redis_extra_config={"io-threads": 999}))
    assert refused.code != 0
    assert is_seen("failed-restart#refused", refused.output), refused.output
    assert (on_all(hosts, files), on_all(hosts, run_id)) == before


def test_a_start_that_fails_puts_everything_back_on_every_host(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    """Fine in the trial boot, which has a socket of its own; the real one cannot open this.

    The data is moved in the same restart, and comes back too.
    """
    runs = on_all(hosts, run_id)
    keys = on_all(hosts, lambda host: ask(host, "DBSIZE"))
    before = on_all(hosts, data)
    failed = play(
        DEPLOY,
        *extra(
            redis_maxmemory="400mb",
            redis_databases=32,
            redis_save=[],
            redis_appendonly=False,
            redis_extra_config={"unixsocket": "/etc/nowhere/redis.sock"},
            redis_dir=NEW,
            redis_move_data=True,
        ),
    )
    assert failed.code != 0
    assert is_seen("failed-restart#put-back", failed.output), failed.output
    after = on_all(hosts, run_id)
    assert after["redis-2"] != runs["redis-2"], "it was restarted, in vain"
    assert (after["redis-3"], after[MASTER]) == (runs["redis-3"], runs[MASTER])
    wait_for(lambda: in_sync(hosts))
    for name in REDIS:
        if name != "redis-2":  # there it waits for a restart that did not come
            hosts[name].check_output("rm /etc/redis/redis.conf.next")
        running = config_that_its_file_has_too(hosts[name])
        assert (running["dir"], running["unixsocket"]) == (OLD, "")
        assert running["maxmemory"] == str(400 << 20)
        hosts[name].run_expect([1], f"grep -E 'nowhere|{NEW}' {FILES}")
    assert on_all(hosts, lambda host: ask(host, "DBSIZE")) == keys
    assert on_all(hosts, data) == before
    hosts["redis-2"].run_expect([0], f'test -z "$(ls -A {NEW})"')


def data(host: Any) -> str:
    """Names of what lies in the old directory; the numbers of an append-only file's parts vary."""
    return re.sub(r"\d+", "N", host.check_output(f"cd {OLD} && find . -type f | sort"))


def test_data_is_not_moved_unasked(hosts: dict[str, Any], play: Callable[..., Play]) -> None:
    before = on_all(hosts, files), on_all(hosts, run_id)
    refused = play(DEPLOY, *extra(redis_dir=NEW))
    assert refused.code != 0
    assert is_seen("moving-the-data#unasked", refused.output), refused.output
    assert refused.total_changed == 0
    assert (on_all(hosts, files), on_all(hosts, run_id)) == before


def test_nor_to_where_it_has_no_room_or_other_data_lies(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    for name in REDIS:
        hosts[name].check_output(f"mkdir -p {NEW}")
    hosts["redis-2"].check_output(f"touch {NEW}/dump.rdb")
    hosts["redis-3"].check_output(f"mount -t tmpfs -o size=1m none {NEW}")
    before = on_all(hosts, files), on_all(hosts, run_id)
    refused = play(DEPLOY, *extra(redis_dir=NEW, redis_move_data=True))
    assert refused.code != 0
    assert is_seen("moving-the-data#in-the-way", refused.output), refused.output
    assert is_seen("moving-the-data#no-room", refused.output), refused.output
    assert refused.total_changed == 0
    assert (on_all(hosts, files), on_all(hosts, run_id)) == before
    hosts["redis-2"].check_output(f"rm {NEW}/dump.rdb")
    hosts["redis-3"].check_output(f"umount {NEW}")


def test_data_moves_without_loss_while_a_client_writes(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    """Of redis-3 to another file system, where it has to be copied."""
    hosts["redis-3"].check_output(f"mount -t tmpfs -o size=300m none {NEW}")
    with writer(hosts[MASTER]):
        moved = play(*playbook("moving-the-data#move"), *extra(redis_dir=NEW))
    assert moved.code == 0, moved.output
    assert is_seen("moving-the-data#kept", moved.output), moved.output
    for name in REDIS:
        assert config_that_its_file_has_too(hosts[name])["dir"] == NEW
        hosts[name].run_expect(
            [0],
            f"test -s {NEW}/dump.rdb -a -d {NEW}/appendonlydir"
            f" -a ! -e {OLD}/dump.rdb -a ! -e {OLD}/appendonlydir",
        )
    hosts["redis-3"].run_expect([0], f"test -s {OLD}/moved-*/dump.rdb")
    hosts["redis-3"].check_output(block("moving-the-data#delete"))
    hosts["redis-3"].run_expect([0], f'test -z "$(ls -A {OLD})"')
    starts = [started(hosts[name]) for name in RESTARTED]
    assert starts == sorted(starts), dict(zip(RESTARTED, starts, strict=True))
    assert_nothing_lost(hosts)
    again = play("site.yml", *extra(redis_dir=NEW))
    assert again.code == 0, again.output
    assert again.total_changed == 0, again.output


def test_backups_go_on_from_the_new_place(hosts: dict[str, Any]) -> None:
    made = hosts["redis-2"].run("runuser -u redis -- redis-backup create --now")
    assert made.rc == 0, made.stderr
    assert "accepted: redis/" in made.stdout + made.stderr
    hosts["redis-2"].run_expect([0], f"test -d {NEW}/.redis-backup -a ! -e {OLD}/.redis-backup")


def test_a_set_of_one_server_gets_another_name_for_its_rdb(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    numbers = acknowledged(hosts[MASTER])
    renamed = play(
        DEPLOY,
        "--limit",
        MASTER,
        *extra(
            redis_replication_group="redis_master",
            redis_dir=NEW,
            redis_dbfilename="data.rdb",
            redis_move_data=True,
        ),
    )
    assert renamed.code == 0, renamed.output
    assert setting(hosts[MASTER], "dbfilename") == "data.rdb"
    hosts[MASTER].run_expect([0], f"test -s {NEW}/data.rdb -a ! -e {NEW}/dump.rdb")
    assert missing(hosts[MASTER], numbers) == []


def test_an_interrupted_move_is_finished_and_all_of_it_goes_back(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    """redis-3 looks as if it had been killed between its stop and its start."""
    hosts["redis-3"].check_output("systemctl stop redis-server")
    hosts["redis-3"].check_output(
        f"cd {OLD} && touch .redis-move-unfinished dump.rdb && chown redis: .redis-m* dump.rdb"
    )
    back = play("site.yml", *extra(redis_move_data=True))
    assert back.code == 0, back.output
    assert_nothing_lost(hosts)
    for name in REDIS:
        running = config_that_its_file_has_too(hosts[name])
        assert (running["dir"], running["dbfilename"]) == (OLD, "dump.rdb")


def test_after_all_of_it_site_yml_changes_nothing(
    hosts: dict[str, Any], play: Callable[..., Play]
) -> None:
    """Not for a comment either that an earlier release wrote into what only a restart takes up."""
    dropin = FILES.split()[-1]
    hosts[MASTER].check_output(
        f"cp -p {dropin} /tmp/before && echo '# a comment' >> {dropin}"
        f" && touch --reference=/tmp/before {dropin}"
    )
    again = play("site.yml")
    assert again.code == 0, again.output
    assert again.total_changed == 0, again.output
