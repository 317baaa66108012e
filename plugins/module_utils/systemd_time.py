"""The times that systemctl shows."""

from __future__ import annotations

import datetime


def seconds(text: str) -> int:
    """Seconds since 1970 of a time such as ``Sat 2026-11-21 05:32:55 UTC``, as systemctl shows one
    with TZ=UTC. (--timestamp=unix came after Debian 11, and what other zones are called, nobody can
    read back.)

    Raises:
        ValueError: it is none.
    """
    # Without the day: strptime() knows only what it is called in the locale of its own process,
    # which Ansible takes from whoever calls it.
    _, _, rest = text.partition(" ")
    moment = datetime.datetime.strptime(f"{rest}+0000", "%Y-%m-%d %H:%M:%S UTC%z")
    return int(moment.timestamp())
