"""How much memory this machine has for its programs.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# The kernel keeps a little more or less for itself after an update or a boot; a limit in per cent
# must not follow that.
STEP = 64 * 1024**2
_MEMINFO = Path("/proc/meminfo")
# Of the control group that a container sees as its root: version 2, then 1.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def rounded(meminfo: str, limits: Iterable[str]) -> int:
    """Bytes: MemTotal, or the lowest limit below it, rounded down to whole steps, at least one."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    amounts = [int(found[1]) * 1024] if found else []
    # Without a limit, version 2 says `max` and version 1 a number beyond any machine.
    amounts += [int(limit) for limit in limits if limit.strip().isdigit()]
    return max(min(amounts) // STEP, 1) * STEP if amounts else 0


def memory() -> int:
    """The memory of this host in bytes; 0 where it cannot be read."""
    return rounded(_text(_MEMINFO), [_text(path) for path in _LIMITS])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
