"""The report of a drill: the words in it, and reading one that another host sent."""

from __future__ import annotations

import re
from typing import Any

from ..base.errors import ToolError
from ..base.fields import BACKUP_ID, NAME, SHA256
from . import document
from .identity import REPOSITORY_ID

REPORT_NAME = "report.json"
#: Counts of 10,000 databases fit in.
MAX_REPORT_BYTES = 1024 * 1024
#: What a drill proves, in rising order.
LEVELS = ("none", "bytes", "form", "counts", "load", "values")
PASSED = "passed"
FAILED = "failed"

_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")


def decode(raw: bytes, where: str, error: type[ToolError] = ToolError) -> dict[str, Any]:
    """The report of a drill, as far as the catalogue and `list` rely on it: `set`, `backup_id`,
    `manifest_sha256` and `repository` (None where the drill did not come that far), `level`,
    `verdict`, and all else as it was sent. Raises `error`, which names `where`.
    """
    fields = document.opened(raw, where, error)
    report = fields.everything()
    report["set"] = fields.text("set", NAME)
    report["backup_id"] = fields.optional_text("backup_id", BACKUP_ID)
    report["manifest_sha256"] = fields.optional_text("manifest_sha256", SHA256)
    report["repository"] = fields.optional_text("repository", REPOSITORY_ID)
    for key in ("level", "verdict"):
        report[key] = fields.text(key, _WORD)
    return report
