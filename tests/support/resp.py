"""A client of the Redis protocol that hands out bytes as they are, for tests on binary data."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class ReplyError(Exception):
    """The server answered with an error."""


class Client:
    """One connection by unix socket. Replies: bytes, int, list, or None."""

    def __init__(self, path: Path, timeout: float = 60.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._reader = self._socket.makefile("rb")

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
        self._socket.close()

    def command(self, *words: str | bytes | int | float) -> Any:
        """Send one command and return its reply. Raises ReplyError."""
        self.send(*words)
        return self.reply()

    def send(self, *words: str | bytes | int | float) -> None:
        """Send one command; its reply is to be fetched by `reply`."""
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(
            b"*%d\r\n" % len(encoded)
            + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        )

    def pipeline(self, commands: Iterable[tuple[str | bytes | int | float, ...]]) -> list[Any]:
        """Send many commands, 200 at a time, and return their replies."""
        replies: list[Any] = []
        pending = 0
        for words in commands:
            self.send(*words)
            pending += 1
            if pending == 200:
                replies += [self.reply() for _ in range(pending)]
                pending = 0
        return replies + [self.reply() for _ in range(pending)]

    def reply(self) -> Any:
        """The next reply. Raises ReplyError for an error."""
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise ReplyError(rest.decode(errors="replace"))
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"*":
            return [self.reply() for _ in range(number)]
        data = self._reader.read(number + 2)
        if len(data) != number + 2:
            raise ConnectionResetError("the server closed the connection")
        return data[:-2]
