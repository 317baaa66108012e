"""A real redis-server on a unix socket, for tests of what Redis makes of a configuration."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ansible_collections.proven.redis.plugins.module_utils.conf_text import encode
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import Connection

from tests.support.servers import Binary, any_server


@cache
def _installed() -> Binary:
    return any_server()


class RefusedError(Exception):
    """The server did not start; the text is what it said."""


class Server:
    """A running server."""

    def __init__(self, directory: Path, config: Path, password: str) -> None:
        self.config = config
        # The modules' own client: with any other one, a test would not see what they see.
        self.connection = Connection(unixsocket=str(directory / "socket"))
        self.connection.authenticate(password or None)

    def config_get(self) -> dict[str, str]:
        words = self.connection.command("CONFIG", "GET", "*")
        return dict(zip(words[::2], words[1::2], strict=True))

    def rewritten(self) -> str:
        """The file after CONFIG REWRITE."""
        assert self.connection.command("CONFIG", "REWRITE") == "OK"
        return self.config.read_bytes().decode("utf-8", "surrogateescape")


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory with a path short enough for a unix socket."""
    # A child that a killed server had for a BGSAVE may still be on its way out of it.
    with tempfile.TemporaryDirectory(prefix="conf-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def running(
    directory: Path, text: str, password: str = "", binary: Binary | None = None
) -> Iterator[Server]:
    """A server started on exactly this text, which must not open a port and use `socket`."""
    config = directory / "redis.conf"
    config.write_bytes(encode(text))
    log = directory / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*(binary or _installed()).command, str(config)],
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while b"eady to accept connections" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RefusedError(log.read_text(errors="replace"))
            time.sleep(0.005)
        server = Server(directory, config, password)
        try:
            yield server
        finally:
            server.connection.close()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
