"""What servers load and save, the walker reads; what all of them refuse, it refuses.

Each case is a file with a fault that no command makes, but that RESTORE can bring into a server:
it is loaded and saved again by the servers of all Debian releases that read its version.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis_backup.digest import digester
from redis_backup.rdb import walker
from redis_backup.rdb.versions import VALKEY

from tests.support import rdb_builder as build
from tests.support import servers
from tests.support.rdb_builder import Rdb, length, string
from tests.support.servers import Binary, NoServerError, of_release, running
from tests.tool.backup_lab import run

#: The newest RDB version that each server reads, of those that Redis has too.
READS: dict[str, tuple[Callable[[], Binary], int]] = {
    "redis 6.0": (lambda: of_release("6.0"), 9),
    "redis 7.0": (lambda: of_release("7.0"), 10),
    "redis 8.0": (lambda: of_release("8.0"), 12),
    "valkey 8.1": (servers.valkey, 11),
    "valkey 9": (servers.valkey_9, 11),
}


def _key(kind: int, *value: bytes, version: int = 9) -> bytes:
    """An RDB of a good key and one more."""
    return Rdb(version).db(0, 2).key(0, b"other", string(b"v")).key(kind, b"k\xff\n", *value).end()


def _listpack(kind: int, *elements: build.Element, version: int = 10) -> bytes:
    return _key(kind, string(build.listpack(elements)), version=version)


_ID = build.stream_id(5)
_ENTRY: list[build.Element] = [2, 0, 0, b"v", 4]
_NEXT: list[build.Element] = [2, 0, 1, b"v", 4]
_ONE: list[build.Element] = [1, 0, 1, b"f", 0, *_ENTRY]


def _stream(elements: list[build.Element], count: int = 1, groups: bytes = length(0)) -> bytes:
    head = length(1) + string(_ID) + string(build.listpack(elements)) + length(count)
    return _key(15, head + length(5) + length(9) + groups)


_CONSUMER = string(b"c") + bytes(8)
_NACK = _ID + bytes(8) + length(1)


def _group(pending: bytes, consumers: bytes) -> bytes:
    return string(b"g") + length(5) + length(0) + pending + consumers


_IDLE = _group(length(0), length(0))
_EMPTY = "an empty key"

#: File, and what the walker says of it: None, or a word of its warning.
READ: dict[str, tuple[bytes, str | None]] = {
    # Redis 6.0 keeps empty keys, later releases drop them at load
    **{
        f"empty, type {kind}": (_key(kind, *value), _EMPTY)
        for kind, value in {
            1: (length(0),),
            2: (length(0),),
            3: (length(0),),
            4: (length(0),),
            5: (length(0),),
            9: (string(build.zipmap([])),),
            10: (string(build.ziplist([])),),
            11: (string(build.intset([])),),
            12: (string(build.ziplist([])),),
            13: (string(build.ziplist([])),),
            14: (length(1), string(build.ziplist([]))),
        }.items()
    },
    "no node of a list": (_key(14, length(0)), _EMPTY),
    "a node without elements": (
        _key(14, length(2), string(build.ziplist([b"a"])), string(build.ziplist([]))),
        None,
    ),
    "a list's listpack without elements": (
        _key(
            18,
            *(length(2), length(2), string(build.listpack([b"a"]))),
            *(length(2), string(build.listpack([]))),
            version=10,
        ),
        None,
    ),
    # streams
    "a stream": (_stream(_ONE), None),
    "a stream longer than it is": (_stream(_ONE, 2), "declares 2 entries, where 1 are"),
    "a stream shorter than it is": (_stream(_ONE, 0), "declares 0 entries, where 1 are"),
    "a stream's listpack of another length": (
        _stream([2, *_ONE[1:]]),
        "a listpack that declares 2 entries and 0 deleted ones, where 1 and 0 are",
    ),
    "descending ids": (_stream([2, *_ONE[1:5], *_NEXT, *_ENTRY], 2), "do not ascend"),
    "the same id twice": (_stream([2, *_ONE[1:5], *_ENTRY, *_ENTRY], 2), "do not ascend"),
    "a stream of deleted entries": (_stream([0, 1, 1, b"f", 0, 3, 0, 0, b"v", 4], 0), None),
    "a listpack without entries": (_stream([0, 0, 1, b"f", 0], 0), None),
    # sorted sets in a listpack or a ziplist
    "scores out of order": (_listpack(17, b"a", 5, b"b", 1), "out of order"),
    "scores out of order in a ziplist": (
        _key(12, string(build.ziplist([b"a", 5, b"b", 1]))),
        "out of order",
    ),
    "a score NaN": (_listpack(17, b"a", b"nan"), "not a number"),
    "a score 1_0": (_listpack(17, b"a", b"1_0"), "'1_0', which counts as 1"),
    "a score 1x": (_listpack(17, b"a", b"1x"), "'1x', which counts as 1"),
    "a score of base 16": (_listpack(17, b"a", b"0x10"), None),
    "a score with a space": (_listpack(17, b"a", b" 5"), None),
    "no score": (_listpack(17, b"a", b""), "'', which counts as 0"),
    "a score with a zero byte": (_listpack(17, b"a", b"1\0"), "counts as 1"),
    "a score of 152 digits": (_listpack(17, b"a", b"1." + b"0" * 150), "counts as 1"),
    "infinity in words": (_listpack(17, b"a", b"-Infinity"), None),
    # sets of integers
    "an intset out of order": (_key(11, string(build.intset([5, 1]))), "do not ascend"),
    "an intset with one twice": (_key(11, string(build.intset([1, 1]))), "do not ascend"),
}

#: Nobody loads these.
REFUSED: dict[str, tuple[bytes, str]] = {
    "a node of 0 bytes": (
        _key(18, length(1), length(1), string(b""), version=10),
        "0 bytes",
    ),
    "a node of 0 bytes behind another": (
        _key(
            18,
            *(length(2), length(2), string(build.listpack([b"a"])), length(1), string(b"")),
            version=10,
        ),
        "0 bytes",
    ),
    "a group twice": (_stream(_ONE, 1, length(2) + _IDLE + _IDLE), "a consumer group twice"),
    "a pending entry twice": (
        _stream(
            _ONE,
            1,
            length(1) + _group(length(2) + _NACK + _NACK, length(1) + _CONSUMER + length(1) + _ID),
        ),
        "not above the one before",
    ),
    "a pending entry that only its consumer has": (
        _stream(_ONE, 1, length(1) + _group(length(0), length(1) + _CONSUMER + length(1) + _ID)),
        "not those of its consumers",
    ),
    "the same listpack twice": (
        _key(
            15,
            *(length(2), string(_ID), string(build.listpack(_ONE))),
            *(string(_ID), string(build.listpack(_ONE))),
            *(length(2), length(5), length(9), length(0)),
        ),
        "not above the one before",
    ),
    "a score NaN in binary": (
        _key(5, length(1), string(b"m"), struct.pack("<d", float("nan"))),
        "not a number",
    ),
}

#: Redis 6.0 makes one of the two when it loads them, so it never saves them; others refuse them.
TWO_CONSUMERS = _stream(
    _ONE, 1, length(1) + _group(length(0), length(2) + (_CONSUMER + length(0)) * 2)
)


def _walked(data: bytes) -> walker.RdbInfo:
    plain = walker.inspect_stream(io.BytesIO(data), len(data))
    digested = walker.inspect_stream(io.BytesIO(data), len(data), digester=digester.on_all_cores())
    assert digested.warnings == plain.warnings
    return digested


def _saved_again(data: bytes, directory: Path) -> dict[str, tuple[int, bytes]]:
    """Of each server that reads the version and loads the file: its keys, and what it saves."""
    path = directory / "faulty.rdb"
    path.write_bytes(data)
    found = {}
    for name, (binary, newest) in READS.items():
        version = int(data[6:9])
        if version <= newest or (version == VALKEY and name == "valkey 9"):
            # one that refuses the file ends
            with suppress(NoServerError), running(binary(), path) as server:
                server("SAVE")
                found[name] = server("DBSIZE"), server.dump.read_bytes()
    return found


@pytest.mark.parametrize("name", READ)
def test_what_a_server_loads_and_saves_is_read(name: str, tmp_path: Path) -> None:
    data, word = READ[name]
    found = _walked(data)
    assert found.databases[0].keys == 2
    if word is None:
        assert found.warnings == ()
    else:
        assert len(found.warnings) == 1
        assert found.warnings[0].startswith(r"database 0, key 'k\\xff\n': ")
        assert word in found.warnings[0]
    saved = _saved_again(data, tmp_path)
    assert saved
    whole = [server for server, (keys, _) in saved.items() if keys == 2]
    assert whole, "no server keeps the key"
    for server in whole:
        again = _walked(saved[server][1])
        # Other versions store more of a stream.
        if again.rdb_version == found.rdb_version:
            assert again.digest == found.digest, server
        assert bool(again.warnings) == bool(found.warnings), server


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_server_loads_is_refused(name: str, tmp_path: Path) -> None:
    data, word = REFUSED[name]
    with pytest.raises(walker.RdbError, match=r"database 0, key 'k\\\\xff\\n': .*" + word):
        walker.inspect_stream(io.BytesIO(data), len(data))
    assert _saved_again(data, tmp_path) == {}


def test_a_consumer_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(walker.RdbError, match="a consumer of a group twice"):
        walker.inspect_stream(io.BytesIO(TWO_CONSUMERS), len(TWO_CONSUMERS))
    saved = _saved_again(TWO_CONSUMERS, tmp_path)
    assert list(saved) == ["redis 6.0"]
    assert _walked(saved["redis 6.0"][1]).warnings == ()


def _of_valkey(data: bytes) -> bytes:
    """The same values in Valkey's own format."""
    return build.resealed(b"VALKEY%03d" % VALKEY + data[9:])


@pytest.mark.parametrize("name", [*READ, *REFUSED])
def test_valkey_9_loads_what_is_read_in_its_format(name: str, tmp_path: Path) -> None:
    """It looks closer than others, and so does the walk in its format."""
    data = _of_valkey((READ | REFUSED)[name][0])
    saved = _saved_again(data, tmp_path)
    assert set(saved) <= {"valkey 9"}
    if saved and saved["valkey 9"][0] == 2:
        found, again = _walked(data), _walked(saved["valkey 9"][1])
        if [entry.kind for entry in walker.entries(tmp_path / "faulty.rdb")][1] != "stream":
            # This type stores less of a stream than the server does.
            assert again.digest == found.digest
        return
    with pytest.raises(walker.RdbError, match=r"database 0, key 'k"):
        walker.inspect_stream(io.BytesIO(data), len(data))


@pytest.mark.parametrize("kind", [16, 17, 18, 20])
def test_an_empty_key_of_a_release_that_drops_it_is_refused(kind: int, tmp_path: Path) -> None:
    value = string(build.listpack([]))
    if kind == 18:
        value = length(1) + length(2) + value
    data = _key(kind, value, version=11 if kind == 20 else 10)
    with pytest.raises(walker.RdbError, match="no elements"):
        walker.inspect_stream(io.BytesIO(data), len(data))
    saved = _saved_again(data, tmp_path)
    assert saved
    assert all(keys == 1 for keys, _ in saved.values())


def test_a_stream_of_entries_without_any_listpack_is_refused_from_7_0_on(tmp_path: Path) -> None:
    def stream(kind: int, version: int) -> bytes:
        ids = length(0) * 5 if kind == 19 else b""
        head = length(0) + length(3) + length(5) + length(9)
        return _key(kind, head, ids, length(0), version=version)

    old, new = stream(15, 9), stream(19, 10)
    assert "declares 3 entries" in _walked(old).warnings[0]
    assert list(_saved_again(old, tmp_path)) == ["redis 6.0"]
    with pytest.raises(walker.RdbError, match="declares 3 entries"):
        walker.inspect_stream(io.BytesIO(new), len(new))
    assert _saved_again(new, tmp_path) == {}


def test_an_empty_key_comes_in_by_restore(tmp_path: Path) -> None:
    """The way that such a key takes into a production server, and from there into a backup."""
    empty = b"\x02\x00"
    payload = build.sealed(empty + b"\x09\x00")
    with running(of_release("6.0")) as server:
        server("SELECT", 3)
        assert server("RESTORE", "empty", 0, payload) == b"OK"
        server("SAVE")
        data = server.dump.read_bytes()
    assert _walked(data).warnings == (
        "database 3, key 'empty': no integers in an intset: an empty key,"
        " which Redis 7.0 and later drop when they load it",
    )


def test_inspect_prints_the_warnings(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(_key(2, length(0)))
    (warning,) = _walked(path.read_bytes()).warnings
    assert f"warning: {warning}" in run("inspect", path).out.splitlines()
    assert run("inspect", "--json", path).json["warnings"] == [warning]


def test_warnings_are_bounded() -> None:
    file = Rdb(9).db(0, 5000)
    for number in range(5000):
        file.key(2, b"%d" % number * 500, length(0))
    warnings = _walked(file.end()).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "and 4980 more"
    assert max(map(len, warnings)) < 300
    assert "..." in warnings[0]


def test_a_key_has_few_warnings() -> None:
    scores = [part for number in range(500) for part in (b"%d" % number, b"%dx" % number)]
    assert len(_walked(_listpack(17, *scores)).warnings) == 3


def test_a_large_value_is_warned_of_once() -> None:
    """One that does not fit into the window of a digest is read twice."""
    head = length(60_001)
    entries = b"".join(
        string(build.stream_id(number)) + string(build.listpack(_stream_of(number)))
        for number in range(1, 60_002)
    )
    data = _key(15, head, entries, length(7), length(60_001), length(0), length(0))
    assert len(data) > 9 << 20
    warnings = _walked(data).warnings
    assert len(warnings) == 1
    assert "declares 7 entries" in warnings[0]


def _stream_of(number: int) -> list[build.Element]:
    return [1, 0, 1, b"f", 0, 2, 0, 0, b"%0120d" % number, 4]


# -- vector sets: what a module promises


def _vectors(links: int) -> bytes:
    module = int.from_bytes(b"", "big")
    for character in "vectorset":
        module = module << 6 | build.MODULE_CHARACTERS.index(character)
    fields = [2, 3, 2, 1, 2, 1, 2, 0]
    node = [b"\x05", string(b"element"), b"\x05", string(b"vector"), b"\x02", length(links)]
    return _key(
        7, length(module << 10), *map(length, fields), *node, b"\x02\x07", b"\0", version=12
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("links", [2, 2**63, 2**64 - 1])
def test_a_vector_set_that_promises_too_much_is_one_error(
    links: int, workers: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(digester, "_WORKERS_FROM", 0)
    data = _vectors(links)
    with pytest.raises(walker.RdbError, match=f"node of a vector set with {links} numbers") as seen:
        walker.inspect_stream(io.BytesIO(data), len(data), digester=digester.Digester(workers))
    assert "fault of the tool" not in str(seen.value)
    assert "key 'k" in str(seen.value)
    assert data[seen.value.offset] == 2  # the first field of the module
    assert capfd.readouterr() == ("", "")


def test_a_vector_set_that_keeps_its_word_is_read() -> None:
    assert _walked(_vectors(1)).databases[0].keys == 2


def test_a_fault_in_a_worker_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker has no memory, or finds what nobody thought of."""
    answered = io.BytesIO()
    monkeypatch.setattr(digester, "of_block", lambda *_: [][0])
    digester.work(io.BytesIO(digester._FRAME.pack(0, 9)), answered)
    assert b"IndexError" in answered.getvalue()
    assert b"fault of the tool" in answered.getvalue()
    assert capfd.readouterr() == ("", "")
