"""Receipts: what the backup server says about one upload, in one small JSON file that hosts of the
set may read. That of an accepted backup lies in its directory too, and is the truth behind its line
in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..base.errors import ToolError
from ..base.fields import BACKUP_ID, NAME, SHA256, Fields
from . import document
from .catalogue import Entry, from_fields, to_json
from .identity import REPOSITORY_ID
from .manifest import Position, position

RECEIPT_NAME = "receipt.json"
ACCEPTED = "accepted"
REJECTED = "rejected"
#: Verifying it takes longer than an upload of this host has so far: it is tried again, alone.
DEFERRED = "deferred"
#: No receipt is larger.
MAX_RECEIPT_BYTES = 64 * 1024
# More, and longer, than a walk gives.
_WARNINGS = 50
_WARNING_LENGTH = 500


@dataclass(frozen=True)
class Receipt:
    """Of one upload. `repository` is the id of the repository that gave it. `manifest_sha256` is
    None when the manifest of a rejected upload could not be read; `reason` is None for an accepted
    one. `event` is the line of an accepted backup or report, None for what was not accepted;
    `position` is where in the history of its master a backup was taken. `warnings` are about data
    in it that its server loads and saves though they should not be there, one line each.
    """

    id: str
    set: str
    host: str
    status: str
    repository: str
    reason: str | None = None
    manifest_sha256: str | None = None
    event: Entry | None = None
    position: Position | None = None
    warnings: tuple[str, ...] = ()


def encode(receipt: Receipt) -> bytes:
    """The bytes of a receipt file."""
    data: dict[str, Any] = {
        **vars(receipt),
        "event": None if receipt.event is None else to_json(receipt.event),
        "position": None if receipt.position is None else vars(receipt.position),
        "warnings": list(receipt.warnings) or None,
    }
    return document.encode(data)


def decode(raw: bytes, where: str) -> Receipt:
    """Parse a receipt file. Raises ToolError, which names `where`."""
    fields = document.opened(raw, where)
    return Receipt(
        id=fields.text("id", BACKUP_ID),
        set=fields.text("set", NAME),
        host=fields.text("host", NAME),
        status=fields.choice("status", (ACCEPTED, REJECTED, DEFERRED)),
        repository=fields.text("repository", REPOSITORY_ID),
        reason=fields.optional_text("reason"),
        manifest_sha256=fields.optional_text("manifest_sha256", SHA256),
        event=from_fields(fields.fields("event")) if fields.has("event") else None,
        position=position(fields, "position"),
        warnings=_warnings(fields),
    )


def _warnings(fields: Fields) -> tuple[str, ...]:
    if not fields.has("warnings"):
        return ()
    found = fields.array("warnings")
    if len(found) > _WARNINGS or not all(
        isinstance(item, str) and len(item) <= _WARNING_LENGTH for item in found
    ):
        raise fields.fail(
            f'"warnings" must be a list of {_WARNINGS} lines at most, of {_WARNING_LENGTH}'
            " characters"
        )
    return tuple(found)


def accepted(receipts: dict[str, bytes], set_name: str) -> dict[str, Receipt]:
    """The accepted backups of a set among files by id; what is no receipt does not count."""
    found = {}
    for upload_id, raw in receipts.items():
        try:
            receipt = decode(raw, upload_id)
        except ToolError:
            continue
        if (receipt.status, receipt.set, receipt.id) == (ACCEPTED, set_name, upload_id):
            found[upload_id] = receipt
    return found


def judge(
    receipt: Receipt,
    set_name: str,
    host: str,
    backup_id: str,
    manifest_sha256: str,
    repository: str | None,
) -> str | None:
    """What is wrong with a receipt for this very backup or report, None when it confirms it.
    `repository` is the one that this host was deployed with, None where that is not known. Pure.
    """
    if (receipt.id, receipt.set, receipt.host) != (backup_id, set_name, host):
        return (
            f"the receipt is about {receipt.set}/{receipt.id} of {receipt.host}, not about"
            f" {set_name}/{backup_id}"
        )
    if repository is not None and receipt.repository != repository:
        return (
            f"the backup server keeps another repository ({receipt.repository}) than the one that"
            f" this host was deployed with ({repository}): is the file system of the store mounted"
            " there? If the repository was replaced on purpose, deploy this host again"
        )
    if receipt.status == REJECTED:
        return (
            f"the backup server rejected {set_name}/{backup_id}:"
            f" {receipt.reason or 'no reason given'}"
        )
    if receipt.manifest_sha256 != manifest_sha256:
        return (
            f"the backup server accepted another one as {set_name}/{backup_id}"
            f" ({receipt.manifest_sha256}, ours is {manifest_sha256}): this one is not stored"
        )
    return None
