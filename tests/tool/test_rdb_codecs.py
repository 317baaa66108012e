"""CRC-64 and LZF: what C does and what Python does are the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_backup.rdb import crc64, lzf, walker

from tests.support import rdb_builder as build

FILES = sorted((Path(__file__).parents[1] / "fixtures/rdb").glob("*/*.rdb"))
_QUICK = settings(max_examples=150, derandomize=True, database=None)


def test_crc64_is_redis_own() -> None:
    """The check value that Redis's own test expects."""
    assert crc64.update_in_python(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64.update(b"123456789", 0) == 0xE9C6D914C4B8D9CA
    assert crc64.update_in_python(b"", 77) == crc64.update(b"", 77) == 77


def test_crc64_in_c_agrees_where_it_is_there() -> None:
    """On small blocks and on those that take the further tables."""
    data = random.Random(1).randbytes(200_000)
    for start, size in ((0, 200_000), (1, 4095), (3, 4096), (5, 4097), (7, 70_001), (9, 3)):
        block = data[start : start + size]
        for crc in (0, 1, 2**64 - 1):
            assert crc64.update(block, crc) == crc64.update_in_python(block, crc)
            assert crc64.update(memoryview(block), crc) == crc64.update(block, crc)


@_QUICK
@given(st.binary(max_size=9000), st.integers(0, 2**64 - 1), st.integers(0, 9000))
def test_crc64_in_parts_is_crc64_of_the_whole(data: bytes, crc: int, cut: int) -> None:
    parts = crc64.update_in_python(data[cut:], crc64.update_in_python(data[:cut], crc))
    assert parts == crc64.update(data, crc)


class _Module:
    """crcmod as it must not be used."""

    def __init__(self, extension: bool, result: int | None) -> None:
        self._usingExtension = extension
        self._result = result

    def mkCrcFun(self, *_: object, **__: object) -> crc64.Update:  # noqa: N802 - crcmod's name
        if self._result is None:
            raise ValueError("no such polynomial")
        return lambda *_: self._result or 0


@pytest.mark.parametrize(
    "module", [_Module(False, 1), _Module(True, 0xE9C6D914C4B8D9CA), _Module(True, None), object()]
)
def test_crcmod_is_not_trusted_blindly(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its extension, wrong, failing, or another module of that name: not used."""
    monkeypatch.setattr(crc64, "import_module", lambda _: module)
    assert crc64._update_in_c() is None


def test_the_walk_is_the_same_in_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_is = [(walker.inspect(path), list(walker.entries(path))) for path in FILES]
    monkeypatch.setattr(lzf, "_library", None)
    monkeypatch.setattr(crc64, "update", crc64.update_in_python)
    assert [(walker.inspect(path), list(walker.entries(path))) for path in FILES] == as_it_is


@_QUICK
@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 600)), max_size=8))
def test_lzf_gives_back_what_went_in(parts: list[tuple[bytes, int]]) -> None:
    plain = b"".join(data + data[-1:] * count for data, count in parts)
    packed = build.lzf(plain)
    assert lzf.decompress_in_python(packed, len(plain)) == plain
    assert lzf.decompress(packed, len(plain)) == plain
    lzf.check(packed, len(plain))
    for size in (len(plain) + 1, len(plain) - 1):
        if size >= 0:
            with pytest.raises(lzf.LzfError):
                lzf.check(packed, size)


@settings(max_examples=500, derandomize=True, database=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_lzf_in_c_and_in_python_accept_the_same(data: bytes, size: int) -> None:
    def outcome(decompress: object) -> bytes | None:
        assert callable(decompress)
        try:
            result: bytes = decompress(data, size)
        except lzf.LzfError:
            return None
        return result

    expected = outcome(lzf.decompress_in_python)
    assert outcome(lzf.decompress) == expected
    if lzf._library is not None and size:
        assert (lzf._library.makes(data, size) is not None) == (expected is not None)


@pytest.mark.parametrize(
    ("data", "size", "at", "words"),
    [
        (b"\x02ab", 3, 0, "goes past the end"),
        (b"\x00a\x20\x01", 4, 2, "refers 2 bytes back, 1 are there"),
        (b"\x00a\xe0", 9, 2, "ends inside"),
        (b"\x00a\xe0\x05", 9, 2, "ends inside"),
        (b"\x00a", 2, 2, "makes 1 bytes where 2"),
        (b"\x02abc", 2, 0, "more than the 2"),
        (b"\x00a", 10**9, 0, "cannot make"),
        (b"", 1, 0, "cannot make"),
    ],
)
def test_lzf_says_what_is_wrong_and_where(data: bytes, size: int, at: int, words: str) -> None:
    with pytest.raises(lzf.LzfError) as caught:
        lzf.decompress(data, size)
    assert caught.value.at == at
    assert words in caught.value.reason
