"""What a sandboxed server leaves outside: files in `out`, and itself in /proc."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MAX_OUTPUT_FILE = 64 * 1024


def alive(evidence: Mapping[str, Any]) -> bool:
    """Whether the process that gave this evidence is still there (a zombie is not)."""
    try:
        text = Path(f"/proc/{evidence['pid']}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    fields = text.rsplit(")", 1)[1].split()
    return fields[0] not in "ZX" and fields[19] == evidence["start_time"]


def read_output(path: Path, tail: bool = False) -> str:
    """A file that the sandboxed server may have written: no link, no other kind, never much.

    It runs on data that nobody vouches for; what it leaves must not lead the tool to other files.
    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if tail:
            file.seek(max(0, status.st_size - _MAX_OUTPUT_FILE))
        return file.read(_MAX_OUTPUT_FILE).decode("utf-8", "replace")
