"""Times as documents carry them."""

from __future__ import annotations

from datetime import datetime, timezone


def timestamp(unix_time: float) -> str:
    """ISO 8601 in UTC with whole seconds."""
    return datetime.fromtimestamp(int(unix_time), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> int:
    """Unix time (seconds) of a timestamp as written by `timestamp`. Raises ValueError."""
    moment = datetime.strptime(text + "+0000", "%Y-%m-%dT%H:%M:%SZ%z")
    return int(moment.timestamp())
