"""Receipts: what the backup server says about one upload, in one small JSON file that hosts of the
set may read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..base.errors import ToolError
from ..base.fields import BACKUP_ID, NAME, SHA256, Fields, parse_json

ACCEPTED = "accepted"
REJECTED = "rejected"


@dataclass(frozen=True)
class Receipt:
    """`manifest_sha256` is None when the manifest of a rejected upload could not be read;
    `accepted_at` is the server's clock (ISO 8601 UTC), None for a rejected one; `reason` is None
    for an accepted one.
    """

    id: str
    set: str
    host: str
    status: str
    reason: str | None
    manifest_sha256: str | None
    accepted_at: str | None


def encode(receipt: Receipt) -> bytes:
    """The bytes of a receipt file."""
    return (json.dumps(vars(receipt), indent=2) + "\n").encode("utf-8")


def decode(raw: bytes, where: str) -> Receipt:
    """Parse a receipt file. Raises ToolError, which names `where`."""
    fields = Fields(parse_json(raw, where), where)
    receipt = Receipt(
        id=fields.text("id", BACKUP_ID),
        set=fields.text("set", NAME),
        host=fields.text("host", NAME),
        status=fields.choice("status", (ACCEPTED, REJECTED)),
        reason=fields.optional_text("reason"),
        manifest_sha256=fields.optional_text("manifest_sha256", SHA256),
        accepted_at=fields.optional_text("accepted_at"),
    )
    fields.done()
    return receipt


def accepted_ids(receipts: dict[str, bytes], set_name: str) -> frozenset[str]:
    """The ids of the accepted receipts of a set among files by id; what is no receipt does not
    count.
    """
    found = set()
    for upload_id, raw in receipts.items():
        try:
            receipt = decode(raw, upload_id)
        except ToolError:
            continue
        if receipt.status == ACCEPTED and receipt.set == set_name and receipt.id == upload_id:
            found.add(upload_id)
    return frozenset(found)


def judge(
    receipt: Receipt, set_name: str, host: str, backup_id: str, manifest_sha256: str
) -> str | None:
    """What is wrong with a receipt for this very backup, None when it confirms it. Pure."""
    if (receipt.id, receipt.set, receipt.host) != (backup_id, set_name, host):
        return (
            f"the receipt is about {receipt.set}/{receipt.id} of {receipt.host}, not about"
            f" {set_name}/{backup_id}"
        )
    if receipt.status == REJECTED:
        return (
            f"the backup server rejected {set_name}/{backup_id}:"
            f" {receipt.reason or 'no reason given'}"
        )
    if receipt.manifest_sha256 != manifest_sha256:
        return (
            f"the backup server accepted another manifest as {set_name}/{backup_id}"
            f" ({receipt.manifest_sha256}, ours is {manifest_sha256}): this backup is not stored"
        )
    return None
