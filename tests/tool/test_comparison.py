"""The comparison of a drill: no difference between encodings of the same data, and every other."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from redis_backup.digest import borders, comparison
from redis_backup.digest.comparison import Stage
from redis_backup.rdb import crc64, walker
from redis_backup.rdb import cursor as rdb_cursor

from tests.support import rdb_builder as build
from tests.support import servers
from tests.support.comparing import difference, difference_of, feed, same_records
from tests.support.rdb_builder import Rdb
from tests.tool.backup_lab import PACKAGE, free_port
from tests.tool.test_rdb_digest import (
    ALL,
    FIXTURES,
    OTHER_ENCODINGS,
    READABLE,
    RELOADED,
    SAME,
    entries,
    one,
    strings,
)

# These were made by servers with other limits than the defaults.
MADE_WITH_OTHER_SETTINGS = {"hashes", "field-expiries", "plain-strings"}


@pytest.mark.parametrize("what", SAME)
def test_no_encoding_makes_a_difference(what: str) -> None:
    for first, second in itertools.product(SAME[what], repeat=2):
        assert difference(first, second) is None


def test_what_differs_differs() -> None:
    first_of_each = [data[0] for data in SAME.values() if b"key" in data[0]]
    for first, second in itertools.permutations(first_of_each, 2):
        found = difference(first, second)
        assert found is not None
        assert set(found.keys) == {0}
        assert not found.beside


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (one(1, strings(b"ab", b"c")), one(1, strings(b"a", b"bc"))),
        (one(2, strings(b"ab", b"c")), one(2, strings(b"a", b"bc"))),
        (one(4, b"\1", strings(b"ab")[1:], strings(b"c")[1:]), one(4, b"\1\1a\2bc")),
        (one(2, strings(b"ab")), one(1, strings(b"ab"))),
        (one(0, build.string(b"7")), one(0, build.string(b"07"))),
        (one(0, build.string(b"")), one(0, build.string(b"\0"))),
        # A field that goes from one field's value to the other's.
        (one(4, b"\2\1a\1x\1b\1y"), one(4, b"\2\1a\1y\1b\1x")),
        (
            one(24, struct.pack("<Q", 5000), b"\2\1\1a\1x\0\1b\1y"),
            one(24, struct.pack("<Q", 5000), b"\2\0\1a\1x\1\1b\1y"),
        ),
        (
            one(24, struct.pack("<Q", 5000), b"\1\1\1a\1x"),
            one(24, struct.pack("<Q", 5001), b"\1\1\1a\1x"),
        ),
    ],
)
def test_what_nearly_is_the_same_differs(first: bytes, second: bytes) -> None:
    found = difference(first, second)
    assert found is not None
    assert found.keys == {0: ["key"]}


def test_order_does_not_count() -> None:
    """Not of keys, and not of the members of sets: they need not even be decoded for it."""
    assert same_records(feed(entries(300, 1).end()), feed(entries(300, 2).end()))
    hashes = [one(4, b"\2\1a\1x\1b\1y"), one(4, b"\2\1b\1y\1a\1x")]
    assert same_records(feed(hashes[0]), feed(hashes[1]))
    lists = [one(1, strings(b"a", b"b")), one(1, strings(b"b", b"a"))]
    assert difference(*lists) is not None


def test_databases_count() -> None:
    value = build.string(b"value")
    first = Rdb(9).db(0, 1).key(0, b"a", value).db(1, 1).key(0, b"b", value).end()
    second = Rdb(9).db(0, 1).key(0, b"b", value).db(1, 1).key(0, b"a", value).end()
    found = difference(first, second)
    assert found is not None
    assert found.keys == {0: ["a", "b"], 1: ["a", "b"]}


def test_equal_records_do_not_cancel_out() -> None:
    """As they would in an exclusive or, which two of the same leave as it was."""

    def keys(*names: bytes) -> bytes:
        made = Rdb(9).db(0, len(names))
        for name in names:
            made.key(0, name, build.string(b"value"))
        return made.end()

    assert difference(keys(b"a", b"a", b"c"), keys(b"b", b"b", b"c")) is not None
    assert difference(keys(b"a", b"a", b"c"), keys(b"c")) is not None
    assert difference(keys(b"a", b"c", b"a"), keys(b"a", b"a", b"c")) is None


def test_functions_and_data_of_modules_count() -> None:
    def library(code: bytes) -> bytes:
        return Rdb(10).opcode(build.FUNCTION2, build.string(code)).end()

    assert difference(library(b"one"), library(b"one")) is None
    found = difference(library(b"one"), library(b"two"))
    assert found is not None
    assert (found.keys, found.beside) == ({}, True)


def test_a_walk_without_a_look_into_values_finds_the_same() -> None:
    for name, make in ALL.items():
        data = make()
        plain = walker.inspect_stream(io.BytesIO(data), len(data))
        for size, stage in itertools.product(
            (len(data), None), (comparison.Raw(), comparison.Counting())
        ):
            found = walker.inspect_stream(io.BytesIO(data), size, skimmer=stage)
            assert found == plain, name


def test_every_fixture_is_the_same_as_itself_however_it_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records go past the ends of windows, and large ones are read piece by piece, in the same way
    whatever arrives at a time.
    """
    monkeypatch.setattr(rdb_cursor, "_CHUNK", 64)
    monkeypatch.setattr(rdb_cursor, "_PINNED", 40_000)
    for longest in (100, 20_000):
        monkeypatch.setattr(borders, "LONGEST", longest)
        for name, make in ALL.items():
            data = make()
            for piece in (7, 64, 5000):
                assert same_records(feed(data), feed(data, piece=piece)), name
                assert same_records(feed(data, deep=True), feed(data, piece=piece)), name


@pytest.mark.parametrize("few", [16, comparison._FEW])
def test_what_differs_is_found_among_much_that_was_written_otherwise(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """All is in other encodings; with few buckets, all of them differ at first."""
    monkeypatch.setattr(comparison.Raw.__init__, "__defaults__", (few,))

    def written(changed: bytes, compressed: bool) -> bytes:
        string = build.compressed if compressed else build.string
        made = Rdb(10).db(0, 2000)
        for number in range(2000):
            made.key(0, b"key:%d" % number, string(b"x" * 50 if number != 77 else changed))
        return made.end()

    plain = written(b"x" * 50, compressed=False)
    assert difference(plain, written(b"x" * 50, compressed=True)) is None
    found = difference(plain, written(b"x" * 49 + b"y", compressed=True))
    assert found is not None
    assert found.keys == {0: ["key:77"]}


def test_a_server_that_writes_otherwise_each_time_is_no_difference() -> None:
    """The buckets that differed at first are then not those that do."""
    made = itertools.cycle(SAME["a list"] + SAME["a list"][:1])
    first = one(18, build.length(1), build.length(2), build.string(build.listpack([b"other"])))
    backup = SAME["a list"][-1]

    def saved(stage: Stage) -> None:
        feed(next(made))(stage)

    assert difference_of(feed(backup), saved) is None
    assert difference_of(feed(first), saved) is not None


def test_the_keys_that_are_named_are_few_and_printable() -> None:
    def many(value: bytes) -> bytes:
        made = Rdb(10)
        for database in range(40):
            made.db(database, 500)
            made.key(0, b"\x1b]0;owned\x07", build.string(value))
            made.key(0, b"k" * 100_000, build.string(value))
            for number in range(498):
                made.key(0, b"key:%d" % number, build.string(value))
        return made.end()

    found = difference(many(b"one"), many(b"two"))
    assert found is not None
    assert len(found.keys) == comparison._NAMED_DATABASES
    for names in found.keys.values():
        assert 1 <= len(names) <= 3 * comparison._NAMED_BUCKETS
        assert all(len(name) < 80 and name.isprintable() for name in names)


@pytest.mark.parametrize("path", RELOADED, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("other", [False, True], ids=["as it was", "in other encodings"])
def test_what_a_server_loads_and_saves_is_no_difference(path: Path, other: bool) -> None:
    binary = READABLE[path.parent.name]()
    settings = dict(OTHER_ENCODINGS) if other else {}
    if path.stem == "slots":
        # Its bus would be port 10000 of every interface.
        settings = {"cluster-enabled": "yes", "cluster-port": free_port(), "bind": "127.0.0.1"}
    with servers.running(
        binary, path, settings, frozen="cluster-enabled" not in settings
    ) as server:
        server("SAVE")
        before, after = path.read_bytes(), server.dump.read_bytes()
        assert difference(before, after) is None
        if not other and path.stem not in MADE_WITH_OTHER_SETTINGS:
            assert same_records(feed(before), feed(after))


def test_every_fixture_differs_from_every_other() -> None:
    plain = [path for path in FIXTURES if path.parent.name == "redis-7.0"]
    for first, second in itertools.combinations(plain, 2):
        same = difference(first.read_bytes(), second.read_bytes()) is None
        # How often a key was used is no data.
        assert same == ({first.stem, second.stem} == {"lfu", "lru"}), (first, second)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A value of 30 MB, sets and lists of a quarter of a million and of long ones: a file of 110
    MB, which goes through every stage.
    """
    path = tmp_path / "dump.rdb"
    members = [b"member number %d of a set" % number for number in range(250_000)]
    made = Rdb(10).db(0, 6).key(0, b"long", build.string(b"x" * 30_000_000))
    made.key(2, b"set", strings(*members)).key(1, b"list", strings(*members))
    made.key(2, b"short", strings(*(b"%d" % number for number in range(100_000, 160_000))))
    made.key(1, b"long elements", strings(*[b"x" * 1_000_000] * 30))
    made.key(2, b"long members", strings(*(b"%099999d" % number for number in range(300))))
    data = made.body() + bytes((build.EOF,))
    path.write_bytes(data + crc64.update(data, 0).to_bytes(8, "little"))
    other = tmp_path / "other.rdb"
    data = data.replace(b"member number 77 of", b"member number 78 of", 1)
    other.write_bytes(data + crc64.update(data, 0).to_bytes(8, "little"))
    code = (
        "import sys\n"
        "from redis_backup.digest.comparison import Raw, compare\n"
        "from redis_backup.rdb import walker\n"
        "def feed(path):\n"
        "    return lambda stage: walker.inspect(path, skimmer=stage)\n"
        "raw = Raw()\n"
        "feed(sys.argv[1])(raw)\n"
        "print(compare(raw, feed(sys.argv[1]), feed(sys.argv[2])).keys)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(other)],
        env={"PYTHONPATH": str(PACKAGE)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    keys, memory = done.stdout.splitlines()
    assert keys == "{0: ['set']}"
    assert int(memory) * 1024 < 170_000_000


def test_types_of_another_format_are_not_taken_for_those_of_redis() -> None:
    """Valkey's own format has another hash behind type 22."""
    record = b"\x16\x03key\x01\x00\x01a\x01x"
    for version, taken in ((12, 1), (14, 1), (80, 0)):
        records: list[bytes] = []
        assert borders.split(record, 0, version, records) == (taken * len(record), 0)
        assert len(records) == taken
