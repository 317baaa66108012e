"""A client that hands out bytes as the server sent them, for tests on binary data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from redis.connection import UnixDomainSocketConnection


class Client:
    """One connection by unix socket. Replies: bytes, int, list, or None. Raises redis.RedisError.

    The connection of redis-py alone: its client would turn replies into sets, numbers and
    dictionaries, each by the command that was sent.
    """

    def __init__(self, path: Path, timeout: float = 60.0) -> None:
        kind: Any = UnixDomainSocketConnection  # its methods have no types
        self._connection = kind(
            path=str(path), socket_timeout=timeout, protocol=2, driver_info=None
        )
        self._connection.connect()

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def command(self, *words: str | bytes | int | float) -> Any:
        """Send one command and return its reply."""
        self._connection.send_command(*words)
        return self._connection.read_response()

    def pipeline(self, commands: Iterable[tuple[str | bytes | int | float, ...]]) -> list[Any]:
        """Send many commands, 200 at a time, and return their replies."""
        replies: list[Any] = []
        pending = 0
        for words in commands:
            self._connection.send_command(*words)
            pending += 1
            if pending == 200:
                replies += [self._connection.read_response() for _ in range(pending)]
                pending = 0
        return replies + [self._connection.read_response() for _ in range(pending)]
