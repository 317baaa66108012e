"""How an instance is started or restarted so that it has the newest data: what a stopped one needs
before, and what has to be true of a running one before it is stopped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ansible_collections.proven.redis.plugins.module_utils.redis_disk import rdb_head
from ansible_collections.proven.redis.plugins.module_utils.redis_info import parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_live import SaveError, rewrite
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import Connection
from ansible_collections.proven.redis.plugins.module_utils.redis_start import (
    AOF,
    EMPTY,
    RDB,
    STOP,
    Held,
    expected_keys,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_start_files import Disk, unmounted


class StartError(Exception):
    """The server is not started, or not stopped for a restart; the text says why."""


def refuse_unmounted(folder: str) -> None:
    """A server that is started on an empty mount point would come up without its data.

    Raises:
        StartError: something is to be mounted there, and is not.
    """
    point = unmounted(folder)
    if point:
        raise StartError(
            f"Nothing was changed. {folder}, the directory of the data, lies on {point}, which "
            "systemd is to mount and which is not mounted: a server that is started now would be "
            "empty, and hide what it writes under the mount. Mount it, or remove its entry from "
            "/etc/fstab, then run again."
        )


def _refusal(disk: Disk) -> str:
    """The end of every refusal to start a server on these files: what lies there, what to do."""
    return (
        f"{disk.describe()} Move away what is not wanted, or put a good file in its place, then "
        "run again: what is left is loaded, an RDB alone too."
    )


def _truncates(values: Mapping[str, str]) -> bool:
    return values.get("aof-load-truncated") != "no"


class Start:
    """With what file a stopped server is started, so that it loads the newest data there is.

    Args:
        disk: where the data lies by the present file.
        wanted: what the wanted file sets.
        current: what the present one sets; empty where there is none.

    Attributes:
        appendonly: what the file has to say; None where it may say what is wanted.
        base: the RDB has to become the beginning of a new append-only file before.
        unsafe: the present file has the server load the append-only file, which may have no name
            while that is done.

    Raises:
        StartError: no rule can tell which data are the newest, or they cannot be loaded.
    """

    def __init__(self, disk: Disk, wanted: Mapping[str, str], current: Mapping[str, str]) -> None:
        self.disk = disk
        was = {"yes": True, "no": False}.get(current.get("appendonly", "no" if current else ""))
        choice = disk.choose(was, _truncates(wanted))
        if choice.load == STOP:
            raise StartError(f"Nothing was changed. {choice.why} {_refusal(disk)}")
        as_wanted = wanted.get("appendonly") == "yes"
        self.base = choice.load == RDB and as_wanted
        self.unsafe = was is True
        loads = {AOF: True, RDB: as_wanted, EMPTY: as_wanted}[choice.load]
        self.appendonly = None if loads is as_wanted else "yes"

    def lines(self) -> list[str]:
        """What is done to the data files, for the plan."""
        if not self.base:
            return []
        made, rdb = os.path.basename(self.disk.aof), os.path.basename(self.disk.rdb)
        line = f"{made}: made of {rdb}, which has the newest data"
        if self.disk.look().aof.there:
            line += " (the present one is kept under another name)"
        return [line]

    def make_base(self) -> str | None:
        """Have the RDB loaded by `appendonly yes`, without a moment in which the server would lose
        what it takes: one that is switched has no append-only file until that ends.

        Returns:
            What to tell of the append-only file that was there, None where there was none.
        """
        kept = self.disk.make_base()
        if kept is None:
            return None
        return (
            f"{os.uname().nodename}: the server starts from {self.disk.rdb}, whose data is newer "
            f"than that of its append-only file. That is kept as {kept}; delete it when it is not "
            "needed any more."
        )


def check_start(unit: str, config_file: str, disk: Disk, values: Mapping[str, str]) -> Held | None:
    """What keys a server will have that is started now with this file, where its files tell.

    Raises:
        StartError: it would not load the newest data there is.
    """
    loads_aof = values.get("appendonly") == "yes"
    choice = disk.choose(loads_aof, _truncates(values))
    if choice.load == STOP:
        raise StartError(f"{unit} was not started. {choice.why} {_refusal(disk)}")
    if choice.load != EMPTY and (choice.load == AOF) is not loads_aof:
        raise StartError(
            f"{unit} was not started: {config_file} says appendonly "
            f"{'yes' if loads_aof else 'no'}, by which the server would not load the newest data. "
            f"{disk.describe()} Run site.yml, which settles that."
        )
    expected: Held | None = expected_keys(disk.look(), choice.load)
    return expected


def check_snapshot(disk: Disk, begin: int) -> None:
    """Fail when a snapshot does not lie where the next server looks for it: the directory may have
    been replaced, or another file system mounted over it.

    Args:
        disk: where that server looks.
        begin: the server's time when it was asked for the snapshot.

    Raises:
        SaveError: it does not lie there.
    """
    saved = rdb_head(disk.rdb).aux.get("ctime", "0") if os.path.isfile(disk.rdb) else "0"
    # Redis reads the time from a clock that may be some milliseconds behind.
    if int(saved) < begin - 1:
        raise SaveError(
            f"The server says that it has saved, and {disk.rdb} is not what it saved: the "
            "directory was replaced or mounted over while the server ran."
        )


def check_append_only_file(unit: str, disk: Disk, connection: Connection, timeout: float) -> None:
    """Have the append-only file written anew where the next server would not load it.

    Raises:
        StartError: another one lies in its place.
        SaveError: it could not be written.
    """
    truncates = _truncates(connection.config())
    info = parse_info(connection.command("INFO", "all"))
    pid = info["server"]["process_id"]

    def problem() -> str:
        return disk.not_what_is_written(pid) or disk.check_aof(truncates)

    found = problem()
    if found and not disk.another_aof(pid):
        rewrite(connection, timeout)
        found = problem()
    if found:
        keys = sum(database["keys"] for database in info.get("keyspace", {}).values())
        raise StartError(
            f"{unit} was not restarted: it has {keys} keys, and the next start would not load them "
            f"from {disk.aof}: {found}. {disk.describe()} The server runs on as it was. Move "
            f"{disk.aof} away, then run again: it is written anew out of memory."
        )
