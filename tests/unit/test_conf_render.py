"""redis.conf from a dictionary, and read again."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.conf_render import render
from ansible_collections.proven.redis.plugins.module_utils.conf_text import (
    ConfError,
    decode,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st

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
