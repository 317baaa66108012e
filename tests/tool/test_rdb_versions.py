"""The list of RDB versions that are read, and what no server of a Debian release writes yet."""

from __future__ import annotations

import io
import re
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from redis_backup.digest.digester import on_all_cores
from redis_backup.rdb import versions, walker
from redis_backup.rdb.values import types

from tests.support import rdb_builder as build
from tests.support.rdb_builder import Rdb, length, string

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests/fixtures/rdb"
DESIGN = (ROOT / "docs/design.md").read_text("utf-8")


def test_the_documentation_has_the_list() -> None:
    assert versions.readable() in " ".join(DESIGN.split())


def test_messages_have_the_list() -> None:
    for start in (b"REDIS0007", b"REDIS9999", b"VALKEY999"):
        with pytest.raises(walker.RdbError) as caught:
            versions.header(start)
        assert versions.readable() in str(caught.value)
    assert versions.readable() in versions.unreadable("valkey", "9.2")


def test_every_fixture_is_of_a_release_that_is_listed() -> None:
    seen = set()
    for path in FIXTURES.glob("[rv]*/*.rdb"):
        info = walker.inspect(path)
        engine = "valkey" if "valkey-ver" in info.aux else "redis"
        release = info.aux[f"{engine}-ver"]
        number = tuple(map(int, release.split(".")[:2]))
        writers = versions.READ[info.rdb_version]
        assert any(w.engine == engine and w.oldest <= number <= w.newest for w in writers), path
        assert versions.unreadable(engine, release) == ""
        assert versions.magic(info.rdb_version) == info.magic
        seen.add(info.rdb_version)
    assert seen == set(versions.READ) - {11, 14}  # Redis 7.2, Valkey 8.1 and Redis 8.8


@pytest.mark.parametrize(
    ("engine", "release", "readable"),
    [
        ("redis", "5.0", True),
        ("redis", "6.2.14", True),
        ("redis", "8.0.2", True),
        ("redis", "8.8.1", True),
        ("valkey", "7.2", True),
        ("valkey", "8.1.1", True),
        ("valkey", "9.1.2", True),
        ("redis", "4.0.14", False),
        ("redis", "8.10", False),
        ("redis", "80.1", False),
        ("valkey", "9.2.0", False),
        ("valkey", "9.10", False),
        ("keydb", "6.3", False),
        ("redis", "", False),
        ("redis", "unstable", False),
    ],
)
def test_what_a_release_writes_is_read_or_not(engine: str, release: str, readable: bool) -> None:
    reason = versions.unreadable(engine, release)
    assert (reason == "") == readable
    if reason:
        assert release in reason
        assert engine in reason.lower()


def test_every_version_adds_to_the_one_before() -> None:
    numbers = sorted(set(versions.READ) - {versions.VALKEY})
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert all(types(a).keys() <= types(b).keys() for a, b in pairwise(numbers))


def _walked(data: bytes) -> walker.RdbInfo:
    return walker.inspect_stream(io.BytesIO(data), len(data), digester=on_all_cores())


def _entries(data: bytes, directory: Path) -> list[walker.Entry]:
    path = directory / "dump.rdb"
    path.write_bytes(data)
    return list(walker.entries(path))


def _refused(data: bytes) -> str:
    with pytest.raises(walker.RdbError) as caught:
        walker.inspect_stream(io.BytesIO(data), len(data))
    return str(caught.value)


# -- Redis 8.8, of public descriptions of its rdb.c: no Debian has it


def _array(*elements: bytes, count: int | None = None, cursor: bytes = length(0)) -> bytes:
    number = length(len(elements) if count is None else count)
    return Rdb(14).db(0, 1).key(28, b"key", number, cursor, *elements).end()


def _element(index: int, kind: int, content: bytes) -> bytes:
    return length(index) + length(kind) + content


ELEMENTS = (
    _element(0, 1, struct.pack("<q", -5)),
    _element(7, 2, struct.pack("<d", 1.5)),
    _element(9, 3, string(b"small")),
    _element(2**40, 0, build.compressed(b"x" * 90)),
)


def test_an_array_is_read(tmp_path: Path) -> None:
    data = _array(*ELEMENTS, cursor=length(1) + length(9))
    (entry,) = _entries(data, tmp_path)
    assert entry.kind == "array"
    assert entry.value.cursor == 9
    assert entry.value.elements == [(0, b"-5"), (7, 1.5), (9, b"small"), (2**40, b"x" * 90)]


def test_an_arrays_digest_is_that_of_its_values() -> None:
    same = [
        _array(_element(3, 3, string(b"12"))),
        _array(_element(3, 0, string(b"12"))),
        _array(_element(3, 1, struct.pack("<q", 12))),
    ]
    assert len({_walked(data).digest for data in same}) == 1
    others = [
        same[0],
        _array(_element(4, 3, string(b"12"))),
        _array(_element(3, 3, string(b"13"))),
        _array(_element(3, 2, struct.pack("<d", 12))),
        _array(_element(3, 3, string(b"12")), cursor=length(1) + length(3)),
        _array(_element(3, 3, string(b"12")), cursor=length(1) + length(4)),
    ]
    assert len({_walked(data).digest for data in others}) == len(others)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_array(), "no elements"),
        (_array(*ELEMENTS, cursor=length(2)), "cursor flag 2"),
        (_array(ELEMENTS[1], ELEMENTS[0]), "index 0 behind 7"),
        (_array(ELEMENTS[1], ELEMENTS[1]), "index 7 behind 7"),
        (_array(_element(2**64 - 1, 3, string(b"x"))), "index"),
        (_array(_element(1, 4, string(b"x"))), "kind 4"),
        (build.resealed(b"REDIS0013" + _array(*ELEMENTS)[9:]), "it came with version 14"),
    ],
)
def test_a_malformed_array_is_refused(data: bytes, words: str) -> None:
    assert words in _refused(data)


_ID = build.stream_id(5)
_LISTPACK = build.listpack([1, 0, 1, b"f", 0, 2, 0, 0, b"v", 4])
_NACK = _ID + bytes(8) + length(1)


def _stream(released: bytes, kind: int = 27, producers: bytes = length(0)) -> bytes:
    """A stream with an entry, and a group that it was delivered to."""
    head = length(1) + string(_ID) + string(_LISTPACK) + length(1)
    ids = length(5) + length(0) + (length(5) + length(0)) + (length(0) * 2) + length(1)
    group = string(b"g") + length(5) + length(0) + length(1) + length(1) + _NACK + length(0)
    tail = length(100) + length(50) + producers + length(4) + length(2)
    return Rdb(14).db(0, 1).key(kind, b"key", head, ids, length(1), group, released, tail).end()


def test_entries_that_were_given_back_are_read(tmp_path: Path) -> None:
    (entry,) = _entries(_stream(length(1) + _ID), tmp_path)
    (group,) = entry.value.groups
    assert group.released == [(5, 0)]
    assert [pending[0] for pending in group.pending] == [(5, 0)]
    assert entry.value.idempotence == (100, 50, [], 4, 2)
    assert _walked(_stream(length(1) + _ID)).digest


@pytest.mark.parametrize(
    "data",
    [
        _stream(length(0)),
        _stream(length(1) + build.stream_id(6)),
        _stream(length(2) + _ID + _ID),
        _stream(b"", kind=26),
    ],
)
def test_entries_that_nobody_has_are_refused(data: bytes) -> None:
    assert "not those of its consumers" in _refused(data)


def _producer(name: bytes, *messages: bytes) -> bytes:
    ids = b"".join(string(message) + length(5) + length(0) for message in messages)
    return string(name) + length(len(messages)) + ids


def test_producers_are_read_and_do_not_count(tmp_path: Path) -> None:
    """A server forgets them after seconds: their digest would be another one at the next load."""
    released = length(1) + _ID
    data = _stream(released, producers=length(2) + _producer(b"p", b"1", b"2") + _producer(b"q"))
    (entry,) = _entries(data, tmp_path)
    first, second = entry.value.idempotence.producers
    assert first == (b"p", [(b"1", (5, 0)), (b"2", (5, 0))])
    assert second == (b"q", [])
    assert _walked(data).digest == _walked(_stream(released)).digest
    twice = _stream(released, producers=length(2) + _producer(b"p") * 2)
    assert "a producer of a stream twice" in _refused(twice)


def test_metadata_of_modules_is_refused_by_name() -> None:
    data = Rdb(13).db(0, 1).opcode(243, length(1)).end()
    assert "metadata of a module beside a key" in _refused(data)
    assert "type or opcode 243" in _refused(Rdb(12).db(0, 1).opcode(243, length(1)).end())


# -- Valkey 9


def _valkey() -> Rdb:
    return Rdb(versions.VALKEY)


def _ttl(milliseconds: int) -> bytes:
    return struct.pack("<q", milliseconds)


def test_valkey_s_numbers_are_its_own(tmp_path: Path) -> None:
    fields = (
        *(string(b"f"), string(b"v"), _ttl(1700)),
        *(string(b"g"), build.integer(7), _ttl(-1)),
    )
    (entry,) = _entries(_valkey().db(0, 1).key(22, b"key", length(2), *fields).end(), tmp_path)
    assert entry.value == [(b"f", b"v", 1700), (b"g", b"7", None)]
    late = _valkey().db(0, 1).key(22, b"key", length(1), string(b"f"), string(b"v"), _ttl(-2)).end()
    assert "field expiry -2 ms" in _refused(late)
    for kind in (23, 24, 25, 26):
        assert f"type or opcode {kind}" in _refused(_valkey().db(0, 1).key(kind, b"k").end())
    assert "type or opcode 244" in _refused(_valkey().db(0, 1).opcode(244, length(1)).end())


def test_a_migration_of_slots_is_read() -> None:
    job = string(b"a" * 40) + length(2) + length(0) + length(10) + length(12) + length(12)
    data = _valkey().opcode(243, job).db(0, 1).key(0, b"k", string(b"v")).end()
    assert _walked(data).databases[0].keys == 1
    for first, last in ((10, 9), (0, 16384)):
        job = string(b"a" * 40) + length(1) + length(first) + length(last)
        assert f"slots {first} to {last}" in _refused(_valkey().opcode(243, job).end())


def test_every_release_of_the_role_is_read() -> None:
    """What the role `redis` deploys, it can back up."""
    import yaml

    engines = yaml.safe_load((ROOT / "roles/redis/vars/main.yml").read_text())["__redis_engines"]
    deployed = [
        (engine, release) for engine in engines for release in engines[engine]["versions"].values()
    ]
    assert len(deployed) >= 4
    for engine, release in deployed:
        assert re.fullmatch(r"\d+\.\d+", release)
        assert versions.unreadable(engine, release) == ""
