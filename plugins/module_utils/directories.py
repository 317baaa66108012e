"""Directories that are taken for a service: whether they are somebody else's.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import glob
import os
import pwd
from collections.abc import Collection, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import settings
from ansible_collections.proven.redis.plugins.module_utils.conf_text import decode
from ansible_collections.proven.redis.plugins.module_utils.listeners import process_text, unit_of

# Whose owner and mode are everybody's matter.
_TOP = (
    "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr"
    " var"
)
_BELOW = {
    "/etc": "cron.d default init.d logrotate.d ssh ssl sudoers.d systemd",
    "/usr": "bin games include lib lib64 libexec local sbin share src",
    "/usr/local": "bin etc games include lib man sbin share src",
    "/var": "backups cache crash lib local lock log mail opt run spool tmp www",
}
SYSTEM = frozenset(
    ["/", *(f"/{name}" for name in _TOP.split())]
    + [f"{above}/{name}" for above, names in _BELOW.items() for name in names.split()]
)
SHOWN = 3  # names in a message


def few(names: Sequence[str]) -> str:
    """Some of the names, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def objection(
    path: str, uid: int | None, gid: int | None, mode: int, holds: Collection[str]
) -> str:
    """Why an existing directory is not given this owner, group and mode; empty where it may be.

    Args:
        path: absolute.
        uid: owner that it is to have; None for an account that is not there yet.
        gid: group, likewise.
        mode: mode that it is to have.
        holds: patterns of names that its owner keeps there, whoever owns them now.

    Raises:
        OSError: it cannot be read.
    """
    resolved = os.path.realpath(path)
    if not os.path.isdir(resolved):
        return ""
    status = os.stat(resolved)
    same_owner = (status.st_uid, status.st_gid) == (uid, gid)
    if same_owner and status.st_mode & 0o7777 == mode:
        return ""
    named = path if resolved == os.path.normpath(path) else f"{path} ({resolved})"
    if resolved in SYSTEM:
        return f"{named} is a directory of the system; name one below it."
    # What the account owns already is its own; root owns all that nobody else does.
    if same_owner or (uid and status.st_uid == uid):
        return ""
    others, own = [], 0
    with os.scandir(resolved) as entries:
        for entry in entries:
            by_name = any(fnmatchcase(entry.name, pattern) for pattern in holds)
            if by_name or (uid and entry.stat(follow_symlinks=False).st_uid == uid):
                own += 1
            elif entry.name != "lost+found":
                others.append(entry.name)
    if others:
        return (
            f"{named} has {len(others)} files or directories of others: {few(sorted(others))}. Its "
            "owner or group would change for them all; name a directory of its own."
        )
    if status.st_uid not in (0, uid) and not own:
        owner = str(status.st_uid)
        with suppress(KeyError):
            owner = pwd.getpwuid(status.st_uid).pw_name
        return f"{named} belongs to {owner}. Give it to root if nothing needs it, or name another."
    return ""


# What a machine that is switched off, or systemd when a service ends, takes away.
_MEMORY = ("/dev", "/proc", "/run", "/sys")


def forgets(path: str) -> str:
    """Why nothing lasts in a directory, which need not exist yet; empty where things do."""
    resolved = os.path.realpath(path)
    for above in _MEMORY:
        if resolved == above or resolved.startswith(f"{above}/"):
            where = "" if resolved == os.path.normpath(path) else f", which is {resolved},"
            return f"{path}{where} lies in memory: at the next stop or boot, what is there is gone."
    return ""


def running_in(folder: str, unit: str) -> str:
    """A server of another unit that runs with this data directory; empty where there is none.

    Two servers write over one another's files.
    """
    resolved = os.path.realpath(folder)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            name = process_text(pid, "comm").strip()
            if name not in ("redis-server", "valkey-server"):
                continue
            its_unit = unit_of(process_text(pid, "cgroup"))
            if its_unit in ("", unit) or "[sentinel]" in process_text(pid, "cmdline"):
                continue
            # A server works in its data directory.
            if os.path.realpath(f"/proc/{pid}/cwd") == resolved:
                return f"{name} (process {pid}, {its_unit})"
    return ""


def configured_for(folder: str, config_file: str) -> str:
    """Another instance of ours, running or not, whose file names this data directory; empty where
    there is none.

    Args:
        folder: absolute.
        config_file: the instance's own; those of the others lie beside it, each with its mark.

    Raises:
        OSError: a configuration file cannot be read.
        ConfError: one cannot be understood.
    """
    resolved = os.path.realpath(folder)
    for mark in sorted(glob.glob(f"{glob.escape(os.path.dirname(config_file))}/*.conf.managed")):
        other = mark[: -len(".managed")]
        if other != config_file and os.path.exists(other):
            with open(other, "rb") as file:
                named = settings(decode(file.read())).get("dir")
            if named and os.path.realpath(named) == resolved:
                return f"the server of {other}"
    return ""
