"""What modules do with a running server beyond single commands."""

from __future__ import annotations

from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.redis_info import parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ServerError,
    wait_until,
)


class SaveError(Exception):
    """A snapshot could not be taken; the text says why."""


def info(connection: Connection, section: str) -> dict[str, Any]:
    """One section of INFO, as nested data."""
    return dict(parse_info(connection.command("INFO", section))[section])


def bgsave(connection: Connection, timeout: float) -> None:
    """Take an RDB snapshot by BGSAVE (never SAVE, which stops all clients) and wait for it.

    Args:
        timeout: seconds to wait for a save that runs already, and again for our own.

    Raises:
        SaveError: the server refused, the save failed, or it did not end in time.
    """

    def idle() -> bool:
        return not info(connection, "persistence")["rdb_bgsave_in_progress"]

    if not wait_until(idle, timeout):
        raise SaveError(f"Another BGSAVE did not end within {timeout} s.")
    try:
        # SCHEDULE: a rewrite of the append-only file may be running, then it follows that.
        connection.command("BGSAVE", "SCHEDULE")
    except ServerError as error:
        raise SaveError(f"The server refuses BGSAVE: {error}.") from None

    def done() -> bool:
        state = info(connection, "persistence")
        return not state["rdb_bgsave_in_progress"] and not state["aof_rewrite_in_progress"]

    if not wait_until(done, timeout):
        raise SaveError(f"BGSAVE did not end within {timeout} s.")
    if info(connection, "persistence")["rdb_last_bgsave_status"] != "ok":
        raise SaveError("BGSAVE failed; the server's log says why.")


def wait_for_rewrite(connection: Connection, timeout: float) -> dict[str, Any]:
    """Wait until no rewrite of the append-only file runs or is planned; return INFO persistence.

    CONFIG GET says `appendonly yes` as soon as the switch begins. Until its rewrite has ended there
    is no file to start from: a restart with `appendonly yes` would come up empty.

    Raises:
        SaveError: it did not end within ``timeout`` seconds.
    """

    def settled() -> bool:
        state = info(connection, "persistence")
        return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]

    if not wait_until(settled, timeout):
        raise SaveError(f"The append-only file was not rewritten within {timeout} s.")
    return info(connection, "persistence")


def rewrite(connection: Connection, timeout: float) -> None:
    """Have the append-only file written anew out of memory, and wait for that.

    Raises:
        SaveError: the server refused, the rewrite failed, or it did not end in time.
    """
    try:
        connection.command("BGREWRITEAOF")
    except ServerError as error:
        raise SaveError(f"The server refuses BGREWRITEAOF: {error}.") from None
    if wait_for_rewrite(connection, timeout)["aof_last_bgrewrite_status"] != "ok":
        raise SaveError("The rewrite of the append-only file failed; the server's log says why.")
