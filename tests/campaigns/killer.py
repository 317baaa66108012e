"""Run the tool and kill it, with a real SIGKILL of the real process, at one named point.

    python -m tests.campaigns.killer "host.snapshot.take enter" create --now --config FILE

A point is a function and `enter` or `leave`, and which time it is, if not the first, such as
`transport.rsync._run leave 2`. A function is one of the package (`wing.module.name`,
`wing.module.Class.name`), of the standard library, or a system call as Python knows it
(`posix.rename`). The tool itself is not changed for it: Python tells of every call of a process
that asks (`sys.setprofile`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from redis_backup.commands import cli


def arm(point: str) -> None:
    """Kill this process at a point; children of it are not meant."""
    name, when, *count = point.split()
    left = int(count[0]) if count else 1
    victim = os.getpid()
    python, builtin = {"enter": ("call", "c_call"), "leave": ("return", "c_return")}[when]

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        if event == python:
            module = str(frame.f_globals.get("__name__", "")).removeprefix("redis_backup.")
            if f"{module}.{frame.f_code.co_qualname}" != name:
                return
        elif event == builtin:
            if f"{getattr(argument, '__module__', '')}.{argument.__name__}" != name:
                return
        else:
            return
        left -= 1
        if left == 0:
            os.kill(victim, signal.SIGKILL)

    threading.setprofile(watch)
    sys.setprofile(watch)


if __name__ == "__main__":
    arm(sys.argv[1])
    sys.exit(cli.main(sys.argv[2:]))
