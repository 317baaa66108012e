"""Sizes for people, in one unit everywhere: binary, as the program redis-backup writes them.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations


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
