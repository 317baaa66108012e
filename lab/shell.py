"""Running programs, and saying on one line what takes long."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_print_lock = threading.Lock()


class LabError(Exception):
    """What was seen, what it means and what to do, in words for the user."""


def say(line: str) -> None:
    """Print one line at once, whole even when several threads report."""
    with _print_lock:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


@contextmanager
def step(name: str, doing: str) -> Iterator[list[str]]:
    """Announce a long step, and end its line with the seconds it took.

    What the caller appends to the yielded list is shown behind the seconds.
    """
    notes: list[str] = []
    # One line for both where nothing can come between.
    one_line = sys.stdout.isatty() and threading.active_count() == 1
    with _print_lock:
        sys.stdout.write(f"  {name:<10} {doing} ...{'' if one_line else chr(10)}")
        sys.stdout.flush()
    start = time.monotonic()
    lead = " " if one_line else f"  {name:<10} "
    try:
        yield notes
    except BaseException:
        say(f"{lead}failed after {time.monotonic() - start:.1f} s")
        raise
    say(" ".join([f"{lead}{time.monotonic() - start:.1f} s", *notes]))


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float = 120,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program with its output captured as text; no shell.

    With check, a non-zero exit raises LabError with the end of what the program said. A program
    that is missing or takes longer than timeout seconds always does.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env=env,
            cwd=cwd,
        )
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"no end after {timeout:.0f} s: {' '.join(argv)}") from None
    out = done.stdout.decode(errors="replace")
    err = done.stderr.decode(errors="replace")
    if check and done.returncode != 0:
        words = "\n".join((err.strip() or out.strip()).splitlines()[-12:])
        raise LabError(f"exit {done.returncode} from: {' '.join(argv)[:400]}\n{words}")
    return subprocess.CompletedProcess(argv, done.returncode, out, err)
