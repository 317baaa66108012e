"""What a change of settings costs: foretold, then done to a real server and counted."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.conf_accept import (
    entry,
    judge,
    refusal,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_consequences import (
    Consequence,
    Seen,
    consequences,
    consequences_of_files,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_plan import LIVE, Planned
from ansible_collections.proven.redis.plugins.module_utils.conf_render import render
from ansible_collections.proven.redis.plugins.module_utils.redis_info import parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ServerError,
    wait_until,
)
from ansible_collections.proven.redis.plugins.modules import redis_config

from tests.support.ansible_runs import answer
from tests.support.servers import any_server
from tests.unit.redis_on_socket import RefusedError, Server, running, short_directory

KEYS = 20_000


def free_port() -> int:
    """A port that is free, and 10000 above it there is one for the bus of a cluster."""
    while True:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = int(taken.getsockname()[1])
        if port < 55_000:
            return port


@contextmanager
def server(**settings: Any) -> Iterator[Server]:
    """A server without keys, on a port of its own where the settings give one."""
    with short_directory() as place:
        base = {"port": 0, "unixsocket": f"{place}/socket", "dir": str(place), "save": []}
        with running(place, render({**base, **settings})) as started:
            yield started


def fill(target: Server, keys: int = KEYS, expiring: int = 0, database: int = 0) -> None:
    """Keys with values of different sizes."""
    ask = target.connection.command
    ask("SELECT", str(database))
    for first in range(0, keys, 1000):
        words = []
        for number in range(first, min(keys, first + 1000)):
            words += [f"key:{database}:{number}", "v" * (20 + number * 7919 % 400)]
        ask("MSET", *words)
    for number in range(expiring):
        ask("EXPIRE", f"key:{database}:{number}", "100000")
    ask("SELECT", "0")


def cost(target: Server, **changes: object) -> list[Consequence]:
    """What the module says of a change to these values."""
    config = target.config_get()
    names = {name.replace("_", "-"): str(value) for name, value in changes.items()}
    planned = [Planned(LIVE, name, config.get(name), value) for name, value in names.items()]
    return redis_config.costs(target.connection, planned)


def only(found: list[Consequence]) -> tuple[str, int, str]:
    (one,) = found
    return one.subject, one.number, one.unit


def used(target: Server) -> int:
    return int(parse_info(target.connection.command("INFO", "memory"))["memory"]["used_memory"])


def change(target: Server, **changes: object) -> None:
    for name, value in changes.items():
        target.connection.command("CONFIG", "SET", name.replace("_", "-"), str(value))


def left(target: Server) -> int:
    """Keys, once no more are evicted."""
    counts = [-1, int(target.connection.command("DBSIZE"))]
    while counts[-1] != counts[-2]:
        time.sleep(0.2)
        counts.append(int(target.connection.command("DBSIZE")))
    return counts[-1]


def takes_writes(target: Server) -> bool:
    try:
        target.connection.command("SET", "one-more", "x" * 20)
    except ServerError as error:
        if not str(error).startswith(("OOM", "NOREPLICAS", "MISCONF")):
            raise
        return False
    return True


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_as_many_keys_go_as_was_said(policy: str, share: float) -> None:
    with server() as target:
        empty = used(target)
        fill(target, expiring=KEYS if policy == "volatile-ttl" else 0)
        limit = empty + int((used(target) - empty) * share)
        subject, number, unit = only(cost(target, maxmemory=limit, maxmemory_policy=policy))
        assert (subject, unit) == ("maxmemory", "keys")
        change(target, maxmemory_policy=policy, maxmemory=limit)
        gone = KEYS - left(target)
    assert gone * 0.8 < number < gone * 1.2, (number, gone)


def test_all_keys_go_and_then_every_write_is_refused() -> None:
    """The value that somebody meant in gigabytes."""
    with server() as target:
        fill(target, 3000)
        found = cost(target, maxmemory=2, maxmemory_policy="allkeys-lru")
        assert only(found) == ("maxmemory", 3000, "keys")
        assert "all 3000 keys are deleted at once, and then every write" in found[0].sentence
        change(target, maxmemory_policy="allkeys-lru", maxmemory=2)
        assert left(target) == 0
        assert not takes_writes(target)


def test_only_keys_that_expire_go_by_a_volatile_policy() -> None:
    with server() as target:
        fill(target, 3000, expiring=500)
        found = cost(target, maxmemory=2, maxmemory_policy="volatile-lru")
        assert only(found) == ("maxmemory", 500, "keys")
        assert "about 500 of 3000 keys" in found[0].sentence
        change(target, maxmemory_policy="volatile-lru", maxmemory=2)
        assert left(target) == 2500
        assert not takes_writes(target)


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru"])
def test_writes_stop_where_no_key_can_go(policy: str) -> None:
    with server() as target:
        fill(target)
        limit = used(target) // 2
        subject, number, unit = only(cost(target, maxmemory=limit, maxmemory_policy=policy))
        assert (subject, unit) == ("maxmemory", "MiB-missing")
        assert number == -(-(used(target) - limit) // (1 << 20))
        change(target, maxmemory_policy=policy, maxmemory=limit)
        assert left(target) == KEYS
        assert not takes_writes(target)


def test_a_limit_with_room_costs_nothing() -> None:
    with server() as target:
        fill(target)
        limit = used(target) + (5 << 20)
        for policy in ("allkeys-lru", "noeviction"):
            assert cost(target, maxmemory=limit, maxmemory_policy=policy) == []
        change(target, maxmemory_policy="allkeys-lru", maxmemory=limit)
        assert left(target) == KEYS
        assert takes_writes(target)


def test_a_policy_alone_turns_eviction_on() -> None:
    with server(**{"maxmemory-policy": "noeviction"}) as target:
        fill(target)
        change(target, maxmemory=used(target) // 2)
        assert not takes_writes(target)
        subject, number, unit = only(cost(target, maxmemory_policy="allkeys-random"))
        assert (subject, unit) == ("maxmemory-policy", "keys")
        change(target, maxmemory_policy="allkeys-random")
        gone = KEYS - left(target)
        assert gone * 0.7 < number < gone * 1.3, (number, gone)


def test_what_is_as_bad_already_is_not_asked_again() -> None:
    with server(**{"maxmemory-policy": "noeviction"}) as target:
        fill(target)
        change(target, maxmemory=used(target) // 2)
        assert cost(target, maxmemory=used(target) // 3) == []  # writes are refused as it is
        assert cost(target, maxmemory=0) == []
        assert cost(target, timeout=5) == []


def test_nobody_is_asked_about_a_server_without_keys() -> None:
    with server() as target:
        assert cost(target, maxmemory=2, maxclients=1, min_replicas_to_write=3, databases=1) == []


@pytest.fixture
def replicated() -> Iterator[tuple[Server, Server]]:
    """A master with keys and its replica, in sync."""
    with ExitStack() as stack:
        port = free_port()
        at_once = {"repl-diskless-sync-delay": 0}
        master = stack.enter_context(server(port=port, bind="127.0.0.1", **at_once))
        fill(master, 3000)
        settings = {"replicaof": ["127.0.0.1", port], "enable-debug-command": True}
        replica = stack.enter_context(server(**settings))

        def in_sync() -> bool:
            state = parse_info(master.connection.command("INFO", "replication"))["replication"]
            return [one["state"] for one in state.get("replicas", [])] == ["online"]

        assert wait_until(in_sync, 30)
        yield master, replica


def test_a_replica_is_judged_as_the_master_that_it_may_become(
    replicated: tuple[Server, Server],
) -> None:
    _, replica = replicated
    found = cost(replica, maxmemory=2, maxmemory_policy="allkeys-lru")
    assert only(found) == ("maxmemory", 3000, "keys")
    assert "when it is promoted" in found[0].sentence
    change(replica, maxmemory_policy="allkeys-lru", maxmemory=2)
    assert left(replica) == 3000
    subject, number, unit = only(cost(replica, replica_ignore_maxmemory="no"))
    assert (subject, number, unit) == ("replica-ignore-maxmemory", 3000, "keys")
    change(replica, replica_ignore_maxmemory="no")
    assert left(replica) == 0


def test_buffers_for_replicas_do_not_count_against_the_limit() -> None:
    """A replica that waits for its first snapshot makes the master large, and evicts nothing."""
    settings = {"repl-diskless-sync": True, "repl-diskless-sync-delay": 60}
    with server(**settings) as target, socket.socket(socket.AF_UNIX) as replica:
        fill(target)
        replica.connect(str(target.config.parent / "socket"))
        replica.sendall(b"SYNC\r\n")
        for _ in range(300):
            target.connection.command("SET", "one", "x" * 100_000)
        memory = parse_info(target.connection.command("INFO", "memory"))["memory"]
        limit = memory["used_memory"] - memory["mem_not_counted_for_evict"] + (1 << 20)
        assert limit < memory["used_memory"] - (5 << 20), "the buffers are too small to tell"
        assert cost(target, maxmemory=limit, maxmemory_policy="allkeys-lru") == []
        change(target, maxmemory_policy="allkeys-lru", maxmemory=limit)
        assert left(target) == KEYS + 1


@pytest.mark.parametrize("name", ["min_replicas_to_write", "min_slaves_to_write"])
def test_more_replicas_than_are_in_sync_stop_every_write(
    replicated: tuple[Server, Server], name: str
) -> None:
    master, replica = replicated
    assert cost(master, **{name: 1}) == []
    assert only(cost(master, **{name: 2})) == ("min-replicas-to-write", 1, "replicas-missing")
    assert cost(replica, **{name: 2}) == []
    change(master, **{name: 1})
    assert takes_writes(master)
    change(master, **{name: 2})
    assert not takes_writes(master)
    assert cost(master, **{name: 2}) == []


def test_a_replica_that_lags_more_than_allowed_does_not_count(
    replicated: tuple[Server, Server],
) -> None:
    master, replica = replicated
    change(master, min_replicas_to_write=1, min_replicas_max_lag=60)
    with ThreadPoolExecutor() as pool:
        asleep = pool.submit(replica.connection.command, "DEBUG", "SLEEP", "4.5")
        time.sleep(3.5)
        assert takes_writes(master)
        found = cost(master, min_replicas_max_lag=1)
        assert only(found) == ("min-replicas-max-lag", 1, "replicas-missing")
        change(master, min_replicas_max_lag=1)
        assert not takes_writes(master)
        asleep.result()


def test_writes_stop_where_the_last_snapshot_failed() -> None:
    with server(**{"stop-writes-on-bgsave-error": False}) as target:
        fill(target, 100)
        place = target.config.parent
        change(target, save="3600 1")
        change(target, rdb_key_save_delay=0)
        (place / "dump.rdb").unlink(missing_ok=True)
        (place / "dump.rdb").mkdir()
        target.connection.command("BGSAVE")

        def failed() -> bool:
            state = parse_info(target.connection.command("INFO", "persistence"))["persistence"]
            return bool(state["rdb_last_bgsave_status"] == "err")

        assert wait_until(failed, 20)
        assert takes_writes(target)
        found = cost(target, stop_writes_on_bgsave_error="yes")
        assert only(found) == ("stop-writes-on-bgsave-error", 1, "failed-save")
        change(target, stop_writes_on_bgsave_error="yes")
        assert not takes_writes(target)
        assert cost(target, save="900 1") == []


@pytest.mark.parametrize("appendonly", [False, True])
def test_keys_beyond_the_last_database_are_not_loaded(appendonly: bool) -> None:
    with short_directory() as place:
        base = {"port": 0, "unixsocket": f"{place}/socket", "dir": str(place), "save": []}
        base["appendonly"] = appendonly
        base["aof-use-rdb-preamble"] = False
        with running(place, render(base)) as target:
            fill(target, 50)
            fill(target, 12, database=5)
            fill(target, 3, database=9)
            assert cost(target, databases=10) == []
            found = cost(target, databases=4)
            assert only(found) == ("databases", 15, "keys")
            assert "15 keys are in database 5, 9" in found[0].sentence
            target.connection.command("BGREWRITEAOF" if appendonly else "SAVE")

            def rewritten() -> bool:
                state = parse_info(target.connection.command("INFO", "persistence"))
                return not state["persistence"]["aof_rewrite_in_progress"]

            assert wait_until(rewritten, 20)
        smaller = render({**base, "databases": 4})
        if appendonly:
            with running(place, smaller) as target:
                assert int(target.connection.command("DBSIZE")) == 65, "all in database 0"
        else:
            with pytest.raises(RefusedError, match="FATAL"), running(place, smaller):
                pass


def test_clients_beyond_the_limit_find_no_place() -> None:
    with server(maxclients=50) as target, ExitStack() as stack:
        fill(target, 10)
        path = str(target.config.parent / "socket")
        for _ in range(9):
            stack.enter_context(Connection(unixsocket=path)).command("PING")
        assert cost(target, maxclients=10) == []
        assert only(cost(target, maxclients=6)) == ("maxclients", 4, "clients")
        change(target, maxclients=6)
        assert cost(target, maxclients=6) == []
        with Connection(unixsocket=path) as late, pytest.raises((ServerError, OSError)):
            late.command("PING")


def test_memory_of_clients_that_is_too_little_throws_them_out() -> None:
    with server() as target, socket.socket(socket.AF_UNIX) as client:
        fill(target, 10)
        client.connect(str(target.config.parent / "socket"))
        client.sendall(b"*2\r\n$3\r\nGET\r\n$500000\r\n" + b"x" * 400_000)
        # The server counts this once a second.
        assert wait_until(lambda: cost(target, maxmemory_clients=200_000), 10)
        assert only(cost(target, maxmemory_clients=1)) == ("maxmemory-clients", 1, "clients")
        assert cost(target, maxmemory_clients="1gb") == []
        assert cost(target, maxmemory_clients="1%", maxmemory=100 << 20) == []
        change(target, maxmemory_clients=1)
        client.settimeout(10)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b"", "it is still connected"


def test_what_idle_clients_take_is_never_too_much() -> None:
    """The server takes a limit below 128 KiB for that."""
    with server() as target:
        fill(target, 10)
        with Connection(unixsocket=str(target.config.parent / "socket")) as client:
            time.sleep(1.5)
            assert cost(target, maxmemory_clients=1) == []
            change(target, maxmemory_clients=1)
            time.sleep(0.5)
            assert client.command("PING") == "PONG"


def test_a_first_password_shuts_out_who_sends_none() -> None:
    with server() as target:
        fill(target, 10)
        assert cost(target, requirepass="of-twelve-or-more") == []
        path = str(target.config.parent / "socket")
        with Connection(unixsocket=path) as client:
            client.command("PING")
            found = cost(target, requirepass="of-twelve-or-more")
            assert only(found) == ("requirepass", 1, "clients")
            assert "of-twelve" not in found[0].sentence
            change(target, requirepass="of-twelve-or-more")
            assert cost(target, requirepass="another-of-twelve") == []
        with Connection(unixsocket=path) as client, pytest.raises(ServerError, match="NOAUTH"):
            client.command("PING")


@pytest.mark.parametrize(
    ("bind", "number"),
    [
        ("127.0.0.1", 2),
        ("127.0.0.2", 0),
        ("127.0.0.1 -127.0.0.2", 0),
        ("0.0.0.0", 0),
        ("* -::*", 0),
        ("::1", 2),
        ("localhost", 0),  # a name: nobody here knows what it means
    ],
)
def test_clients_by_an_address_that_is_given_up_are_shut_out(bind: str, number: int) -> None:
    port = free_port()
    with server(bind=["127.0.0.1", "127.0.0.2"], port=port) as target, ExitStack() as stack:
        fill(target, 10)
        for _ in range(2):
            stack.enter_context(Connection("127.0.0.2", port)).command("PING")
        found = cost(target, bind=bind)
        assert [(one.subject, one.number) for one in found] == (
            [("bind", number)] if number else []
        )
        if bind == "127.0.0.1":
            change(target, bind=bind)
            with pytest.raises(OSError):
                Connection("127.0.0.2", port)


@pytest.mark.parametrize(
    ("before", "bind", "number"),
    [
        ("127.0.0.1 192.0.2.7", "127.0.0.1", 2),
        ("127.0.0.1 192.0.2.7", "192.0.2.7", 0),
        ("127.0.0.1 192.0.2.7", "127.0.0.1 0.0.0.0", 0),
        ("0.0.0.0", "127.0.0.1 192.0.2.7", 2),
        ("*", "0.0.0.0", 0),
        ("", "127.0.0.1", 2),
        ("127.0.0.1 127.0.0.2", "127.0.0.1", 0),
    ],
)
def test_before_6_2_clients_of_other_hosts_count_when_an_address_goes(
    before: str, bind: str, number: int
) -> None:
    """CLIENT LIST of Redis 6.0 has no `laddr`."""
    lines = [
        "id=3 addr=192.0.2.9:50000 fd=8 name= age=1 flags=N user=default cmd=get",
        "id=4 addr=192.0.2.8:6379 fd=9 name= age=1 flags=S user=default cmd=replconf",
        "id=5 addr=192.0.2.6:6379 fd=9 name= age=1 flags=M user=(superuser) cmd=ping",
        "id=6 addr=127.0.0.1:50002 fd=10 name= age=1 flags=N user=default cmd=get",
        "id=7 addr=/run/redis.sock:0 fd=11 name= age=1 flags=U user=default cmd=get",
        "id=8 addr=192.0.2.7:50004 fd=12 name= age=1 flags=N user=default cmd=client",
    ]
    with server() as target:
        fill(target, 10)
        config = {**target.config_get(), "bind": before}
        seen = Seen(config, parse_info(target.connection.command("INFO")), lines)
    found = consequences([Planned(LIVE, "bind", before, bind)], seen)
    assert [(one.subject, one.number) for one in found] == ([("bind", number)] if number else [])


def test_a_server_of_a_cluster_serves_none_of_its_keys() -> None:
    with short_directory() as place:
        base = {"port": free_port(), "unixsocket": f"{place}/socket", "dir": str(place)}
        with running(place, render(base)) as target:
            fill(target, 30)
            assert only(cost(target, cluster_enabled="yes")) == ("cluster-enabled", 30, "keys")
            target.connection.command("SAVE")
        with (
            running(place, render({**base, "cluster-enabled": True})) as target,
            pytest.raises(ServerError, match="CLUSTERDOWN"),
        ):
            target.connection.command("GET", "key:0:1")


# --- without a server ------------------------------------------------------------------------


def test_of_a_stopped_server_its_files_tell_something() -> None:
    of_files = consequences_of_files
    wanted = {"maxmemory": "1048576", "maxmemory-policy": "allkeys-lru", "databases": "4"}
    assert [(one.subject, one.number, one.unit) for one in of_files({}, wanted, 9 << 20)] == [
        ("maxmemory", 8, "MiB-missing"),
        ("databases", 12, "databases"),
    ]
    assert of_files(wanted, wanted, 9 << 20) == []
    assert of_files({}, {"maxmemory": "1048576"}, None) == []
    assert of_files({"maxmemory": "1048576"}, {"maxmemory": "0"}, 9 << 20) == []
    assert of_files({}, {}, 9 << 20) == []
    (one,) = of_files({}, {"cluster-enabled": "yes"}, None)
    assert one.subject == "cluster-enabled"


GONE = Consequence("maxmemory", 97_257, "keys", "All of them go.")


def test_an_entry_has_room_for_what_moves() -> None:
    numbers = {0: 0, 1: 1, 19: 19, 20: 21, 40: 42, 100: 110, 1000: 1100, 97_257: 110_000}
    for number, bound in numbers.items():
        assert entry(GONE._replace(number=number), "redis-1") == f"redis-1:maxmemory:{bound}-keys"


@pytest.mark.parametrize(
    ("accept", "refused", "outgrown", "unneeded"),
    [
        ([], True, False, False),
        (["redis-1:maxmemory:110000-keys"], False, False, False),
        (["redis-1:maxmemory:97257-keys"], False, False, False),
        (["redis-1:MaxMemory:97257-keys "], False, False, False),
        (["redis-1:maxmemory:97256-keys"], True, True, False),
        (["redis-1:maxmemory:5-keys", "redis-1:maxmemory:97257-keys"], False, False, False),
        (["redis-1:maxmemory:97257-MiB-missing"], True, True, False),
        (["redis-2:maxmemory:110000-keys"], True, False, False),
        (["redis-1:databases:97257-keys"], True, False, True),
        (["redis-1:maxmemory:110000-keys", "redis-1:databases:9-keys"], False, False, True),
    ],
)
def test_an_entry_covers_its_own_host_and_subject_up_to_its_number(
    accept: list[str], refused: bool, outgrown: bool, unneeded: bool
) -> None:
    verdict = judge([GONE], accept, "redis-1")
    assert bool(verdict.refused) is refused
    assert bool(verdict.accepted) is not refused
    assert bool(verdict.outgrown) is outgrown
    assert bool(verdict.unneeded) is unneeded
    text = refusal(verdict, "redis-1")
    assert ("redis_accept: [redis-1:maxmemory:110000-keys]" in text) is refused
    assert ("and it is more now" in text) is outgrown


def test_old_names_of_a_directive_are_accepted_too() -> None:
    one = Consequence("min-replicas-to-write", 1, "replicas-missing", "")
    assert not judge([one], ["a:min-slaves-to-write:1-replicas-missing"], "a").refused


@pytest.mark.parametrize(
    "text", ["yes", "all", "redis-1", "redis-1:maxmemory", "a:b:keys", "a:b:1"]
)
def test_what_is_no_entry_is_named(text: str) -> None:
    verdict = judge([], [text], "redis-1")
    assert verdict.unreadable == [text]
    assert f"redis_accept has {text}" in refusal(verdict, "redis-1")


# --- the module ------------------------------------------------------------------------------


def test_the_module_refuses_and_goes_on_with_consent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "redis-server"
    command = shlex.join(any_server().command)
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    port = free_port()
    with short_directory() as place:
        base = {"port": port, "dir": str(place), "save": [], "bind": "127.0.0.1"}
        before = render({**base, "unixsocket": f"{place}/socket"})
        with running(place, before) as target:
            fill(target, 1000)

            def run(check: bool, *accept: str) -> dict[str, Any]:
                limits = {"maxmemory": 2, "maxmemory-policy": "allkeys-lru"}
                return answer(
                    redis_config,
                    {
                        "instance": {
                            "unit": "none.service",
                            "unit_dropin": str(tmp_path / "none"),
                            "server": str(program),
                            "account": pwd.getpwuid(os.getuid()).pw_name,
                            "config_file": str(target.config),
                            "log_file": str(tmp_path / "log"),
                            "addresses": ["127.0.0.1"],
                            "port": port,
                        },
                        "content": render({**base, "unixsocket": f"{place}/socket", **limits}),
                        "running": True,
                        "has_data": True,
                        "host": "redis-1",
                        "accept": list(accept),
                    },
                    check,
                )

            good = "redis-1:maxmemory:1100-keys"
            for check in (True, False):
                refused = run(check)
                assert refused["msg"].startswith("redis-1 is left as it is: maxmemory 2 bytes")
                assert refused["msg"].endswith(f"redis_accept: [{good}]")
                assert [one["entry"] for one in refused["consequences"]] == [good]
            planned = run(True, good, "redis-1:databases:3-keys")
            assert any(line.endswith("(accepted)") for line in planned["plan"])
            unneeded = "redis_accept has redis-1:databases:3-keys, for which there is no need"
            assert unneeded in capsys.readouterr().err
            # As many more as the consent does not cover have come between the plan and the change.
            fill(target, 300, database=1)
            outgrown = run(False, good)
            assert f"redis_accept has {good}, and it is more now" in outgrown["msg"]
            assert int(target.connection.command("DBSIZE")) == 1000
            assert target.config.read_text(encoding="utf-8") == before
            done = run(False, "redis-1:maxmemory:1400-keys", "redis-1:databases:3-keys")
            assert done["changed"]
            assert unneeded not in capsys.readouterr().err
            assert left(target) == 0


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_a_socket_does_not_take_the_place_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path, target = tmp_path / "passwd", tmp_path / "target"
    if what == "directory":
        path.mkdir()
    else:
        target.write_text("root", encoding="utf-8")
        path.symlink_to(target) if what == "link" else target.rename(path)

    def run(socket_path: Path) -> dict[str, Any]:
        return answer(
            redis_config,
            {
                "instance": {
                    "unit": "none.service",
                    "unit_dropin": str(tmp_path / "none"),
                    "server": str(tmp_path / "not-installed"),
                    "account": pwd.getpwuid(os.getuid()).pw_name,
                    "config_file": str(tmp_path / "redis.conf"),
                    "log_file": str(tmp_path / "log"),
                    "addresses": ["127.0.0.1"],
                    "port": 1,
                },
                "content": render({"unixsocket": str(socket_path)}),
                "running": False,
                "has_data": False,
            },
            True,
        )

    refused = run(path)["msg"]
    assert f"unixsocket {path} is there already and is no socket" in refused
    with socket.socket(socket.AF_UNIX) as own, short_directory() as place:
        own.bind(str(place / "socket"))
        for free in (place / "socket", place / "none"):
            assert "is no socket" not in run(free).get("msg", "")
