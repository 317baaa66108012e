"""What the sandboxed server is: its redis.conf, and the version of the installed binary."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ..formats.settings import chosen
from .errors import SandboxError

# More would take gigabytes in the sandboxed server: each has tables of its own.
_MOST_DATABASES = 1 << 16


def checks_values(engine: str, release: tuple[int, int]) -> bool:
    """Whether such a server looks into every value that it loads (`sanitize-dump-payload`)."""
    return engine == "valkey" or release >= (6, 2)


def server_config(
    *,
    directory: Path,
    databases: int,
    engine: str,
    release: tuple[int, int],
    settings: Mapping[str, str],
) -> str:
    """redis.conf of a server that loads `in/dump.rdb` as a replica of nowhere: nothing expires.

    `directory` is the sandbox's directory as the server sees it, `databases` the least number of
    them. Options that a release does not know are left out. `settings` are those that a manifest
    claims, of which the known ones are taken: it comes from elsewhere.
    """
    given = chosen(settings)
    configured = min(int(given.pop("databases", "16")), _MOST_DATABASES)
    lines = [
        "port 0",
        f"unixsocket {directory}/out/redis.sock",
        # Who may connect is decided by the directory above, which is open to the tool's user alone.
        "unixsocketperm 777",
        "daemonize no",
        "supervised no",
        f"dir {directory}/in",
        "dbfilename dump.rdb",
        f"logfile {directory}/out/server.log",
        "loglevel notice",
        f"databases {max(configured, databases)}",
        'save ""',
        "appendonly no",
        "rdbchecksum yes",
        "maxmemory 0",
        "maxmemory-policy noeviction",
        "replicaof 127.0.0.1 1",
        "replica-serve-stale-data yes",
        "replica-read-only yes",
        "cluster-enabled no",
        "aof-load-truncated no",
        "always-show-logo no",
        # How it hands its data back (`saved_again`): at once, streamed, without work for nothing.
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",
        "repl-timeout 3600",
        # It writes what it hands back as the server did that made the backup.
        *(f"{name} {value}" for name, value in given.items()),
    ]
    if checks_values(engine, release):
        lines.append("sanitize-dump-payload yes")
    if engine == "valkey" or release >= (7, 0):
        lines.append("enable-debug-command local")
    return "\n".join(lines) + "\n"


_VERSION_LINE = re.compile(r"(Redis|Valkey) server v=([0-9]+)\.([0-9]+)[0-9A-Za-z.+~-]*", re.I)


def server_version(binary: str) -> tuple[str, tuple[int, int]]:
    """Engine and (major, minor) of an installed server, by its own word. Raises SandboxError."""
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise SandboxError(
            f"{binary} --version does not run ({problem}); install the server on the drill host"
        ) from None
    found = _VERSION_LINE.search(done.stdout)
    if done.returncode != 0 or found is None:
        raise SandboxError(
            f"{binary} --version says {done.stdout.strip()[:100]!r}, no known server"
        )
    return found.group(1).lower(), (int(found.group(2)), int(found.group(3)))
