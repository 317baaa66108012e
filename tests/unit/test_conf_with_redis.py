"""redis.conf: our reading and writing against Redis's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.conf_directives import (
    PROTECTED_NAMES,
    fold,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import normalise
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import settings as meaning
from ansible_collections.proven.redis.plugins.module_utils.conf_plan import (
    LIVE,
    PROTECTED,
    RESTART,
    Change,
    Planned,
    compare,
    kind_of,
    plan,
    settle,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_render import render
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import ServerError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.redis_on_socket import RefusedError, running, short_directory
from tests.unit.test_conf_render import ARGUMENT


def base(directory: Path) -> dict[str, Any]:
    return {"port": 0, "unixsocket": f"{directory}/socket", "dir": str(directory), "save": []}


FREE_TEXT = ("requirepass", "masterauth", "masteruser", "syslog-ident", "replica-announce-ip")


@settings(max_examples=60)
@given(st.tuples(*[ARGUMENT] * len(FREE_TEXT)))
@example(("pass word", 'a"b', "a'b", "\\x41\\", "#"))
@example(("\udcff\x01\r", "é", " ", "\x0b", "yes"))
def test_redis_reads_what_we_render(values: tuple[str, ...]) -> None:
    wanted = dict(zip(FREE_TEXT, values, strict=True))
    with short_directory() as directory:
        text = render({**base(directory), **wanted})
        with running(directory, text, wanted["requirepass"]) as server:
            found = server.config_get()
            assert {name: found[name] for name in FREE_TEXT} == wanted
            assert compare(text, server.rewritten(), found) == []


WIDE: dict[str, Any] = {
    "timeout": 30,
    "databases": 20,
    "bind": ["127.0.0.1", "-::1"],
    "save": ["900 1", "300 10", "60 10000"],
    "appendonly": True,
    "appendfsync": "EverySec",
    "auto-aof-rewrite-min-size": "32MB",
    "slaveof": ["192.0.2.1", 6379],
    "masterauth": "a 'b' \"c\" \\ # d",
    "requirepass": "p \"a' \\x41 # s",
    "slave-priority": 10,
    "min-slaves-to-write": 1,
    "repl-backlog-size": "10mb",
    "maxmemory": "100m",
    "maxmemory-policy": "ALLKEYS-LFU",
    "maxmemory-clients": "5%",
    "client-output-buffer-limit": ["slave 512mb 128mb 60", "pubsub 1k 1kb 5"],
    "hash-max-ziplist-entries": 64,
    "hash-max-ziplist-value": "1kb",
    "lua-time-limit": 4000,
    "notify-keyspace-events": "KEA",
    "oom-score-adj": "relative",
    "oom-score-adj-values": [0, 100, 200],
    "shutdown-on-sigterm": ["now", "save"],
    "unixsocketperm": "0700",
    "hz": 1000,
    "tracking-table-max-keys": 5,
    "latency-tracking-info-percentiles": [50, 99.0],
    "rename-command": [["FLUSHALL", ""], ["DEBUG", "x y"]],
    "user": ["bob on >secret ~b:* ~a:* %R~c* &x +@read -get", "eve off"],
    "replica-announce-ip": "",
    "list-max-ziplist-value": 64,
    "logfile": "",
    "dbfilename": "a b.rdb",
}

VARIANTS: list[dict[str, Any]] = [
    WIDE,
    {},
    {"save": [], "requirepass": ""},
    {"save": ["3600 1"], "bind": "* -::*", "replicaof": ["no", "one"], "masterauth": ""},
    {"requirepass": "é\udcff", "client-output-buffer-limit": "normal 1 2 3 replica 4gb 5 6"},
    {"user": ["default on >x ~* +@all", "y on nopass (~a +get) ~b"]},
    {"bind": "", "oom-score-adj": "absolute", "notify-keyspace-events": ""},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_rewrite_of_an_unchanged_server_is_no_change(variant: dict[str, Any]) -> None:
    password = "x" if "default" in str(variant.get("user")) else variant.get("requirepass", "")
    with short_directory() as directory:
        text = render({**base(directory), **variant})
        with running(directory, text, password) as server:
            before = server.config_get()
            once = server.rewritten()
            twice = server.rewritten()
        assert [compare(text, file, before) for file in (once, twice)] == [[], []]
        # hz is limited by the server, and only its own CONFIG GET tells.
        without = [change for change in compare(text, once) if change.name != "hz"]
        assert without == []
        # What was rewritten boots to the same.
        with running(directory, once, password) as server:
            assert plan(before, server.config_get()) == []


def test_config_get_is_normalised_like_the_file() -> None:
    with short_directory() as directory:
        text = render({**base(directory), **WIDE})
        with running(directory, text, WIDE["requirepass"]) as server:
            found = {fold(name): value for name, value in server.config_get().items()}
    for name, value in meaning(text).items():
        if name in found and name != "hz":
            assert normalise(name, [found[name]]) == value, name


def test_a_change_made_live_and_rewritten_is_seen() -> None:
    with short_directory() as directory:
        text = render({**base(directory), "timeout": 5, "requirepass": "old"})
        with running(directory, text, "old") as server:
            effective = server.config_get()
            for name, value in (("timeout", "6"), ("requirepass", "new"), ("tcp-keepalive", "9")):
                server.connection.command("CONFIG", "SET", name, value)
            changes = compare(text, server.rewritten(), effective)
    assert [change for change in changes if change.name != "user default"] == [
        Change("timeout", "6", "5"),
        Change("requirepass", "new", "old"),
        Change("tcp-keepalive", "9", None),
    ]
    assert [change.name for change in changes][-1] == "user default"


def test_a_settled_plan_sees_what_a_trial_boot_was_not_started_with() -> None:
    with short_directory() as directory:
        text = render({**base(directory), "timeout": 5, "save": ["900 1"], "maxclients": 70})
        overridden = text.replace("save 900 1", 'save ""').replace("maxclients 70", "")
        with running(directory, overridden) as trial:
            desired = settle(text, trial.config_get())
            live = {**trial.config_get(), "save": "60 1", "maxclients": "50", "timeout": "0"}
    assert plan(desired, live) == [
        Planned(LIVE, "maxclients", "50", "70"),
        Planned(LIVE, "save", "60 1", "900 1"),
        Planned(LIVE, "timeout", "0", "5"),
    ]
    assert "tls-port" not in desired


def test_kinds_are_those_of_the_server() -> None:
    """CONFIG SET of every name to its own value: what the server refuses is what we say."""
    refused: dict[str, set[str]] = {RESTART: set(), PROTECTED: set()}
    with short_directory() as directory, running(directory, render(base(directory))) as server:
        config = server.config_get()
        for name, value in config.items():
            try:
                server.connection.command("CONFIG", "SET", name, value)
            except ServerError as error:
                if "immutable" in str(error):
                    refused[RESTART].add(fold(name))
                elif "protected" in str(error):
                    refused[PROTECTED].add(fold(name))
    assert refused[PROTECTED] == {"dir", "dbfilename"}
    known = {fold(name) for name in config}
    ours = {name for name in known if kind_of(name) == RESTART}
    assert ours == refused[RESTART] - PROTECTED_NAMES


@pytest.mark.parametrize("line", ['requirepass "a', "requirepass 'a'b", "nonsense 1"])
def test_the_server_refuses_what_parse_refuses_and_more(line: str) -> None:
    with short_directory() as directory:
        text = render(base(directory)) + line
        with (
            pytest.raises(RefusedError, match="FATAL CONFIG FILE ERROR"),
            running(directory, text),
        ):
            pass
