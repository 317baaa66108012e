"""The few questions that the tool asks a Redis server, over one connection, with errors that a
person can act on.

Replies are read below python3-redis's own conversions, which differ from release to release (3.5
to 8).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import redis
import redis.connection

from .config import RedisAccess
from .errors import ToolError
from .fields import whole_number
from .turn import Replica

CONNECT_TIMEOUT = 5.0  # seconds
REPLY_TIMEOUT = 60.0  # seconds: a fork of a big server may block it for a while
_CLOCKS_APART = 20_000  # microseconds, twice the tick of a slow kernel


class ServerError(ToolError):
    """The server cannot be asked, or says no. `reply` is its own error, empty when it did not
    answer.
    """

    def __init__(self, message: str, reply: str = "") -> None:
        super().__init__(message)
        self.reply = reply


class LoadingError(ServerError):
    """The server is still loading its dataset."""


class RedisServer:
    """A connection to one server; made by the first command."""

    def __init__(self, access: RedisAccess) -> None:
        self.access = access
        self.name = access.unixsocket or f"{access.address}:{access.port}"
        common: dict[str, Any] = {
            "username": access.username,
            "password": access.password,
            "socket_timeout": REPLY_TIMEOUT,
        }
        kind: Any = redis.connection.Connection
        if access.unixsocket is not None:
            kind = redis.connection.UnixDomainSocketConnection
            common["path"] = access.unixsocket
        else:
            common.update(
                host=access.address, port=access.port, socket_connect_timeout=CONNECT_TIMEOUT
            )
        self._connection: Any = kind(**common)

    def command(self, *words: str) -> Any:
        """The reply to a command as the wire has it (bytes, int, list). Raises ServerError."""
        try:
            self._connection.send_command(*words)
            return self._connection.read_response()
        except redis.exceptions.RedisError as problem:
            self._connection.disconnect()
            raise self._explain(words[0], str(problem), type(problem).__name__) from None
        except OSError as problem:
            self._connection.disconnect()
            raise self._explain(words[0], str(problem), "ConnectionError") from None

    def info(self) -> dict[str, str]:
        """All of INFO's default sections, flat. Raises ServerError."""
        return parse_info(_text(self.command("INFO")))

    def config(self, name: str) -> str:
        """One setting as CONFIG GET tells it. Raises ServerError."""
        reply = self.command("CONFIG", "GET", name)
        pairs = (
            list(reply.items()) if isinstance(reply, dict) else list(zip(reply[::2], reply[1::2]))
        )
        for key, value in pairs:
            if _text(key) == name:
                return _text(value)
        raise ServerError(
            f"Redis at {self.name} knows no setting {name}: is CONFIG restricted there?"
        )

    def time(self) -> int:
        """Unix time in seconds by the server's own clock, rounded down. Raises ServerError."""
        return int(_text(self.command("TIME")[0]))

    def settled_time(self) -> int:
        """As `time`, when no clock of the server's kernel shows an earlier second any more; waits
        for that. What is written into an RDB comes from a clock that is up to 10 ms behind TIME:
        without this, one backup of some hundred would seem older than its own request.
        """
        while True:
            seconds, microseconds = (int(_text(part)) for part in self.command("TIME"))
            if microseconds >= _CLOCKS_APART:
                return seconds
            time.sleep((_CLOCKS_APART - microseconds) / 1e6)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.disconnect()

    def _explain(self, command: str, said: str, kind: str) -> ServerError:
        where = f"Redis at {self.name}"
        low = said.lower()
        if kind == "BusyLoadingError" or "loading the dataset" in low:
            return LoadingError(
                f"{where} is loading its dataset: nothing to back up yet; run again later", said
            )
        if "without any password configured" in low or "no password is set" in low:
            return ServerError(
                f"{where} has no password, the configuration has one: is this the server that"
                " was deployed?",
                said,
            )
        refused = (
            "wrongpass",
            "noauth",
            "invalid password",
            "invalid username",
            "authentication required",
        )
        if kind == "AuthenticationError" or any(word in low for word in refused):
            return ServerError(
                f"{where} refused the password of the configuration: deploy this host again, or"
                " set the right one",
                said,
            )
        if "noperm" in low or "no permissions" in low:
            return ServerError(f"{where} does not let this user run {command}: {said}", said)
        if "timeout" in kind.lower():
            return ServerError(f"{where} did not answer {command} in time: {said}")
        if kind == "ConnectionError":
            return ServerError(f"{where} cannot be reached: {said}; is the server up?")
        return ServerError(f"{where} answered {command} with: {said}", said)


def parse_info(text: str) -> dict[str, str]:
    """INFO's `key:value` lines, flat."""
    lines = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {key: value.strip() for key, _, value in lines}


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


def integer(info: Mapping[str, str], key: str, default: int = 0) -> int:
    """A whole number out of INFO, the default where the field is absent."""
    try:
        return int(info.get(key, default))
    except ValueError:
        return default


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
