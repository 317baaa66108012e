"""The one client of Redis: raw replies over TCP or a unix socket, INFO as text, and errors that a
person can act on.

It stands on python3-redis's connection class, which speaks the wire and logs in, and not on its
client class: that one reshapes replies, and does it differently from release to release (3.5 to 8).
"""

from __future__ import annotations

import contextlib
from typing import Any

from ..base.errors import ToolError
from ..config.model import RedisAccess

CONNECT_TIMEOUT = 5.0  # seconds
REPLY_TIMEOUT = 60.0  # seconds: a fork of a big server may block it for a while


class ServerError(ToolError):
    """The server cannot be asked, or says no. `reply` is its own error, empty when it did not
    answer; `said` is what python3-redis made of either.
    """

    def __init__(self, message: str, reply: str = "", said: str = "") -> None:
        super().__init__(message)
        self.reply = reply
        self.said = said or reply


class Client:
    """A connection to one server; made by the first command."""

    def __init__(self, access: RedisAccess, reply_timeout: float = REPLY_TIMEOUT) -> None:
        try:
            # Only here: what has no conversation with a server runs without python3-redis.
            import redis
            import redis.connection
        except ModuleNotFoundError as problem:
            raise ToolError(
                f"the Python module {problem.name} is missing: apt-get install python3-redis"
            ) from None
        self._errors: Any = redis.exceptions
        self.access = access
        self.name = access.unixsocket or f"{access.address}:{access.port}"
        common: dict[str, Any] = {
            "username": access.username,
            "password": access.password,
            "socket_timeout": reply_timeout,
        }
        # Typed only in some of the versions that the supported systems have.
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
        except self._errors.RedisError as problem:
            # After an error reply the connection goes on where it was.
            answered = isinstance(problem, self._errors.ResponseError)
            if not answered:
                self._connection.disconnect()
            kind = type(problem).__name__
            raise self._explain(words[0], str(problem), kind, answered) from None
        except OSError as problem:
            self._connection.disconnect()
            raise self._explain(words[0], str(problem), "ConnectionError", False) from None

    def info(self) -> dict[str, str]:
        """All of INFO's default sections, flat. Raises ServerError."""
        return parse_info(text(self.command("INFO")))

    def close(self) -> None:
        """Give the connection back; never raises."""
        with contextlib.suppress(Exception):
            self._connection.disconnect()

    def _explain(self, command: str, said: str, kind: str, answered: bool) -> ServerError:
        where = f"Redis at {self.name}"
        low = said.lower()
        if kind == "BusyLoadingError" or "loading the dataset" in low:
            return ServerError(
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
            return ServerError(f"{where} did not answer {command} in time: {said}", said=said)
        if kind == "ConnectionError":
            return ServerError(f"{where} cannot be reached: {said}; is the server up?", said=said)
        message = f"{where} answered {command} with: {said}"
        return ServerError(message, said if answered else "", said)


def parse_info(raw: str) -> dict[str, str]:
    """INFO's `key:value` lines, flat."""
    lines = (line.partition(":") for line in raw.splitlines() if line and not line.startswith("#"))
    return {key: value.strip() for key, _, value in lines}


def text(value: Any) -> str:
    """A reply that is text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
