"""What a command says: one line per step, progress on a terminal, and with --json one document at
the end.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, TextIO

_PROGRESS_INTERVAL = 0.2  # seconds between two redraws of the progress line


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
        print(_one_line(text), file=self._stderr if self.as_json else self._stdout, flush=True)

    def warn(self, text: str) -> None:
        """Say something that a person should look at, without failing for it."""
        self._clear()
        print(f"redis-backup: warning: {_one_line(text)}", file=self._stderr, flush=True)

    def error(self, text: str, code: int) -> None:
        """Say why the command ends; with --json also as a document."""
        self._clear()
        print(f"redis-backup: {_one_line(text)}", file=self._stderr, flush=True)
        if self.as_json:
            self.document({"error": text, "exit": code})

    def document(self, data: Any) -> None:
        """Print the JSON document of the command, when it was asked for."""
        if self.as_json:
            print(json.dumps(data, indent=2), file=self._stdout, flush=True)

    def text(self, text: str) -> None:
        """Print the result for a person, unless JSON was asked for."""
        if not self.as_json:
            self._clear()
            print(text, file=self._stdout, flush=True)

    def progress(self, label: str, done: int, total: int) -> None:
        """Redraw the progress line; nothing unless stderr is a terminal."""
        if not self._stderr.isatty():
            return
        now = time.monotonic()
        if now - self._last < _PROGRESS_INTERVAL and done < total:
            return
        self._last = now
        share = f"{100 * done // total:3d} %" if total > 0 else "  - %"
        self._stderr.write(f"\r\x1b[K{label} {share}")
        self._stderr.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._stderr.write("\r\x1b[K")
            self._stderr.flush()
            self._drawn = False


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


def _one_line(text: str) -> str:
    """Text from elsewhere cannot forge lines or drive the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
