"""A lease: what a restore that is at work needs of a repository. Retention keeps what it names, and
neither a backup nor a deployment begins meanwhile.

It lies in the set's directory of the store, and on every host of the set, each phase of the restore
renews it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.fields import BACKUP_ID, NAME
from ..base.times import parse_timestamp
from . import document

LEASE_NAME = "lease.json"


@dataclass(frozen=True)
class Lease:
    """`plan` is the id of the restore's plan, `segments` are those of the archive, `host` is the
    one that is restored, `until` (ISO 8601 UTC) is when it runs out.
    """

    set: str
    plan: str
    backup: str | None
    segments: tuple[str, ...]
    host: str
    until: str

    def words(self) -> str:
        """Whose it is, for a message."""
        return f"a restore onto {self.host} (plan {self.plan}, until {self.until})"


def encode(lease: Lease) -> bytes:
    """The bytes of the file."""
    return document.encode({**vars(lease), "segments": list(lease.segments)})


def decode(raw: bytes, where: str) -> Lease:
    """Parse the file. Raises ToolError, which names `where`."""
    fields = document.opened(raw, where)
    segments = fields.array("segments") if fields.has("segments") else []
    if not all(isinstance(item, str) for item in segments):
        raise fields.fail('"segments" must be a list of names')
    lease = Lease(
        set=fields.text("set", NAME),
        plan=fields.text("plan", NAME),
        backup=fields.optional_text("backup", BACKUP_ID),
        segments=tuple(segments),
        host=fields.text("host", NAME),
        until=fields.text("until"),
    )
    try:
        parse_timestamp(lease.until)
    except ValueError:
        raise fields.fail(f'"until" is not a time: {lease.until[:40]!r}') from None
    return lease
