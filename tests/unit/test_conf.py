"""redis.conf: our reading and writing against Redis's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils import redis_conf
from ansible_collections.proven.redis.plugins.module_utils.redis_conf import (
    LIVE,
    MASK,
    PROTECTED,
    RESTART,
    Change,
    ConfError,
    Planned,
    compare,
    decode,
    fold,
    hold_back,
    kind_of,
    mask,
    normalise,
    parse,
    plan,
    render,
    settle,
    split_args,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_conf import settings as meaning
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import ServerError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.scratch_redis import RefusedError, running, scratch_directory

HASH = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"  # of "password"

# --- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("save 900 1", ["save", "900", "1"]),
        ("  save\t900   1 ", ["save", "900", "1"]),
        ('save ""', ["save", ""]),
        ("save ''", ["save", ""]),
        (r'a "b c" d', ["a", "b c", "d"]),
        (r'a "\x41\x6a\n\r\t\b\a\\\"\q"', ["a", 'Aj\n\r\t\b\a\\"q']),
        (r'a "\xZZ\x4"', ["a", "xZZx4"]),
        (r'a "\xc3\xa9"', ["a", "é"]),
        (r'a "\xff"', ["a", "\udcff"]),
        (r"a 'it\'s' '\n\x41'", ["a", "it's", r"\n\x41"]),
        (r"a b\nc", ["a", r"b\nc"]),
        ('a b"c d"', ["a", "bc d"]),
        ("a b#c # d", ["a", "b#c", "#", "d"]),
        ("a \vb\vc", ["a", "b\vc"]),
        ("", []),
    ],
)
def test_split_args_follows_redis(line: str, words: list[str]) -> None:
    assert split_args(line) == words


@pytest.mark.parametrize("line", ['a "b', "a 'b", 'a "b"c', "a 'b'c", r'a "b\"', "a b\0c"])
def test_split_args_refuses_what_redis_refuses(line: str) -> None:
    with pytest.raises(ConfError):
        split_args(line)


def test_parse_takes_comments_at_the_start_of_a_line_only() -> None:
    text = "# one\n\n  # two\r\nSAVE 900 1\r\n\t requirepass a#b \nbind ::1 # 2"
    assert parse(text) == [
        ("save", ("900", "1"), 4),
        ("requirepass", ("a#b",), 5),
        ("bind", ("::1", "#", "2"), 6),
    ]


def test_parse_names_the_line_and_hides_its_text() -> None:
    with pytest.raises(ConfError, match=r"line 2 .*not closed.*would not start") as caught:
        parse('port 1\ntls-key-file-pass "secret\n')
    assert "secret" not in str(caught.value)


def test_a_password_that_a_rewrite_did_not_quote_is_a_change() -> None:
    desired = render({"requirepass": "two 'wo", "masterauth": 'a"b', "masteruser": "two words"})
    assert compare(desired, desired) == []
    current = 'requirepass two \'wo\nprimaryauth "a"b"\nmasteruser two words\n'
    changes = compare(desired, current)
    assert [change.name for change in changes] == ["requirepass", "masterauth", "masteruser"]
    assert "'wo" not in str([redis_conf.mask(change) for change in changes])


def test_parse_ends_lines_where_redis_does() -> None:
    assert [d.args for d in parse("a b\u2028c\x0bd\x85e\n")] == [("b\u2028c\x0bd\x85e",)]


# --- writing ---------------------------------------------------------------------------------

GOLDEN_INPUT: dict[str, Any] = {
    "bind": ["192.0.2.11", "-::1"],
    "port": 6379,
    "protected-mode": True,
    "dir": "/mnt/redis data",
    "save": ["900 1", [300, 10], "60 10000 5 6"],
    "appendonly": False,
    "slaveof": "192.0.2.12 6379",
    "hash-max-listpack-entries": 64,
    "lua-time-limit": 100,
    "client-output-buffer-limit": ["slave 256mb 64mb 60", ["normal", 0, 0, 0]],
    "requirepass": 'a "b" \\ # é\t\'',
    "masterauth": "",
    "maxmemory": None,
    "latency-tracking-info-percentiles": [50, 99.9],
    "rename-command": ['DEBUG ""', ["FLUSHALL", "x y"]],
    "user": ["alice on >p#1 ~a:* &* +@all"],
}


def test_render_golden() -> None:
    assert render(GOLDEN_INPUT) == (
        "bind 192.0.2.11 -::1\n"
        "port 6379\n"
        "protected-mode yes\n"
        'dir "/mnt/redis data"\n'
        "save 900 1\n"
        "save 300 10\n"
        "save 60 10000\n"
        "save 5 6\n"
        "appendonly no\n"
        "replicaof 192.0.2.12 6379\n"
        "hash-max-listpack-entries 64\n"
        "busy-reply-threshold 100\n"
        "client-output-buffer-limit replica 256mb 64mb 60\n"
        "client-output-buffer-limit normal 0 0 0\n"
        'requirepass "a \\"b\\" \\\\ # \\xc3\\xa9\\t\'"\n'
        'masterauth ""\n'
        "latency-tracking-info-percentiles 50 99.9\n"
        'rename-command DEBUG ""\n'
        'rename-command FLUSHALL "x y"\n'
        "user alice on >p#1 ~a:* &* +@all\n"
    )


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("8.0", "replicaof h 1\nzset-max-listpack-value 2\nserver-cpulist 1\n"),
        ("5:7.0.15-1~deb12u6", "replicaof h 1\nzset-max-listpack-value 2\nserver_cpulist 1\n"),
        ("6.0.16", "replicaof h 1\nzset-max-ziplist-value 2\nserver_cpulist 1\n"),
        ("4.0", "slaveof h 1\nzset-max-ziplist-value 2\nserver_cpulist 1\n"),
    ],
)
def test_render_spells_by_version(version: str, lines: str) -> None:
    values = {"slaveof": ["h", 1], "zset-max-ziplist-value": 2, "server-cpulist": "1"}
    assert render(values, version) == lines


@pytest.mark.parametrize("empty", [[], "", [""], [[]], ()])
def test_an_empty_save_is_said_aloud(empty: Any) -> None:
    assert render({"save": empty}) == 'save ""\n'


def test_a_directive_that_repeats_may_have_no_line() -> None:
    assert render({"user": [], "rename-command": []}) == ""


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"requirepass": "sec\nret"}, "newline"),
        ({"requirepass": "sec\0ret"}, "NUL"),
        ({"save": ["sec\nret 1"]}, "newline"),
        ({"requirepass": {"sec": "ret"}}, "type dict"),
        ({"requirepass": ["sec", "ret"]}, "one value"),
        ({"save": "900"}, "groups of 2"),
        ({"client-output-buffer-limit": "normal 0 0"}, "groups of 4"),
        ({"bind": []}, "empty list"),
        ({"slave-priority": 1, "replica-priority": 2}, "twice"),
        ({"PORT": 1, "port": 1}, "twice"),
        ({"port\nrequirepass x": 1}, "not the name"),
        ({"# port": 1}, "not the name"),
        ({1: 1}, "not the name"),
        ({"user": 'alice "sec'}, "not closed"),
    ],
)
def test_render_refuses(mapping: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfError, match=message) as caught:
        render(mapping)
    assert "sec" not in str(caught.value)


def test_render_refuses_a_version_that_is_none() -> None:
    with pytest.raises(ConfError, match="not a version"):
        render({"port": 1}, "latest")


ANY_TEXT = st.binary(max_size=12).map(decode) | st.text(
    st.sampled_from("ab \t\r\v\f\a\b\x7f\"'\\#xn0é\udcff"), max_size=12
)
ARGUMENT = ANY_TEXT.filter(lambda text: "\n" not in text and "\0" not in text)


@given(st.lists(st.lists(ARGUMENT, min_size=1, max_size=4), max_size=4))
def test_what_is_rendered_is_parsed_again(lines: list[list[str]]) -> None:
    lines = [line for line in lines if line != [""]]
    text = render({"loadmodule": lines})
    assert [list(directive.args) for directive in parse(text)] == lines


@given(st.dictionaries(st.sampled_from(["requirepass", "dbfilename", "x-unknown"]), ARGUMENT))
def test_single_values_are_parsed_again(mapping: dict[str, str]) -> None:
    assert {name: args for name, args, _line in parse(render(mapping))} == {
        name: (value,) for name, value in mapping.items()
    }


# --- meaning ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "same"),
    [
        ("save", ["900", "1", "300", "10"], "900 1 300 10"),
        ("save", ["300 10 900 1"], "900 1 300 10"),
        ("save", ["900", "1", "", "60", "5"], "60 5"),
        ("save", [""], ""),
        ("maxmemory", ["1GB"], "1073741824"),
        ("maxmemory", ["1g"], "1000000000"),
        ("maxmemory", ["10b"], "10"),
        ("maxmemory-clients", ["5%"], "5%"),
        ("hash-max-ziplist-value", ["1k"], "1000"),
        ("appendonly", ["YES"], "yes"),
        ("maxmemory-policy", ["AllKeys-LRU"], "allkeys-lru"),
        ("oom-score-adj", ["relative"], "yes"),
        ("unixsocketperm", ["0770"], "770"),
        ("bind", ["127.0.0.1", "-::1"], "127.0.0.1 -::1"),
        ("bind", ["127.0.0.1 -::1"], "127.0.0.1 -::1"),
        ("slaveof", ["NO", "ONE"], ""),
        ("replicaof", ["h 06379"], "h 6379"),
        ("notify-keyspace-events", ["KEA"], "g$lshzxetdKE"),
        ("notify-keyspace-events", ["AKE"], "g$lshzxetdKE"),
        ("dir", ["/mnt//redis/"], "/mnt/redis"),
        ("shutdown-on-sigterm", ["Save", "now"], "now save"),
        ("latency-tracking-info-percentiles", ["50.0", "99.9"], "50 99.9"),
        ("oom-score-adj-values", ["0 200 800"], "0 200 800"),
        (
            "client-output-buffer-limit",
            ["slave", "256mb", "64MB", "60"],
            "normal 0 0 0 replica 268435456 67108864 60 pubsub 33554432 8388608 60",
        ),
        (
            "client-output-buffer-limit",
            ["normal 0 0 0 slave 1 2 3 pubsub 33554432 8388608 60"],
            "normal 0 0 0 replica 1 2 3 pubsub 33554432 8388608 60",
        ),
        ("requirepass", ["Yes 1GB"], "Yes 1GB"),
        # What Redis would refuse stays as it is.
        ("maxmemory", ["1tb"], "1tb"),
        ("save", ["900", "1", "5"], "900 1 5"),
        ("unixsocketperm", ["999"], "999"),
        ("notify-keyspace-events", ["?"], "?"),
    ],
)
def test_normalise(name: str, args: list[str], same: str) -> None:
    assert normalise(name, args) == same


def test_fold() -> None:
    assert fold("SlaveOf") == fold("replicaof") == "replicaof"
    assert fold("Port") == "port"


@pytest.mark.parametrize(
    ("desired", "current"),
    [
        ("save 900 1\nsave 300 10", "save 300 10 900 1"),
        ("slaveof h 1", "replicaof h 1"),
        ("port 1\nport 2", "\n\n# comment\nPORT 2\n\n"),
        ('requirepass "a"', "requirepass a"),
        ("slave-priority 7", "replica-priority 7"),
        ("hash-max-ziplist-entries 5", "hash-max-listpack-entries 5"),
        ("maxmemory 1gb", "maxmemory 1024mb"),
        ('masterauth ""', ""),
        ("bind * -::*", ""),
        ("", "replicaof no one"),
        ("requirepass password", f"requirepass password\nuser default on #{HASH} ~* &* +@all"),
        ("", "user default on sanitize-payload nopass ~* &* +@all"),
        ("", "user default on nopass ~* +@all"),
        ("", "latency-tracking-info-percentiles 50 99 99.9"),
        (
            "user bob on >password ~k:* ~a:* -@all +get +set",
            f"user bob on sanitize-payload #{HASH} ~a:* ~k:* resetchannels -@all +get +set",
        ),
        ("rename-command FLUSHALL x", "RENAME-COMMAND flushall x"),
        ("list-max-ziplist-value 64", "# ??? list-max-ziplist-value 64"),
    ],
)
def test_compare_sees_no_difference_in(desired: str, current: str) -> None:
    assert compare(desired, current) == []


@pytest.mark.parametrize(
    ("desired", "current", "changes"),
    [
        ("save 900 1", "save 300 1", [("save", "300 1", "900 1")]),
        ('save ""', "save 900 1", [("save", "900 1", "")]),
        ('save ""', "", [("save", None, "")]),
        ("", "port 1", [("port", "1", None)]),
        ("replicaof h 1", "", [("replicaof", None, "h 1")]),
        ("masterauth x", "", [("masterauth", None, "x")]),
        ("requirepass A", "requirepass a", [("requirepass", "a", "A")]),
        (
            "requirepass other",
            f"requirepass other\nuser default on #{HASH} ~* &* +@all",
            [("user default", f"on #{HASH} ~* &* +@all", None)],
        ),
        (
            "requirepass password",
            f"requirepass password\nuser default on #{HASH} ~* &* +@all -flushall",
            [("user default", f"on #{HASH} ~* &* +@all -flushall", None)],
        ),
        (
            "user bob on nopass ~* +@all -get",
            "user bob on nopass ~* -get +@all",
            [
                (
                    "user bob",
                    "on nopass ~* resetchannels +@all",
                    "on nopass ~* resetchannels +@all -get",
                )
            ],
        ),
        ("rename-command DEBUG x", "", [("rename-command debug", None, "x")]),
        ("loadmodule /a.so", "loadmodule /a.so 1", [("loadmodule /a.so", "1", "")]),
    ],
)
def test_compare_sees(
    desired: str, current: str, changes: list[tuple[str, str | None, str | None]]
) -> None:
    assert compare(desired, current) == [Change(*change) for change in changes]


def test_compare_takes_what_the_server_has_anyway() -> None:
    current = "timeout 0\nhz 500\nport 1"
    effective = {"timeout": "0", "hz": "500", "port": "1"}
    assert compare("hz 1000", current, effective) == [Change("port", "1", None)]
    assert compare("hz 1000", current, effective, overridden=()) == []


def test_secrets_are_masked() -> None:
    secret, other = Change("requirepass", None, "s"), Change("port", "1", "2")
    assert mask(secret) == Change("requirepass", None, MASK)
    assert mask(other) == other
    assert mask(Planned(LIVE, "masterauth", "a", "b")) == Planned(LIVE, "masterauth", MASK, MASK)
    assert mask(Change("user alice", "on >a", None)) == Change("user alice", MASK, None)


# --- the plan --------------------------------------------------------------------------------


def test_plan() -> None:
    desired = {
        "maxmemory": "100",
        "databases": "32",
        "dir": "/b",
        "appendfilename": "b",
        "save": "300 10 900 1",
        "slaveof": "h 1",
        "replicaof": "h 1",
        "port": "2",
        "slave-priority": "5",
        "replica-priority": "5",
        "new-in-this-version": "1",
    }
    live = {
        "maxmemory": "99",
        "databases": "16",
        "dir": "/a",
        "appendfilename": "a",
        "save": "900 1 300 10",
        "slaveof": "",
        "replicaof": "",
        "port": "1",
        "replica-priority": "100",
        "slave-priority": "100",
        "gone-in-this-version": "1",
    }
    assert plan(desired, live, overridden={"port"}) == [
        Planned(PROTECTED, "appendfilename", "a", "b"),
        Planned(RESTART, "databases", "16", "32"),
        Planned(PROTECTED, "dir", "/a", "/b"),
        Planned(LIVE, "maxmemory", "99", "100"),
        Planned(RESTART, "new-in-this-version", None, "1"),
        Planned(LIVE, "replica-priority", "100", "5"),
    ]


def test_plan_uses_the_name_that_the_server_knows() -> None:
    assert plan({"hash-max-listpack-value": "1"}, {"hash-max-ziplist-value": "2"}) == [
        Planned(LIVE, "hash-max-ziplist-value", "2", "1")
    ]


def test_kind_of_depends_on_the_version() -> None:
    assert kind_of("port") == LIVE
    assert kind_of("port", "6.0.16") == RESTART
    assert kind_of("user alice") == kind_of("rename-command x") == RESTART
    assert kind_of("slaveof") == RESTART


# --- against a real server -------------------------------------------------------------------


def base(directory: Path) -> dict[str, Any]:
    return {"port": 0, "unixsocket": f"{directory}/socket", "dir": str(directory), "save": []}


FREE_TEXT = ("requirepass", "masterauth", "masteruser", "syslog-ident", "replica-announce-ip")


@settings(max_examples=60)
@given(st.tuples(*[ARGUMENT] * len(FREE_TEXT)))
@example(("pass word", 'a"b', "a'b", "\\x41\\", "#"))
@example(("\udcff\x01\r", "é", " ", "\x0b", "yes"))
def test_redis_reads_what_we_render(values: tuple[str, ...]) -> None:
    wanted = dict(zip(FREE_TEXT, values, strict=True))
    with scratch_directory() as directory:
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
    with scratch_directory() as directory:
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
    with scratch_directory() as directory:
        text = render({**base(directory), **WIDE})
        with running(directory, text, WIDE["requirepass"]) as server:
            found = {fold(name): value for name, value in server.config_get().items()}
    for name, value in redis_conf.settings(text).items():
        if name in found and name != "hz":
            assert normalise(name, [found[name]]) == value, name


def test_a_change_made_live_and_rewritten_is_seen() -> None:
    with scratch_directory() as directory:
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


def test_a_settled_plan_sees_what_the_scratch_server_was_not_started_with() -> None:
    with scratch_directory() as directory:
        text = render({**base(directory), "timeout": 5, "save": ["900 1"], "maxclients": 70})
        overridden = text.replace("save 900 1", 'save ""').replace("maxclients 70", "")
        with running(directory, overridden) as scratch:
            desired = settle(text, scratch.config_get())
            live = {**scratch.config_get(), "save": "60 1", "maxclients": "50", "timeout": "0"}
    assert plan(desired, live) == [
        Planned(LIVE, "maxclients", "50", "70"),
        Planned(LIVE, "save", "60 1", "900 1"),
        Planned(LIVE, "timeout", "0", "5"),
    ]
    assert "tls-port" not in desired


def test_kinds_are_those_of_the_server() -> None:
    """CONFIG SET of every name to its own value: what the server refuses is what we say."""
    refused: dict[str, set[str]] = {RESTART: set(), PROTECTED: set()}
    with scratch_directory() as directory, running(directory, render(base(directory))) as server:
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
    assert ours == refused[RESTART] - redis_conf.PROTECTED_NAMES


@pytest.mark.parametrize("line", ['requirepass "a', "requirepass 'a'b", "nonsense 1"])
def test_the_server_refuses_what_parse_refuses_and_more(line: str) -> None:
    with scratch_directory() as directory:
        text = render(base(directory)) + line
        with (
            pytest.raises(RefusedError, match="FATAL CONFIG FILE ERROR"),
            running(directory, text),
        ):
            pass


# --- holding back what a restart is needed for --------------------------------------------------


def test_what_is_held_back_stays_as_it_is_and_all_else_is_as_wanted() -> None:
    current = "port 6379\ndatabases 16\nslaveof 10.0.0.2 6379\n# a comment\nio-threads 4\n"
    wanted = "port 6379\n# new\ndatabases 99\nmaxmemory 1gb\nunixsocket /run/s\n"
    held = hold_back(wanted, current, ["databases", "io-threads", "unixsocket"])
    assert meaning(held) == {
        "port": "6379",
        "databases": "16",
        "maxmemory": str(1 << 30),
        "io-threads": "4",
    }


def test_a_directive_is_held_back_under_its_old_name_too() -> None:
    held = hold_back("replicaof 10.0.0.3 6379\nhz 10\n", "slaveof 10.0.0.2 6379\n", ["replicaof"])
    assert meaning(held) == {"hz": "10", "replicaof": "10.0.0.2 6379"}


def test_nothing_held_back_is_the_wanted_file() -> None:
    assert meaning(hold_back("hz 10\n", "hz 50\ndatabases 3\n", [])) == {"hz": "10"}
