"""The lock of an instance: one run at a time changes it, and nobody reads a half-changed one.

A file per instance, `/run/proven-redis/<unit>.lock`, locked by flock(2): shared by whoever reads,
exclusively by whoever changes. Its content says who changed the instance last. The kernel drops the
lock with the process that holds it, so a killed run leaves none behind; as long as a module of a
killed run is still at work, it does hold it. /run is empty after a boot, and so is the memory of
who changed what before.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

DIRECTORY = "/run/proven-redis"
PAUSE = 0.1  # seconds between two attempts


class Change(NamedTuple):
    """The last change of an instance, as the file of its lock has it.

    Attributes:
        run: id of the run of Ansible.
        at: when it took the lock, UTC.
        pid: the module's process.
        task: what the module did.
    """

    run: str
    at: str
    pid: int
    task: str

    def __str__(self) -> str:
        return f"{self.task}, process {self.pid} of the run {self.run or '?'}, at {self.at}"


class LockedError(Exception):
    """Somebody else changes the instance; the text says who."""


class Lock:
    """The open file of a lock."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def last(self) -> Change | None:
        """The last change; None where there was none since the machine booted."""
        os.lseek(self._handle, 0, os.SEEK_SET)
        try:
            found = json.loads(os.read(self._handle, 1 << 16))
            return Change(
                str(found["run"]), str(found["at"]), int(found["pid"]), str(found["task"])
            )
        except (ValueError, TypeError, KeyError):
            return None

    def write(self, run: str, task: str) -> Change:
        """Note a change of ours."""
        change = Change(run, _now(), os.getpid(), task)
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(change._asdict()).encode(), 0)
        return change

    def take(self, kind: int, unit: str, timeout: float) -> None:
        """Wait for the lock.

        Raises:
            LockedError: it was not to be had within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(self._handle, kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockedError(
                        f"{unit} is being changed by somebody else, and that did not end within"
                        f" {timeout:g} s ({self.last() or 'of whom nothing is known'})"
                    ) from None
                time.sleep(PAUSE)


@contextmanager
def shared(unit: str, timeout: float) -> Iterator[Change | None]:
    """Hold the lock of an instance for reading; the value is its last change.

    Where nobody has changed the instance since the boot there is no file, and none is made.

    Raises:
        LockedError: somebody changes the instance for longer than ``timeout`` seconds.
    """
    try:
        handle = os.open(_path(unit), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        lock = Lock(handle)
        lock.take(fcntl.LOCK_SH, unit, timeout)
        yield lock.last()
    finally:
        os.close(handle)


@contextmanager
def exclusive(unit: str, timeout: float) -> Iterator[Lock]:
    """Hold the lock of an instance for a change.

    Raises:
        LockedError: somebody else holds it for longer than ``timeout`` seconds.
        OSError: the file cannot be made.
    """
    os.makedirs(DIRECTORY, 0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(_path(unit), flags, 0o600)
    try:
        lock = Lock(handle)
        lock.take(fcntl.LOCK_EX, unit, timeout)
        yield lock
    finally:
        os.close(handle)


def _path(unit: str) -> str:
    return os.path.join(DIRECTORY, f"{unit}.lock")


def _now() -> str:
    """UTC with milliseconds: two changes of one second are two."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
