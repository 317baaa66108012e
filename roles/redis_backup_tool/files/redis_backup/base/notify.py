"""Tell a person about a failure, by a command of the user's: one that fails or hangs costs no more
than its time, and what is wrong with it is told in words.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

TIMEOUT = 60.0  # seconds until a command that hangs is killed
LONGEST = 4096  # bytes of its output that are kept
_GRACE = 1.0  # seconds for what it left running, once it has ended itself
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SET_CHILD_SUBREAPER = 36  # prctl(2)


def environment(**more: str) -> dict[str, str]:
    """What the command gets: nothing of ours but where programs are, and what is given."""
    home = "/"
    with suppress(KeyError):
        home = pwd.getpwuid(os.geteuid()).pw_dir
    return {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": home, **more}


def tell(
    command: Sequence[str], text: str, env: Mapping[str, str], timeout: float = TIMEOUT
) -> str | None:
    """Run the command with the text on its standard input; None, or in words why that failed.

    No shell is involved. What the command has begun is killed with it, and when it has ended.
    """
    _adopt_orphans()
    ours = _children()
    said = os.memfd_create("notification")
    try:
        os.write(said, text.encode("utf-8", "replace"))
        os.lseek(said, 0, os.SEEK_SET)
        process = subprocess.Popen(
            list(command),
            stdin=said,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=dict(env),
            start_new_session=True,
        )
    except OSError as problem:
        return f"{command[0]} cannot be run: {problem.strerror}"
    finally:
        os.close(said)
    with process:
        try:
            output, ended = _read(process, timeout)
        finally:
            _kill_all(process, ours)
    if not ended:
        return f"{command[0]} did not end within {timeout:.0f} s, and was killed"
    if process.returncode == 0:
        return None
    end = (
        f"was ended by {signal.Signals(-process.returncode).name}"
        if process.returncode < 0
        else f"ended with {process.returncode}"
    )
    words = " ".join(output.decode("utf-8", "replace").split())
    return f"{command[0]} {end}" + (f": {words}" if words else " and said nothing")


def _read(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bool]:
    """The end of what the command says, and whether it has ended in time."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        is_open = True
        while time.monotonic() < deadline:
            if is_open and selector.select(0.1):
                block = os.read(process.stdout.fileno(), 65536)
                output = (output + block)[-LONGEST:]
                if not block:
                    selector.unregister(process.stdout)
                    is_open = False
            elif not is_open:
                time.sleep(0.05)
            if process.poll() is not None:
                if not is_open:
                    return output, True
                # It left something running that holds its output open.
                deadline = min(deadline, time.monotonic() + _GRACE)
    return output, process.poll() is not None


def _adopt_orphans() -> None:
    """Let what the command leaves behind become children of this process, so that none escapes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_all(process: subprocess.Popen[bytes], ours: set[int]) -> None:
    """Kill the command and all that it has begun, whatever session that is in."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The children of a process that is killed become ours, hence again until there are none.
    while children := _children() - ours:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _children() -> set[int]:
    own = os.getpid()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # The name of a program may have blanks and brackets in it.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == own:
                    found.add(int(entry.name))
    return found
