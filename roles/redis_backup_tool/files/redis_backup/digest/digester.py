"""The digest of a file: a walk hands its records over, and all cores work on them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from fcntl import fcntl
from pathlib import Path
from select import select
from typing import BinaryIO

from ..base.errors import ToolError
from ..rdb.cursor import Cursor, RdbError, unreadable
from ..rdb.packed import no_tick
from .records import (
    BITS,
    FUNCTION,
    MODULUS,
    NAME,
    Records,
    eight_bytes,
    function,
    hashed,
    module_data,
    of_block,
    total,
)


class Digester:
    """Collects what a walk finds. Blocks of records go to worker processes, so that all cores work;
    what they have no room for is done here, so that nothing waits. To be closed.
    """

    def __init__(self, workers: int = 0) -> None:
        self._wanted = workers
        self._workers: list[_Worker] = []
        self._version = 0
        self._seen = 0
        self._databases: dict[int, list[int]] = {}
        self._beside: list[bytes] = []
        self._tick: Callable[[], None] = no_tick

    def begin(self, version: int, tick: Callable[[], None] = no_tick) -> None:
        """The version of the RDB whose records follow. `tick` is called now and then, also while
        workers are waited for, and what it raises comes out.
        """
        self._version = version
        self._tick = tick

    def block(self, database: int, at: int, data: bytes) -> None:
        """Whole records of a database, one behind the other, from that byte of the file on.

        Raises RdbError for this block or one before, and ToolError when a worker ended.
        """
        self._seen += len(data)
        if self._seen > _WORKERS_FROM:
            while len(self._workers) < self._wanted:
                self._workers.append(_Worker(self._version, self._tick))
        if self._workers:
            self._collect(_ready(self._workers))
            least = min(self._workers, key=lambda worker: len(worker.waiting))
            if len(least.waiting) < _QUEUED:
                least.send(database, at, data)
                return
        self._add(database, *_in_file(at, lambda: of_block(self._version, data, self._tick)))

    def records(self, cursor: Cursor, warn: Callable[[str], None]) -> Records:
        """A reader of records that are too large for a block; `warn` as that of `Values`."""
        return Records(cursor, self._version, warn)

    def record(self, database: int, record: bytes) -> None:
        """One record of a database."""
        self._add(database, 1, total([record]))

    def function(self, code: bytes) -> None:
        """A library of functions."""
        self._beside.append(hashed(function(code)))

    def module_data(self, name: str, encoding: int, when: int, fields: bytes) -> None:
        """What a module wrote beside the keys; `fields` as `records` reads them."""
        self._beside.append(hashed(module_data(name, encoding, when, fields)))

    def digest(self) -> tuple[str, dict[int, int]]:
        """The digest, and how many keys of every database went into it. Raises ToolError."""
        while busy := [worker for worker in self._workers if worker.waiting]:
            self._collect(busy[:1])
        final = hashlib.blake2b(digest_size=32)
        for database, (count, sums) in sorted(self._databases.items()):
            final.update(
                eight_bytes(database) + eight_bytes(count) + sums.to_bytes(BITS // 8, "little")
            )
        sums = sum(int.from_bytes(item, "little") for item in self._beside) % MODULUS
        final.update(FUNCTION + eight_bytes(len(self._beside)) + sums.to_bytes(BITS // 8, "little"))
        counts = {database: count for database, (count, _) in self._databases.items()}
        return f"{NAME}:{final.hexdigest()}", counts

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def _collect(self, workers: list[_Worker]) -> None:
        for worker in workers:
            self._add(*worker.receive())

    def _add(self, database: int, count: int, sums: int) -> None:
        held = self._databases.setdefault(database, [0, 0])
        held[0] += count
        held[1] = (held[1] + sums) % MODULUS


# --- workers: frames of length and RDB version with a block, answered by number and sum -----------

# A file of that size is done before another process is up. Bytes.
_WORKERS_FROM = 8 << 20
# More than one walk can keep busy.
_WORKERS = 7
# One block at work and one on the way.
_QUEUED = 2
_FRAME = struct.Struct("<II")
_ANSWER = 8 + BITS // 8
# No number of records: a block that cannot be read. The sum is then the place in it (64 bits) and
# the length of what follows.
_FAILED = (1 << 64) - 1
_F_SETPIPE_SZ = 1031
# Seconds from one tick to the next while a worker is waited for.
_PATIENCE = 0.2
_PIPE = 1 << 20


def other_cores() -> int:
    """How many processes can work beside this one."""
    return min(_WORKERS, len(os.sched_getaffinity(0)) - 1)


def on_all_cores() -> Digester:
    """A digester for one walk, which closes it."""
    return Digester(other_cores())


class _Worker:
    """A process that digests blocks. It ends with its standard input."""

    def __init__(self, version: int, tick: Callable[[], None]) -> None:
        self._version = version
        self._tick = tick
        #: Of the blocks that it has not answered yet, the databases and where they begin.
        self.waiting: deque[tuple[int, int]] = deque()
        path = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "redis_backup.digest.digester"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": path},
            # Python looks for modules in the working directory first, and that may be anybody's.
            cwd="/",
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("pipes were asked for")
        self._input = self._process.stdin
        self._output: BinaryIO = self._process.stdout  # type: ignore[assignment]
        with suppress(OSError):  # a limit of this user is reached: it works without, slower
            fcntl(self._input, _F_SETPIPE_SZ, _PIPE)
        # What it has no room for is waited for, and not forever.
        os.set_blocking(self._input.fileno(), False)

    def fileno(self) -> int:
        """Readable when an answer is there."""
        return self._output.fileno()

    def send(self, database: int, at: int, data: bytes) -> None:
        pipe = self._input.fileno()
        try:
            for part in (_FRAME.pack(len(data), self._version), data):
                left = memoryview(part)
                while left:
                    self._wait([], [pipe])
                    with suppress(BlockingIOError):
                        left = left[os.write(pipe, left) :]
        except OSError:
            raise self._ended() from None
        self.waiting.append((database, at))

    def receive(self) -> tuple[int, int, int]:
        """Database, number and sum of the oldest block; waits for them. Raises RdbError."""
        self._wait([self._output], [])
        answer = self._output.read(_ANSWER)
        if len(answer) != _ANSWER:
            raise self._ended()
        count, sums = int.from_bytes(answer[:8], "little"), int.from_bytes(answer[8:], "little")
        database, at = self.waiting.popleft()
        if count == _FAILED:
            seen, meaning = json.loads(self._output.read(sums >> 64))
            raise RdbError(at + (sums & _FAILED), seen, meaning)
        return database, count, sums

    def _wait(self, readable: list[BinaryIO], writable: list[int]) -> None:
        while not any(select(readable, writable, [], _PATIENCE)):
            self._tick()

    def _ended(self) -> ToolError:
        return ToolError(
            f"a process that computes the digest ended (exit code {self._process.wait()});"
            " no memory? run again"
        )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with suppress(OSError):
                pipe.close()


def _in_file(at: int, work: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """What `work` gives; the place in its error is that in the block that begins at `at`."""
    try:
        return work()
    except RdbError as error:
        raise RdbError(at + error.offset, error.seen, error.meaning) from None


def _ready(workers: list[_Worker]) -> list[_Worker]:
    return select([worker for worker in workers if worker.waiting], [], [], 0)[0]


def work(source: BinaryIO, target: BinaryIO) -> None:
    """Digest blocks until there are no more."""
    while frame := source.read(_FRAME.size):
        size, version = _FRAME.unpack(frame)
        told = b""
        try:
            count, sums = of_block(version, source.read(size))
        except Exception as fault:
            error = fault if isinstance(fault, RdbError) else unreadable(0, fault)
            told = json.dumps([error.seen, error.meaning]).encode()
            count, sums = _FAILED, len(told) << 64 | error.offset
        target.write(eight_bytes(count) + sums.to_bytes(BITS // 8, "little") + told)
        target.flush()


if __name__ == "__main__":
    # On a Redis host, Redis comes first.
    os.nice(10)
    with suppress(KeyboardInterrupt, BrokenPipeError):
        work(sys.stdin.buffer, sys.stdout.buffer)
