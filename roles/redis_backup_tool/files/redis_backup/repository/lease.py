"""The lease of a set in the store: what a restore that is at work needs."""

from __future__ import annotations

from pathlib import Path

from ..base.files import read_if_there
from ..formats import lease
from ..formats.lease import LEASE_NAME, Lease


def read(directory: Path) -> Lease | None:
    """The lease in a directory, None where there is none. Raises ToolError when it cannot be
    read.
    """
    path = directory / LEASE_NAME
    raw = read_if_there(path)
    return None if raw is None else lease.decode(raw, str(path))


def backups(set_dir: Path) -> frozenset[str]:
    """The backups that a restore needs, whether or not the lease has run out: only the restore
    takes it away. Raises ToolError: then nothing may be deleted.
    """
    found = read(set_dir)
    return frozenset() if found is None or found.backup is None else frozenset([found.backup])
