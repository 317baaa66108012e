"""The conversation with a sandboxed server: the client of `transport`, with this wing's errors."""

from __future__ import annotations

import re
from pathlib import Path

from ..base.errors import ToolError
from ..config.model import RedisAccess
from ..transport import redis_client
from .errors import SandboxError

# A server that loads answers between chunks of the file; a longer silence is a hang. Seconds.
REPLY_TIMEOUT = 60.0


class ServerSaidError(ToolError):
    """An error reply, in the server's words."""


class Client:
    """A connection to the server behind a unix socket."""

    def __init__(self, path: Path) -> None:
        access = RedisAccess(address="", port=0, username=None, password=None, unixsocket=str(path))
        self._client = redis_client.Client(access, reply_timeout=REPLY_TIMEOUT)

    def call(self, *words: str) -> object:
        """One command. Raises ServerSaidError for an error reply, SandboxError without a reply."""
        try:
            reply: object = self._client.command(*words)
        except redis_client.ServerError as problem:
            if problem.reply:
                raise ServerSaidError(problem.reply) from None
            raise SandboxError(f"the sandboxed server does not answer: {problem.said}") from None
        return reply

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO, values as text."""
        return redis_client.parse_info(redis_client.text(self.call("INFO", section)))

    def keyspace(self) -> dict[int, tuple[int, int]]:
        """Keys and expires per database, from INFO keyspace."""
        counts = {}
        for name, value in self.info("keyspace").items():
            if re.fullmatch(r"db[0-9]+", name):
                found = re.match(r"keys=([0-9]+),expires=([0-9]+)(,|$)", value)
                if found is None:
                    raise SandboxError(
                        f"the sandboxed server's INFO keyspace is odd: {value[:80]!r}"
                    )
                counts[int(name[2:])] = (int(found.group(1)), int(found.group(2)))
        return counts

    def close(self) -> None:
        """Close the connection; never raises."""
        self._client.close()
