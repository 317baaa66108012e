"""No damaged RDB passes, and none does worse than RdbError."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis_backup.rdb import walker
from redis_backup.rdb.cursor import Cursor
from redis_backup.rdb.versions import READ

from tests.support import rdb_builder as build
from tests.support.rdb_builder import Rdb, integer, length, resealed, string

FIXTURES = Path(__file__).parents[1] / "fixtures/rdb"
FILES = sorted(FIXTURES.glob("*/*.rdb"))
TINY = sorted(FIXTURES.glob("*/tiny.rdb"))
DATA = {path: path.read_bytes() for path in FILES}


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _refused(data: bytes) -> walker.RdbError:
    with pytest.raises(walker.RdbError) as caught:
        walker.inspect_stream(io.BytesIO(data), len(data))
    assert 0 <= caught.value.offset <= len(data)
    assert str(caught.value).startswith(f"byte {caught.value.offset}: ")
    return caught.value


def _tolerated(data: bytes) -> None:
    """Success or RdbError, and the same whether the size is known or not."""
    outcomes: list[walker.RdbInfo | None] = []
    for size in (len(data), None):
        try:
            outcomes.append(walker.inspect_stream(io.BytesIO(data), size))
        except walker.RdbError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("path", TINY, ids=_name)
def test_every_flipped_bit_is_found(path: Path) -> None:
    data = bytearray(DATA[path])
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        _refused(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_flipped_bits_are_found(path: Path) -> None:
    data = bytearray(DATA[path])
    for bit in random.Random(_name(path)).sample(range(len(data) * 8), 80):
        data[bit // 8] ^= 1 << bit % 8
        _refused(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_every_truncation_is_found(path: Path) -> None:
    data = DATA[path]
    step = 1 if len(data) < 700 else len(data) // 300
    for size in [*range(0, len(data), step), *range(len(data) - 30, len(data))]:
        _refused(data[:size])
        with pytest.raises(walker.RdbError):
            walker.inspect_stream(io.BytesIO(data[:size]))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_zeroed_blocks_are_found(path: Path) -> None:
    data = DATA[path]
    for size in (8, 64, 512, 4096):
        for start in range(0, len(data), max(size, len(data) // 25)):
            damaged = data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]
            if damaged != data:
                _refused(damaged)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_what_follows_the_end_is_found(path: Path) -> None:
    for extra in (b"\0", b"\n", b"\xff", b"x" * 40, DATA[path], bytes(1 << 21)):
        error = _refused(DATA[path] + extra)
        assert error.offset == len(DATA[path])
        assert f"{len(extra)} bytes after the end" in str(error)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_zeroed_checksum_is_found(path: Path) -> None:
    error = _refused(DATA[path][:-8] + bytes(8))
    assert "no checksum" in str(error)


def test_a_wrong_checksum_says_both() -> None:
    data = DATA[TINY[0]]
    error = _refused(data[:-8] + b"\1" + bytes(7))
    assert "checksum 0000000000000001" in str(error)
    assert f"{int.from_bytes(data[-8:], 'little'):016x}" in str(error)


# -- malformed, with a checksum that is right: only the structure can tell


def _key(kind: int, *value: bytes, version: int = 12) -> bytes:
    return Rdb(version).db(0, 1).key(kind, b"key", *value).end()


def _patched(data: bytes, at: int, *values: int) -> bytes:
    return data[:at] + bytes(values) + data[at + len(values) :]


_LISTPACK = build.listpack([b"a", 1, b"b", 2])
_ZIPLIST = build.ziplist([b"a", 1, b"b", 2])
_ID = build.stream_id(5)
_ENTRY: list[build.Element] = [2, 0, 0, b"v", 4]
_STREAM = build.listpack([1, 0, 1, b"f", 0, *_ENTRY])
_NO_GROUPS = length(0)


def _stream(listpack: bytes, count: int = 1, tail: bytes = b"", entry_id: bytes = _ID) -> bytes:
    head = length(1) + string(entry_id) + string(listpack) + length(count)
    return _key(15, head + length(5) + length(0) + (tail or _NO_GROUPS), version=9)


def _group(pending: bytes, consumers: bytes) -> bytes:
    return _stream(
        _STREAM, 1, length(1) + string(b"g") + length(5) + length(0) + pending + consumers
    )


_NACK = _ID + bytes(8) + length(1)
_NACK_2 = build.stream_id(6) + bytes(8) + length(1)
_CONSUMER = string(b"c") + bytes(8)

MALFORMED: dict[str, tuple[bytes, str]] = {
    # the file
    "key before a database": (Rdb().key(0, b"k", string(b"v")).end(), "no database"),
    "database without numbers": (
        Rdb().opcode(254, length(0)).key(0, b"k", string(b"v")).end(),
        "RESIZEDB",
    ),
    "database without numbers, at the end": (Rdb().opcode(254, length(0)).end(), "RESIZEDB"),
    "numbers twice": (
        Rdb().db(0, 1).opcode(251, length(1), length(0)).key(0, b"k", string(b"v")).end(),
        "already",
    ),
    "numbers without a database": (Rdb().opcode(251, length(1), length(0)).end(), "no database"),
    "a key too few": (Rdb().db(0, 2).key(0, b"k", string(b"v")).end(), "declares 2 and 0"),
    "a key too many": (
        Rdb().db(0, 1).key(0, b"k", string(b"v")).key(0, b"l", string(b"v")).end(),
        "declares 1 and 0",
    ),
    "an expiry too few": (Rdb().db(0, 1, 1).key(0, b"k", string(b"v")).end(), "declares 1 and 1"),
    "an expiry too many": (
        Rdb().db(0, 1).opcode(252, bytes(8)).key(0, b"k", string(b"v")).end(),
        "declares 1 and 0",
    ),
    "a database twice": (
        Rdb().db(0, 1).key(0, b"k", string(b"v")).db(0, 1).key(0, b"k", string(b"v")).end(),
        "database 0 again",
    ),
    "a database without keys": (Rdb().db(0, 0).end(), "without keys"),
    "a database that Redis cannot have": (Rdb().db(1 << 31, 1).end(), "has none such"),
    "an expiry before the end": (Rdb().db(0, 1).opcode(252, bytes(8)).end(), "not a key"),
    "an expiry before a field": (
        Rdb().db(0, 1, 1).opcode(252, bytes(8)).aux(b"a", b"b").end(),
        "not a key",
    ),
    "two expiries": (
        Rdb().db(0, 1, 1).opcode(252, bytes(8)).opcode(253, bytes(4)).end(),
        "opcode 253 again",
    ),
    "two idle times": (
        Rdb().db(0, 1).opcode(248, length(1)).opcode(248, length(1)).end(),
        "opcode 248 again",
    ),
    "expiry -1": (
        Rdb().db(0, 1, 1).opcode(252, b"\xff" * 8).key(0, b"k", string(b"v")).end(),
        "expiry -1",
    ),
    "a field twice": (
        Rdb().aux(b"repl-offset", b"1").aux(b"repl-offset", b"2").end(),
        "repl-offset again",
    ),
    "unknown opcode": (Rdb().opcode(243).end(), "type or opcode 243"),
    "unknown type": (_key(29), "type or opcode 29"),
    "the type that never was": (_key(8), "type or opcode 8"),
    "module of a release candidate": (_key(6), "release candidate of Redis 4.0"),
    "functions of a release candidate": (Rdb(10).opcode(246).end(), "candidate of Redis 7.0"),
    "type newer than the file": (_key(20, string(_LISTPACK), version=10), "came with version 11"),
    "functions in an old file": (
        Rdb(9).opcode(245, string(b"#!lua")).end(),
        "opcode 245 in RDB version 9",
    ),
    "slots in an old file": (
        Rdb(11).db(0, 1).opcode(244, length(1), length(1), length(0)).end(),
        "opcode 244",
    ),
    "slots that do not add up": (
        Rdb(12)
        .db(0, 1)
        .opcode(244, length(1), length(2), length(0))
        .key(0, b"k", string(b""))
        .end(),
        "slots declare 2",
    ),
    "no such slot": (
        Rdb(12).db(0, 1).opcode(244, length(16384), length(1), length(0)).end(),
        "slot 16384",
    ),
    "Valkey's slots that are none": (Rdb(11).db(0, 1).aux(b"slot-info", b"1,x").end(), "1,x"),
    "a slot in other digits": (
        Rdb(11).db(0, 1).aux(b"slot-info", "1,\u0663,0".encode()).end(),
        "slot-info",
    ),
    "a slot of 5000 digits": (
        Rdb(11).db(0, 1).aux(b"slot-info", b"1,1,0," + b"9" * 5000).end(),
        "slot-info",
    ),
    # lengths and strings
    "length encoding": (_key(1, b"\x82"), "0x82"),
    "string encoding": (_key(0, b"\xc4"), "0xc4"),
    "string where a length is due": (_key(1, b"\xc0\x01"), "plain number"),
    "string past the end": (_key(0, length(100), b"x"), "bytes more"),
    "string of 2^63 bytes": (_key(0, b"\x81\x80" + bytes(7)), "only"),
    "more elements than bytes": (_key(1, length(1 << 40)), "bytes are left"),
    "LZF too short": (_key(0, b"\xc3", length(2), length(2), b"\0a"), "makes 1 bytes"),
    "LZF too long": (_key(0, b"\xc3", length(4), length(2), b"\2abc"), "more than the 2"),
    "LZF of nothing": (_key(0, b"\xc3", length(2), length(1 << 50), b"\0a"), "cannot make"),
    "LZF before its beginning": (
        _key(0, b"\xc3", length(4), length(4), b"\0a\x20\x05"),
        "6 bytes back",
    ),
    "LZF that ends early": (_key(0, b"\xc3", length(3), length(4), b"\0a\x20"), "inside"),
    "LZF run past the end": (_key(0, b"\xc3", length(2), length(4), b"\3a"), "past the end"),
    "LZF in a key": (
        Rdb().db(0, 1).raw(b"\0\xc3", length(2), length(2), b"\0a", string(b"v")).end(),
        "makes 1 bytes",
    ),
    # values
    **{
        f"no elements in type {kind}": (_key(kind, *value), "no empty key")
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
            16: (string(build.listpack([])),),
            17: (string(build.listpack([])),),
            18: (length(1), length(2), string(build.listpack([]))),
            20: (string(build.listpack([])),),
            22: (length(0),),
            23: (string(build.listpack([])),),
            24: (bytes(8), length(0)),
            25: (bytes(8), string(build.listpack([]))),
        }.items()
    },
    "score that is no number": (_key(3, length(1), string(b"m"), b"\x031.x"), "no number"),
    "score NaN in text": (_key(3, length(1), string(b"m"), b"\xfd"), "not a number"),
    "score NaN": (_key(5, length(1), string(b"m"), bytes(6) + b"\xf8\x7f"), "not a number"),
    "list container": (_key(18, length(1), length(3), string(b"x")), "container 3"),
    "odd hash": (_key(13, string(build.ziplist([b"a", b"b", b"c"]))), "come in 2s"),
    "odd sorted set": (_key(17, string(build.listpack([b"a", 1, b"c"]))), "come in 2s"),
    "hash of not triples": (_key(25, bytes(8), string(_LISTPACK)), "come in 3s"),
    "field expiry of text": (
        _key(23, string(build.listpack([b"f", b"v", b"soon"]))),
        "not a field's expiry",
    ),
    "field expiries out of order": (
        _key(23, string(build.listpack([b"f", b"v", 900, b"g", b"w", 5]))),
        "out of order",
    ),
    "field expiry behind none": (
        _key(23, string(build.listpack([b"f", b"v", 0, b"g", b"w", 5]))),
        "out of order",
    ),
    "field expiry too late": (
        _key(22, length(1), length(1 << 48), string(b"f"), string(b"v")),
        "expires so late",
    ),
    "first field expiry too late": (_key(24, b"\xff" * 8, length(1)), "expires so late"),
    # packed encodings
    "intset width": (_key(11, string(build.intset([1, 2], 3))), "integers of 3 bytes"),
    "intset count": (_key(11, string(_patched(build.intset([1, 2]), 4, 3))), "3 integers"),
    "intset too small": (_key(11, string(b"1234567")), "8 at least"),
    "ziplist size": (_key(10, string(_patched(_ZIPLIST, 0, 99))), "ziplist of 99 bytes"),
    "ziplist tail": (_key(10, string(_patched(_ZIPLIST, 4, 11))), "last entry at byte 11"),
    "ziplist count": (_key(10, string(_patched(_ZIPLIST, 8, 5))), "5 entries declared"),
    "ziplist end": (_key(10, string(_ZIPLIST[:-1] + b"\xfe")), "ends with 0xff"),
    "ziplist end too early": (_key(10, string(_patched(_ZIPLIST, 13, 255))), "before"),
    "ziplist previous length": (_key(10, string(_patched(_ZIPLIST, 13, 9))), "one of 9 bytes"),
    "ziplist encoding": (_key(10, string(_patched(_ZIPLIST, 11, 0xC1))), "encoding 0xc1"),
    "ziplist string encoding": (_key(10, string(_patched(_ZIPLIST, 11, 0x81))), "0x81"),
    "ziplist entry past the end": (_key(10, string(_patched(_ZIPLIST, 11, 60))), "past the end"),
    "ziplist too small": (_key(10, string(b"1234567890")), "11 at least"),
    "listpack size": (_key(20, string(_patched(_LISTPACK, 0, 99))), "listpack of 99 bytes"),
    "listpack count": (_key(20, string(_patched(_LISTPACK, 4, 9))), "9 elements declared"),
    "listpack end": (_key(20, string(_LISTPACK[:-1] + b"\xfe")), "ends with 0xff"),
    "listpack end too early": (_key(20, string(_patched(_LISTPACK, 9, 255))), "before"),
    "listpack backlen": (_key(20, string(_patched(_LISTPACK, 8, 3))), "backwards"),
    "listpack encoding": (_key(20, string(_patched(_LISTPACK, 9, 0xF5))), "encoding 0xf5"),
    "listpack element past the end": (_key(20, string(_patched(_LISTPACK, 6, 0xBF))), "past"),
    "listpack long element past the end": (
        _key(20, string(_patched(build.listpack([b"x" * 200]), 6, 0xEF))),
        "past the end",
    ),
    "listpack long backlen": (
        _key(20, string(_patched(build.listpack([b"x" * 200]), 208, 7))),
        "backwards",
    ),
    "listpack too small": (_key(20, string(b"123456")), "7 at least"),
    "zipmap count": (_key(9, string(b"\2\1a\1\0b\xff")), "2 pairs declared"),
    "zipmap end": (_key(9, string(b"\1\1a\1\0b\xfe")), "ends with 0xff"),
    "zipmap odd": (_key(9, string(b"\1\1a\xff")), "pairs"),
    "zipmap past the end": (_key(9, string(b"\1\x09a\1\0b\xff")), "past the end"),
    "zipmap value past the end": (_key(9, string(b"\1\1a\1\x09b\xff")), "past the end"),
    "zipmap end too early": (_key(9, string(b"\1\xff\1\0b\xff")), "before the end"),
    # streams
    "stream id": (_stream(_STREAM, entry_id=b"12345"), "stream id of 5 bytes"),
    "stream master end": (_stream(build.listpack([1, 0, 1, b"f", 7, *_ENTRY])), "ends with 0"),
    "stream flags": (_stream(build.listpack([1, 0, 1, b"f", 0, 8, 0, 0, b"v", 4])), "flags 8"),
    "stream element count": (
        _stream(build.listpack([1, 0, 1, b"f", 0, 2, 0, 0, b"v", 5])),
        "another number",
    ),
    "stream cut": (_stream(build.listpack([1, 0, 1, b"f", 0, 2, 0, 0])), "missing"),
    "stream fields": (_stream(build.listpack([1, 0, 1 << 40, b"f", 0])), "missing"),
    "stream negative": (_stream(build.listpack([1, 0, -1, b"f", 0])), "negative"),
    "stream of text": (_stream(build.listpack([b"one", 0, 1, b"f", 0])), "is an integer"),
    "stream empty listpack": (_stream(build.listpack([])), "missing"),
    "stream listpacks out of order": (
        _key(15, length(2), string(_ID), string(_STREAM), string(_ID), string(_STREAM)),
        "not above",
    ),
    "pending entry of nobody": (_group(length(1) + _NACK, length(0)), "those of its consumers"),
    "pending entry that is not there": (
        _group(length(0), length(1) + _CONSUMER + length(1) + _ID),
        "those of its consumers",
    ),
    "pending entry of another id": (
        _group(length(1) + _NACK, length(1) + _CONSUMER + length(1) + build.stream_id(7)),
        "those of its consumers",
    ),
    "pending entries out of order": (_group(length(2) + _NACK_2 + _NACK, length(0)), "not above"),
    # modules
    "module field": (_key(7, length(1 << 40), b"\x06"), "of type 6"),
    "module without an end": (_key(7, length(1 << 40), b"\x02\x01"), "type 63|plain number"),
    "module data": (Rdb(10).opcode(247, length(1 << 40), b"\x01\x01\0").end(), "with 1, 1"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_structure_is_refused_by_what_is_wrong(name: str) -> None:
    data, words = MALFORMED[name]
    message = str(_refused(data))
    assert any(word in message for word in words.split("|")), message


def test_the_malformed_files_are_well_formed_but_for_their_fault() -> None:
    """What the cases above are made from passes."""
    good: list[Callable[[], bytes]] = [
        lambda: _key(20, string(_LISTPACK)),
        lambda: _key(10, string(_ZIPLIST), version=9),
        lambda: _key(11, string(build.intset([1, 2])), version=9),
        lambda: _key(9, string(b"\1\1a\1\0b\xff"), version=9),
        lambda: _key(1, length(2), integer(5), string(b"x"), version=9),
        lambda: _key(23, string(build.listpack([b"f", b"v", 5, b"g", b"w", 0]))),
        lambda: _key(7, length(1 << 40), b"\x02\x01\0"),
        lambda: _stream(_STREAM),
        lambda: _stream(build.listpack([0, 1, 1, b"f", 0, 3, 0, 0, b"v", 4]), 0),
        lambda: _group(length(1) + _NACK, length(1) + _CONSUMER + length(1) + _ID),
        lambda: _key(3, length(1), string(b"m"), b"\x031.5"),
        lambda: Rdb(9).end(),
    ]
    for make in good:
        data = make()
        assert walker.inspect_stream(io.BytesIO(data), len(data)).size == len(data)


# -- arbitrary damage, with a checksum that is right

_FUZZED = [path for path in FILES if len(DATA[path]) < 1500]
_QUICK = settings(max_examples=250, derandomize=True, database=None)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(DATA[draw(st.sampled_from(_FUZZED))][:-8])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(9, len(data) - 1))
        how = draw(st.sampled_from(("set", "flip", "insert", "remove", "copy", "huge")))
        if how == "set":
            data[at] = draw(st.sampled_from((0, 1, 0x3F, 0x7F, 0x80, 0x81, 0xC3, 0xF0, 0xFE, 0xFF)))
        elif how == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif how == "remove" and len(data) > 40:
            del data[at : at + draw(st.integers(1, 20))]
        elif how == "copy":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        else:
            data[at : at + 9] = b"\x81" + draw(st.binary(min_size=8, max_size=8))
        if len(data) < 11:
            break
    return build.sealed(bytes(data))


@_QUICK
@given(_damaged())
def test_damage_is_an_error_or_harmless(data: bytes) -> None:
    _tolerated(data)
    with contextlib.suppress(walker.RdbError):
        list(walker._Walker(Cursor(io.BytesIO(data).read, len(data), None), True).entries())


@_QUICK
@given(st.binary(max_size=300), st.sampled_from(sorted(READ)), st.booleans())
@example(b"\xff", 9, False)
def test_arbitrary_bytes_are_an_error_or_harmless(body: bytes, version: int, begun: bool) -> None:
    rdb_file = Rdb(version)
    if begun:
        rdb_file.db(0, 1)
    _tolerated(build.sealed(rdb_file.raw(body).body()))


@_QUICK
@given(st.integers(0, 29), st.binary(max_size=120), st.sampled_from(sorted(READ)))
def test_arbitrary_values_are_an_error_or_harmless(kind: int, value: bytes, version: int) -> None:
    _tolerated(_key(kind, value, version=version))
    _tolerated(_key(kind, string(value), version=version))
    _tolerated(_key(kind, string(value[:-1] + b"\xff"), version=version))


def test_resealing_keeps_a_good_file() -> None:
    for data in DATA.values():
        assert resealed(data) == data


def test_what_nobody_thought_of_is_no_sound_rdb_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(_: object, problem: Exception) -> None:
        raise problem

    path = tmp_path / "dump.rdb"
    path.write_bytes(DATA[TINY[0]])
    monkeypatch.setattr(walker._Walker, "_finish", lambda self: fault(self, KeyError("surprise")))
    assert "KeyError: 'surprise'" in str(_refused(DATA[TINY[0]]))
    with pytest.raises(walker.RdbError, match=r"dump\.rdb: byte [0-9]+: KeyError"):
        walker.inspect(path)
    monkeypatch.setattr(walker._Walker, "_finish", lambda self: fault(self, MemoryError()))
    assert "a string that this process has no memory for" in str(_refused(DATA[TINY[0]]))
    # Not the file's fault: whoever reads it must hear of that as it is.
    monkeypatch.setattr(walker._Walker, "_finish", lambda self: fault(self, OSError("the disk")))
    with pytest.raises(OSError, match="the disk"):
        walker.inspect(path)
