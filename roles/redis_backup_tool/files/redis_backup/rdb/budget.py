"""A limit to the time of a walk: some bytes of a file can stand for very much to go through."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..base.errors import ToolError


class BudgetError(ToolError):
    """A walk was stopped because it took too long; nothing is known about the file."""


class CpuBudget:
    """To be called now and then: raises BudgetError once so many CPU seconds are used up, by this
    process since it was made, and by others that `watch` is told of.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.process_time()
        self._others: list[Callable[[], float]] = []

    def watch(self, seconds_of_others: Callable[[], float]) -> None:
        """Count the CPU seconds that this function gives too."""
        self._others.append(seconds_of_others)

    def __call__(self) -> None:
        used = time.process_time() - self._began + sum(other() for other in self._others)
        if used > self._seconds:
            raise BudgetError(
                f"reading the RDB took more than {self._seconds:g} s of CPU time: few bytes of it"
                " stand for very much, or this machine is slow; it was not read to its end"
            )


def of_process(number: int) -> float:
    """The CPU seconds of a process by its number, 0 when it has ended: its clock, as
    clock_getcpuclockid() of C makes it on Linux.
    """
    try:
        return time.clock_gettime((~number << 3) | 2)
    except OSError:
        return 0.0
