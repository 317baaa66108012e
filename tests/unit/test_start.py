"""What a stopped server has to load: the rule, row by row, and what it knows of files and logs."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_disk import (
    Aof,
    DataFiles,
    Keys,
    Rdb,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_start import (
    AOF,
    EMPTY,
    RDB,
    STOP,
    Held,
    describe_aof,
    describe_rdb,
    ended_with_aof,
    expected_keys,
    is_cut_off,
    missing_keys,
    newest,
    what_to_load,
)

NOW = 2_000_000.0
SOME = Keys(0, 100, 10)


def rdb(saved: float, keys: bool = True, **more: Any) -> Rdb:
    given = {"written": saved + 0.4, "has_data": keys, "keys": SOME if keys else None, **more}
    return Rdb(there=True, saved=saved, **given)


def aof(written: float, keys: bool = True, **more: Any) -> Aof:
    return Aof(there=True, has_data=keys, written=written, bytes=50 if keys else 0, **more)


BLANK = aof(1000, keys=False, blank=True)
NONE = Rdb()


@pytest.mark.parametrize(
    ("files", "was", "ended", "expected"),
    [
        # Nothing is there.
        ((NONE, Aof()), True, False, EMPTY),
        ((rdb(500, False), aof(400, False)), True, False, EMPTY),
        ((NONE, BLANK), True, False, EMPTY),
        # One of them is there: it is loaded, whatever the file says.
        ((rdb(500), Aof()), True, False, RDB),
        ((rdb(500), Aof()), False, False, RDB),
        ((NONE, aof(500)), False, False, AOF),
        ((NONE, aof(500)), True, False, AOF),
        # A server that started empty beside the RDB has written nothing yet.
        ((rdb(500), BLANK), True, False, RDB),
        # Both: the newer one.
        ((rdb(500), aof(501.5)), True, False, AOF),
        ((rdb(500), aof(501.5)), False, False, AOF),
        ((rdb(500), aof(499.9)), True, False, RDB),
        ((rdb(500), aof(499.9)), False, False, RDB),
        # In the same second: after the save, and before its end.
        ((rdb(500), aof(500.5)), False, False, AOF),
        ((rdb(500), aof(500.3)), True, False, AOF),
        ((rdb(500), aof(500.3)), None, False, AOF),
        ((rdb(500), aof(500.3)), False, False, RDB),
        # An orderly end saves after the last write: both have everything, nothing is made anew.
        ((rdb(500), aof(400)), True, True, AOF),
        ((rdb(500), aof(400)), False, True, RDB),
        ((rdb(500), aof(400, damage="x")), True, True, RDB),
        # Copied files have the time of the copy, but for what an RDB says itself.
        ((rdb(500, written=9000), aof(9001)), False, False, RDB),
        ((rdb(500, written=9000), aof(9001)), True, False, AOF),
        # A clock that was set back: the file says which was in use.
        ((rdb(NOW + 3600), aof(NOW - 5)), True, False, AOF),
        ((rdb(NOW + 3600), aof(NOW - 5)), False, False, RDB),
        # Empty beside full.
        ((rdb(500), aof(400, False)), True, False, RDB),
        ((rdb(500), aof(500.3, False)), False, False, RDB),
        ((rdb(500), aof(600, False)), True, False, STOP),
        ((rdb(500), aof(600, False)), False, False, STOP),
        ((rdb(500, False), aof(600)), False, False, AOF),
        ((rdb(500, False), aof(400)), True, False, AOF),
        ((rdb(500, False), aof(400)), False, False, STOP),
        # What is newest cannot be loaded, or what cannot be loaded is older.
        ((rdb(500, damage="x"), Aof()), False, False, STOP),
        ((rdb(500, damage="x"), aof(600)), True, False, AOF),
        ((rdb(500, damage="x"), aof(400)), True, False, STOP),
        ((rdb(500), aof(600, damage="x")), True, False, STOP),
        ((rdb(500), aof(400, damage="x")), True, False, RDB),
        ((rdb(500), aof(float("inf"), damage="a link")), False, False, STOP),
        ((rdb(float("inf"), damage="a link"), aof(400)), True, False, AOF),
        ((rdb(float("inf"), damage="a link"), aof(400)), False, False, STOP),
        # The file of another release: left behind by an upgrade, or written after a downgrade.
        ((rdb(500), aof(600), aof(400)), True, False, AOF),
        ((NONE, aof(600), aof(700)), True, False, STOP),
        ((rdb(500), Aof(), aof(400)), True, False, RDB),
        ((rdb(500), Aof(), aof(600)), False, False, STOP),
        ((NONE, Aof(), aof(600)), False, False, STOP),
    ],
)
def test_the_newest_data_is_loaded(
    files: tuple[Any, ...], was: bool | None, ended: bool, expected: str
) -> None:
    choice = what_to_load(DataFiles(*files), was, ended, NOW)
    assert choice.load == expected
    assert bool(choice.why) is (expected == STOP)


def test_an_rdb_that_became_the_base_of_an_append_only_file_is_not_newer_than_it() -> None:
    same = rdb(500, written=700.25)
    assert newest(same, aof(700.25), NOW) == AOF
    touched = rdb(500, written=100)
    assert newest(touched, aof(100), NOW) == AOF


ORDERLY = """\
1:M 29 Nov 2026 20:54:01.558 * The server is now ready to accept connections at s
1:signal-handler (1795985641) Received SIGTERM scheduling shutdown...
1:M 29 Nov 2026 20:54:01.659 # User requested shutdown...
1:M 29 Nov 2026 20:54:01.659 * Calling fsync() on the AOF file.
1:M 29 Nov 2026 20:54:01.730 * Saving the final RDB snapshot before exiting.
1:M 29 Nov 2026 20:54:01.732 * DB saved on disk
1:M 29 Nov 2026 20:54:01.732 * Removing the unix socket file.
1:M 29 Nov 2026 20:54:01.732 # Redis is now ready to exit, bye bye...
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (ORDERLY, True),
        (ORDERLY.replace("Redis is", "Valkey is"), True),
        (
            ORDERLY.replace(
                "1:M 29 Nov 2026 20:54:01.659 * Calling fsync() on the AOF file.\n", ""
            ),
            False,
        ),
        (ORDERLY + "2:C 29 Nov 2026 * oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo\n", False),
        # The next server ended in order too, and had no append-only file.
        (
            ORDERLY + "2:M * Server initialized\n2:M # Redis is now ready to exit, bye bye...\n",
            False,
        ),
        ("", False),
    ],
)
def test_the_last_words_of_a_server(log: str, expected: bool) -> None:
    assert ended_with_aof(log, logged=100, touched=100) is expected
    assert not ended_with_aof(log, logged=100, touched=100.1)


WHOLE = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nv\r\n\r\n\r\n"


def test_a_command_that_was_cut_off_anywhere_is_told_from_one_that_is_wrong() -> None:
    for end in range(len(WHOLE)):
        assert is_cut_off(WHOLE[:end]), WHOLE[:end]
        assert is_cut_off(b"#TS:1\r\n" + WHOLE + WHOLE[:end])
    for place in range(len(WHOLE) - 7):
        if WHOLE[place : place + 1] in b"*$\r\n":
            wrong = WHOLE[:place] + b"X" + WHOLE[place + 1 :]
            assert not is_cut_off(wrong + b"more"), wrong
    assert not is_cut_off(bytes(4096))


def info(keys: int, expires: int = 0, commands: int = 0) -> dict[str, Any]:
    return {
        "keyspace": {"0": {"keys": keys, "expires": expires}} if keys else {},
        "stats": {"total_commands_processed": commands},
    }


@pytest.mark.parametrize(
    ("before", "now", "missing"),
    [
        (Held(100, quiet=True), info(100), 0),
        (Held(100, quiet=True), info(150, expires=50), 0),
        (Held(100, quiet=True), info(150, expires=51), 1),
        (Held(100, quiet=True), info(99), 1),
        (Held(100, quiet=True), info(99, commands=1), 0),
        (Held(100, quiet=True), info(0), 100),
        (Held(100, quiet=False), info(60), 0),
        (Held(100, quiet=False), info(10), 90),
    ],
)
def test_keys_that_no_client_deleted_are_missing(
    before: Held, now: dict[str, Any], missing: int
) -> None:
    assert missing_keys(before, now) == missing


def test_what_will_be_there_is_known_where_the_files_tell() -> None:
    base = Aof(there=True, has_data=True, keys=SOME)
    assert expected_keys(DataFiles(rdb(1), Aof()), RDB) == Held(90, quiet=True)
    assert expected_keys(DataFiles(Rdb(), base), AOF) == Held(90, quiet=True)
    assert expected_keys(DataFiles(Rdb(), base._replace(bytes=1)), AOF) is None
    assert expected_keys(DataFiles(), EMPTY) is None


def test_files_in_words() -> None:
    assert describe_rdb("dump.rdb", rdb(0)) == (
        "dump.rdb: 100 keys in database 0, saved 1970-01-01 00:00:00 UTC"
    )
    assert (
        describe_rdb("dump.rdb", rdb(0), 97) == "dump.rdb: 97 keys, saved 1970-01-01 00:00:00 UTC"
    )
    assert describe_rdb("dump.rdb", Rdb()) == "dump.rdb: not there"
    assert describe_aof("a", aof(0, damage="x")) == (
        "a: x (no keys in its base and 50 bytes of commands), last written 1970-01-01 00:00:00 UTC"
    )
    assert describe_aof("a", BLANK) == "a: nothing was ever written to it"
