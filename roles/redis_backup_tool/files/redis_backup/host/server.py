"""The few questions that a backup asks the Redis server of its host."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from ..base.fields import whole_number
from ..formats.settings import PATTERNS, chosen
from ..transport.redis_client import Client, ServerError, text
from .turn import Replica

_CLOCKS_APART = 20_000  # microseconds, twice the tick of a slow kernel


class RedisServer(Client):
    """A server and what a backup wants to know of it."""

    def config(self, name: str) -> str:
        """One setting as CONFIG GET tells it. Raises ServerError."""
        found = self._config_get(name)
        if name in found:
            return found[name]
        raise ServerError(
            f"Redis at {self.name} knows no setting {name}: is CONFIG restricted there?"
        )

    def _config_get(self, pattern: str) -> dict[str, str]:
        reply = self.command("CONFIG", "GET", pattern)
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])
        return {text(key): text(value) for key, value in pairs}

    def settings(self) -> dict[str, str]:
        """What a server needs to write its data as this one does. Raises ServerError."""
        found: dict[str, str] = {}
        for pattern in PATTERNS:
            found.update(self._config_get(pattern))
        return chosen(found)

    def time(self) -> int:
        """Unix time in seconds by the server's own clock, rounded down. Raises ServerError."""
        return int(text(self.command("TIME")[0]))

    def settled_time(self) -> int:
        """As `time`, when no clock of the server's kernel shows an earlier second any more; waits
        for that. What is written into an RDB comes from a clock that is up to 10 ms behind TIME:
        without this, one backup of some hundred would seem older than its own request.
        """
        while True:
            seconds, microseconds = (int(text(part)) for part in self.command("TIME"))
            if microseconds >= _CLOCKS_APART:
                return seconds
            time.sleep((_CLOCKS_APART - microseconds) / 1e6)


def replicas(info: Mapping[str, str]) -> list[Replica]:
    """The replicas that a master's INFO lists (`slave0:ip=…,port=…,state=online,…`)."""
    found = []
    for number in range(int(info.get("connected_slaves", "0"))):
        line = info.get(f"slave{number}")
        if line is None:
            continue
        parts = dict(part.partition("=")[::2] for part in line.split(","))
        port = whole_number(parts.get("port", ""))
        if port is not None:
            found.append(Replica(parts.get("ip", ""), port, online=parts.get("state") == "online"))
    return found


def keys_of(info: Mapping[str, str]) -> int:
    """Keys of all databases by INFO (`db0:keys=…,expires=…`)."""
    found = (
        re.match(r"keys=([0-9]{1,18})", value)
        for name, value in info.items()
        if re.fullmatch(r"db[0-9]+", name)
    )
    return sum(int(match[1]) for match in found if match is not None)


def integer(info: Mapping[str, str], key: str, default: int = 0) -> int:
    """A whole number out of INFO, the default where the field is absent."""
    try:
        return int(info.get(key, default))
    except ValueError:
        return default
