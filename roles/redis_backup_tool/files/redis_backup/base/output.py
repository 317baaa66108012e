"""What a command says: one line per step, progress on a terminal, and with --json one document at
the end. Whether anybody can read it decides nothing: a terminal that is gone, a full disk or a
closed stream loses the words and leaves the work and the verdict as they are.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

_PROGRESS_INTERVAL = 0.2  # seconds between two redraws of the progress line


def hold_standard_streams() -> None:
    """Put /dev/null where standard input, output or error is closed, before a file of ours gets its
    number and what a child process complains of is written into that. To be called first.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: the ones below are open by now.
            os.open(os.devnull, os.O_RDWR)
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  # for good
        elif number > 0 and isinstance(stream, io.TextIOWrapper):
            # A letter that the terminal's encoding does not have is no reason to stop either.
            stream.reconfigure(errors="backslashreplace")


class Output:
    """Steps go to stdout, or to stderr when stdout carries the JSON document. Errors go to
    stderr.
    """

    def __init__(
        self, as_json: bool, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout if stdout is None else stdout
        self._stderr = sys.stderr if stderr is None else stderr
        self._drawn = False
        self._last = 0.0

    def step(self, text: str) -> None:
        """Say what was done or is about to be done."""
        self._clear()
        self._put(self._stderr if self.as_json else self._stdout, f"{printable(text)}\n")

    def warn(self, text: str) -> None:
        """Say something that a person should look at, without failing for it."""
        self._clear()
        self._put(self._stderr, f"redis-backup: warning: {printable(text)}\n")

    def error(self, text: str, code: int) -> None:
        """Say why the command ends; with --json also as a document."""
        self._clear()
        self._put(self._stderr, f"redis-backup: {printable(text)}\n")
        if self.as_json:
            self.document({"error": text, "exit": code})

    def document(self, data: Any) -> None:
        """Print the JSON document of the command, when it was asked for."""
        if self.as_json:
            self._put(self._stdout, f"{json.dumps(data, indent=2)}\n")

    def text(self, text: str) -> None:
        """Print the result for a person, unless JSON was asked for."""
        if not self.as_json:
            self._clear()
            lines = [printable(line) for line in text.split("\n")]
            self._put(self._stdout, "\n".join([*lines, ""]))

    def progress(self, label: str, done: int, total: int) -> None:
        """Redraw the progress line; nothing unless stderr is a terminal."""
        if not self._stderr.isatty():
            return
        now = time.monotonic()
        if now - self._last < _PROGRESS_INTERVAL and done < total:
            return
        self._last = now
        share = f"{100 * done // total:3d} %" if total > 0 else "  - %"
        self._put(self._stderr, f"\r\x1b[K{label} {share}")
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._put(self._stderr, "\r\x1b[K")
            self._drawn = False

    def _put(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            # All that follows, and what lies in the stream's buffer at the end, goes nowhere.
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def human_bytes(count: int) -> str:
    """A size for people: 1.4 MiB."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def table(rows: list[list[str]]) -> str:
    """Rows as columns of equal width, the last one as wide as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def printable(text: str) -> str:
    """Text from elsewhere on one line: it cannot forge lines or drive the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
