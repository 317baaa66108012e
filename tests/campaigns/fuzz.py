"""RDB files that nobody wrote, for the reader of RDB files, in a process that may not grow.

    python -m tests.campaigns.fuzz EXAMPLES SEED

Real files of five releases and hand-made ones are changed where their structure is, and get a
checksum that is right: what is wrong must be seen by whoever reads the structure. Prints JSON:
`examples`, how many were `refused`, and the `slowest` (seconds).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from redis_backup.digest.digester import on_all_cores
from redis_backup.rdb import crc64, versions, walker

from tests.support import rdb_builder as build
from tests.support.rdb_builder import Rdb, length, string

FILES = [
    path.read_bytes()
    for path in sorted((Path(__file__).parents[1] / "fixtures" / "rdb").glob("*/*.rdb"))
    if path.stat().st_size < 30_000
]
#: What reading files of some kilobytes may add to a process.
MEMORY = 64 * 2**20
SECONDS = 20.0

_EDGES = (0, 1, 12, 63, 64, 16383, 16384, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1)
_CODES = (*range(30), *range(240, 256))
_MARKS = (0, 1, 0x3F, 0x40, 0x7F, 0x80, 0x81, 0xC0, 0xC3, 0xE0, 0xF0, 0xF4, 0xFD, 0xFE, 0xFF)
_ELEMENTS = st.lists(
    st.one_of(
        st.binary(max_size=70),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(-20, 300),
    ),
    max_size=12,
)


class HangError(BaseException):
    """An example took too long."""


def sealed(data: bytes) -> bytes:
    """With a checksum that is right."""
    return data + crc64.update(data, 0).to_bytes(8, "little")


@st.composite
def packed(draw: st.DrawFn) -> bytes:
    """What Redis packs into one string, whole or not."""
    elements = draw(_ELEMENTS)
    count = draw(st.one_of(st.none(), st.integers(0, 65535)))
    how = draw(st.sampled_from(("listpack", "ziplist", "intset", "zipmap", "lzf")))
    if how == "listpack":
        made = build.listpack(elements, count)
    elif how == "ziplist":
        made = build.ziplist(elements, count)
    elif how == "intset":
        width = draw(st.sampled_from((2, 4, 8)))
        numbers = [item for item in elements if isinstance(item, int)]
        bits = 8 * width - 1
        made = build.intset([item % 2**bits for item in numbers], width)
    elif how == "zipmap":
        strings = [item for item in elements if isinstance(item, bytes)]
        made = build.zipmap(zip(strings[::2], strings[1::2], strict=False), draw(st.integers(0, 3)))
    else:
        made = build.lzf(draw(st.binary(max_size=100)))
    data = bytearray(made)
    for _ in range(draw(st.integers(0, 2))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from(_MARKS))
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A good file after some changes."""
    data = bytearray(draw(st.sampled_from(FILES))[:-8])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(9, max(9, len(data) - 1)))
        how = draw(
            st.sampled_from(
                ("mark", "bit", "code", "length", "insert", "remove", "repeat", "splice", "packed")
            )
        )
        if how == "mark":
            data[at : at + 1] = bytes((draw(st.sampled_from(_MARKS)),))
        elif how == "bit" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "code":
            data[at : at + 1] = bytes((draw(st.sampled_from(_CODES)),))
        elif how == "length":
            data[at : at + draw(st.integers(0, 9))] = length(draw(st.sampled_from(_EDGES)))
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=40))
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "repeat":
            block = bytes(data[at : at + draw(st.integers(1, 60))])
            data[at:at] = block * draw(st.integers(1, 50))
        elif how == "splice":
            other = draw(st.sampled_from(FILES))[:-8]
            data[at:] = other[draw(st.integers(0, len(other) - 1)) :]
        elif how == "packed":
            data[at : at + draw(st.integers(0, 60))] = string(draw(packed()))
    return sealed(bytes(data))


@st.composite
def made(draw: st.DrawFn) -> bytes:
    """A file of one key of any type, with any value in it."""
    value = draw(st.lists(st.one_of(packed().map(string), st.binary(max_size=20)), max_size=4))
    file = Rdb(draw(st.sampled_from(sorted(versions.READ)))).db(0, 1)
    for edge in draw(st.lists(st.sampled_from(_EDGES), max_size=2)):
        value.insert(draw(st.integers(0, len(value))), length(edge))
    file.key(draw(st.integers(0, 29)), b"key", *value)
    return sealed(file.body() + b"\xff")


class Campaign:
    """What was tried, and the limits in which it ran."""

    def __init__(self) -> None:
        self.examples = self.refused = 0
        self.slowest = 0.0
        self.file = os.memfd_create("rdb")

    def read(self, data: bytes) -> None:
        """The walk, also with a digest of all values, and the one that gives them: RdbError, or
        none.
        """
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, data, 0)
        outcomes = []
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        started = time.monotonic()
        try:
            for walk in (
                lambda: walker.inspect_stream(io.BytesIO(data), len(data)),
                lambda: walker.inspect_stream(io.BytesIO(data)),
                lambda: walker.inspect_stream(io.BytesIO(data), len(data), digester=on_all_cores()),
                lambda: list(walker.entries(f"/proc/self/fd/{self.file}")),
            ):
                try:
                    walk()
                    outcomes.append(True)
                except walker.RdbError as problem:
                    outcomes.append(False)
                    # The net below it caught something that nobody had thought of.
                    if "fault of the tool" in str(problem):
                        raise AssertionError(str(problem)) from problem
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            # What makes the examples takes memory of its own.
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        # What has a digest is sound, whether its size was known or not.
        assert outcomes[0] == outcomes[1] >= outcomes[2]
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.examples += 1
        self.refused += not outcomes[0]


def hang(_number: int, _frame: object) -> None:
    raise HangError(f"an example took more than {SECONDS:g} s")


def main(examples: int, start: int) -> None:
    campaign = Campaign()
    signal.signal(signal.SIGALRM, hang)
    for strategy in (changed(), made()):
        seed(start)(
            settings(
                max_examples=examples // 2,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )(given(strategy)(campaign.read))
        )()
    print(
        json.dumps(
            {
                "examples": campaign.examples,
                "refused": campaign.refused,
                "slowest": round(campaign.slowest, 3),
            }
        )
    )


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(int(sys.argv[1]), int(sys.argv[2]))
