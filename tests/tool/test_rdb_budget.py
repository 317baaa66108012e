"""A walk has an end whatever the file says: some bytes can stand for very many elements."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable

import pytest
from redis_backup.base.errors import ToolError
from redis_backup.digest import digester
from redis_backup.rdb import lzf, walker

from tests.support import rdb_builder as build
from tests.support.rdb_builder import Rdb, length, string

SECONDS = 0.2
#: How long after that it may still go on, on a machine that has other work too.
LATE = 1.5
MANY = 4 << 20


def _key(kind: int, *value: bytes, version: int = 12) -> bytes:
    return Rdb(version).db(0, 1).key(kind, b"key", *value).end()


def _ones() -> bytes:
    """A listpack of very many elements that are 1, in LZF: each is the bytes 1, 1."""
    return build.compressed(struct.pack("<IH", 2 * MANY + 7, 65535) + b"\1" * (2 * MANY) + b"\xff")


def _nodes(plain: bytes) -> bytes:
    return length(60) + (b"\2" + string(plain)) * 60


def _alternating() -> bytes:
    """Elements of two sizes: no two neighbours are alike."""
    body = (b"\1\1" + b"\x81a\2") * 200_000
    return struct.pack("<IH", len(body) + 7, 65535) + body + b"\xff"


def _stream() -> bytes:
    entry: list[build.Element] = [2, 0, 0, b"v", 4]
    plain = build.listpack([60_000, 0, 1, b"f", 0, *entry * 60_000], 65535)
    parts = b"".join(string(build.stream_id(n)) + string(plain) for n in range(1, 13))
    return _key(15, length(12) + parts, *[length(0)] * 4, version=9)


def _members() -> bytes:
    return _key(17, string(build.listpack([b"m", 1] * 500_000, 65535)))


def _pieces() -> bytes:
    """Members of a set one by one, much of them in LZF, in a file of several windows."""
    member = build.compressed(b"a" * 400)
    return _key(2, length(200_000) + member * 200_000)


FILES: dict[str, Callable[[], bytes]] = {
    "a listpack": lambda: _key(20, _ones()),
    "a list": lambda: _key(18, _nodes(_alternating())),
    "a stream": _stream,
    "a sorted set": _members,
    "members": _pieces,
}


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return {name: make() for name, make in FILES.items()}


class EnoughError(ToolError):
    """What a budget raises here."""


def _stopped(data: bytes, digesting: digester.Digester | None) -> float:
    began, began_cpu = time.monotonic(), time.process_time()

    def enough() -> None:
        if time.monotonic() - began > SECONDS:
            raise EnoughError

    with pytest.raises(EnoughError):
        walker.inspect_stream(io.BytesIO(data), len(data), digester=digesting, budget=enough)
    return time.process_time() - began_cpu


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", FILES)
def test_a_digest_ends_soon(
    name: str, workers: int, made: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digester, "_WORKERS_FROM", 0)
    began = time.monotonic()
    assert _stopped(made[name], digester.Digester(workers)) < SECONDS + LATE
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("name", ["a list", "a stream", "a sorted set"])
def test_a_walk_ends_soon(name: str, made: dict[str, bytes]) -> None:
    assert _stopped(made[name], None) < SECONDS + LATE


def test_lzf_without_its_library_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lzf, "_library", None)
    plain = bytes(range(256)) * 200_000
    data = _key(0, b"\xc3", length(len(plain) // 32 * 33), length(len(plain)), _literal(plain))
    assert _stopped(data, None) < SECONDS + LATE


def _literal(plain: bytes) -> bytes:
    runs = [b"\x1f" + plain[at : at + 32] for at in range(0, len(plain), 32)]
    return b"".join(runs)


def test_any_function_can_end_a_walk() -> None:
    calls = [0]

    def enough() -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise EnoughError

    data = _key(2, length(5) + build.compressed(b"a" * 90) * 5)
    with pytest.raises(EnoughError):
        walker.inspect_stream(io.BytesIO(data), len(data), budget=enough)
    assert calls == [3]


def test_a_walk_within_its_budget_finds_the_same() -> None:
    data = _key(2, length(5) + build.compressed(b"a" * 90) * 5)
    found = walker.inspect_stream(io.BytesIO(data), len(data), budget=lambda: None)
    assert found == walker.inspect_stream(io.BytesIO(data), len(data))


def test_a_long_listpack_of_one_size_is_walked_at_once() -> None:
    """Element by element it would take ten times as long."""
    data = _key(20, _ones())
    began = time.process_time()
    walker.inspect_stream(io.BytesIO(data), len(data))
    assert time.process_time() - began < 0.4
