"""The text of redis.conf: read as Redis reads it."""

from __future__ import annotations

import pytest
from ansible_collections.proven.redis.plugins.module_utils.conf_text import (
    ConfError,
    parse,
    split_args,
)


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


def test_parse_ends_lines_where_redis_does() -> None:
    assert [d.args for d in parse("a b\u2028c\x0bd\x85e\n")] == [("b\u2028c\x0bd\x85e",)]
