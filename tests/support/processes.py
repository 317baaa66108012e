"""Processes of this machine, as /proc has them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process that runs (no zombie)."""

    pid: int
    name: str
    parent: int
    session: int

    def kill(self) -> bool:
        """kill -9. Returns whether it was still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False


def running() -> Iterator[Process]:
    """All of them."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                text = (directory / "stat").read_text("utf-8", "replace")
                name = text[text.index("(") + 1 : text.rindex(")")]
                state, parent, _, session = text[text.rindex(")") + 2 :].split()[:4]
                if state not in "ZX":
                    yield Process(int(directory.name), name, int(parent), int(session))


def of_session(session: int) -> list[Process]:
    """What a process that began a session of its own has started, and itself."""
    return [process for process in running() if process.session == session]


def below(pid: int) -> list[Process]:
    """Children, their children and so on."""
    everybody = list(running())
    found: list[Process] = []
    parents = {pid}
    while parents:
        children = [process for process in everybody if process.parent in parents]
        found += children
        parents = {process.pid for process in children}
    return found
