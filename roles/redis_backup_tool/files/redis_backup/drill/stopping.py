"""One drill at a time on a host, and an orderly end when somebody asks for one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ..base.errors import ToolError


class Stopped(KeyboardInterrupt):
    """Somebody told the drill to stop: no step may take it for an error of its own and go on."""


@contextlib.contextmanager
def locked(work: Path, wait: float) -> Iterator[None]:
    """The only drill on this host. A held lock is waited for; one that stays held is a failure."""
    status = work.stat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ToolError(
            f"{work}: must be a directory of user id {os.getuid()} with mode 0700:"
            " restored data and the sandboxed server's socket lie in it"
        )
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(work / ".lock", flags, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ToolError(
                        f"{work}/.lock: another drill has held it for {wait:.0f} s,"
                        " this one did not run"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


class Told:
    """Whether somebody told the drills to stop. One that is at work ends at once, a report is sent
    to its end; those that come after do not start.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._stop: Stopped | None = None
        self._at_once = False

    def __call__(self, number: int, _frame: object) -> None:
        for other in self.signals:
            # Impatience must not cut the cleaning up short.
            signal.signal(other, signal.SIG_IGN)
        self._stop = Stopped(f"stopped by {signal.Signals(number).name}")
        if self._at_once:
            raise self._stop

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is stopped in the middle. Raises Stopped, also for what came before."""
        self._at_once = True
        try:
            if self._stop is not None:
                raise self._stop
            yield
        finally:
            self._at_once = False


@contextlib.contextmanager
def signals_end_drills() -> Iterator[Told]:
    """A drill that is told to stop cleans up, and is a failed drill with a report."""
    told = Told()
    before = {number: signal.signal(number, told) for number in told.signals}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
