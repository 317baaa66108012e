"""What a drill has found out: its report, kept here, sent to the backup server, told to people."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..base import files
from ..base.errors import ToolError
from ..base.fields import is_backup_id
from ..base.output import Output, printable
from ..base.times import timestamp
from ..config.model import DrillConfig
from ..formats import document, receipts
from ..formats import manifest as manifests
from ..formats.manifest import Counts, Manifest
from ..formats.report import FAILED, LEVELS, PASSED, REPORT_NAME
from ..sandbox.confinement import SANDBOX_ENFORCED
from ..transport import rsync

KEPT_REPORTS = 30
# Writing a report takes moments. Seconds.
_ABANDONED = 3600.0


@dataclass
class Record:
    """What a drill has found out so far; a report can be made of it at any moment."""

    set: str
    backup_id: str | None
    repository: str | None = None
    manifest_sha256: str | None = None
    warnings: tuple[str, ...] = ()
    started: float = field(default_factory=time.time)
    manifest: Manifest | None = None
    level: str = "none"
    freshness: str = "unknown"
    restored: dict[int, Counts] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    sandbox: str | None = None
    details: dict[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class Outcome:
    """One drill: its report, and whether the backup server has it."""

    drill_id: str
    report: dict[str, Any]
    details: dict[str, str]
    uploaded: bool

    @property
    def passed(self) -> bool:
        """Everything proven, and the backup server was told."""
        return bool(self.report["verdict"] == PASSED) and self.uploaded


def sentence(problem: Exception) -> str:
    """One line without a traceback."""
    if isinstance(problem, OSError):
        where = f"{problem.filename}: " if problem.filename else ""
        return f"{where}{problem.strerror or problem}"
    text = " ".join(str(problem).split())
    # What nobody thought of says more with its type.
    return text if isinstance(problem, ToolError) else f"{type(problem).__name__}: {text}"[:500]


def report(record: Record, drill_id: str, host: str, finished: float) -> dict[str, Any]:
    """The report as JSON data: times ISO 8601 UTC, durations seconds.

    `reason` is there when the drill failed, and only then.
    """
    manifest, restored = record.manifest, record.restored
    age = None if manifest is None else record.started - manifest.fork_time
    seconds = {name: round(spent, 3) for name, spent in record.seconds.items()}
    data = {
        "id": drill_id,
        "host": host,
        "repository": record.repository,
        "set": record.set,
        "backup_id": record.backup_id,
        "manifest_sha256": record.manifest_sha256,
        "verdict": PASSED if record.reason is None else FAILED,
        "level": record.level,
        "freshness": record.freshness,
        "engine": manifest.engine if manifest else None,
        "server_version": manifest.server_version if manifest else None,
        "databases": {
            "backup": manifests.databases_to_json(manifest.databases) if manifest else None,
            "restored": None if restored is None else manifests.databases_to_json(restored),
        },
        "rpo_seconds": None if age is None else round(age, 3),
        "rto_seconds": {name: seconds.get(name) for name in ("fetch", "verify", "load", "ready")},
        "assertions": record.results,
        "warnings": list(record.warnings),
        "sandbox": record.sandbox,
        "started": timestamp(record.started),
        "finished": timestamp(finished),
        "tool_version": __version__,
    }
    if record.reason is not None:
        # It quotes the server's log, and that the data.
        data["reason"] = printable(record.reason)
    return data


def conclude(config: DrillConfig, record: Record, output: Output) -> Outcome:
    """Write the report, keep it, send it and wait for its receipt; a disk that is full here must
    not keep it from there.
    """
    finished = time.time()
    details = dict(record.details)
    drill_id = manifests.make_id(record.started, config.host)
    data = report(record, drill_id, config.host, finished)
    try:
        with contextlib.ExitStack() as held:
            parent = config.work / "reports"
            try:
                drill_id = _reserve(parent, record.started, config.host)
                data = report(record, drill_id, config.host, finished)
                raw = _keep(parent, drill_id, data)
            except OSError as problem:
                details["kept"] = f"the report cannot be kept here: {sentence(problem)}"
                elsewhere = tempfile.TemporaryDirectory(prefix="redis-backup-drill-")
                parent = Path(held.enter_context(elsewhere))
                (parent / drill_id).mkdir(mode=0o700)
                raw = _keep(parent, drill_id, data)
            rsync.upload(config.transport, parent, drill_id, [REPORT_NAME], notify=output.step)
            _confirm(config, parent / drill_id, record.set, manifests.sha256(raw))
    except (ToolError, OSError) as problem:
        details["upload"] = f"the report is not on the backup server: {sentence(problem)}"
    uploaded = "upload" not in details
    return Outcome(drill_id=drill_id, report=data, details=details, uploaded=uploaded)


def _confirm(config: DrillConfig, directory: Path, set_name: str, sha256: str) -> None:
    """Wait for the receipt of this very report. Raises ToolError when it does not come or says
    no.
    """
    drill_id, trouble = directory.name, ""
    for raw, unasked in rsync.polled(
        lambda: rsync.fetch_report_receipt(config.transport, drill_id, directory),
        config.receipt_timeout,
    ):
        trouble = unasked
        if raw is not None:
            receipt = receipts.decode(raw, f"receipt {drill_id}.json")
            if receipt.status == receipts.REJECTED:
                raise ToolError(f"the backup server rejected it: {receipt.reason}")
            complaint = receipts.judge(
                receipt, set_name, config.host, drill_id, sha256, config.repository
            )
            if complaint is not None:
                raise ToolError(complaint)
            return
    raise ToolError(
        f"sent, not confirmed: no receipt within {config.receipt_timeout:g} s{trouble};"
        " `journalctl -u redis-backup-accept` on the backup server says why"
    )


def _reserve(parent: Path, started: float, host: str) -> str:
    """Make `<parent>/<drill id>/`; the id is one not taken yet."""
    parent.mkdir(mode=0o700, exist_ok=True)
    moment = started
    while True:
        drill_id = manifests.make_id(moment, host)
        try:
            (parent / drill_id).mkdir(mode=0o700)
            return drill_id
        except FileExistsError:
            # Ids count seconds, and two sets may be drilled in one.
            moment += 1


def _keep(parent: Path, drill_id: str, data: Mapping[str, Any]) -> bytes:
    """Write `<parent>/<drill id>/report.json`, whole or not at all, and forget old ones. Returns
    its bytes.
    """
    raw = document.encode(data)
    files.write_durably(parent / drill_id / REPORT_NAME, raw)
    kept = sorted(path for path in parent.iterdir() if is_backup_id(path.name))
    for path in [*kept[:-KEPT_REPORTS], *filter(_abandoned, kept)]:
        shutil.rmtree(path, ignore_errors=True)
    return raw


def _abandoned(directory: Path) -> bool:
    """Whether this is what a drill left that was killed before its report was whole."""
    try:
        age = time.time() - directory.stat().st_mtime
    except FileNotFoundError:
        return False
    return age > _ABANDONED and not (directory / REPORT_NAME).exists()


def to_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What `--json` prints; `text` is the verdict for people, line by line."""
    return {
        "drills": [
            {
                "drill_id": outcome.drill_id,
                "passed": outcome.passed,
                "uploaded": outcome.uploaded,
                "report": outcome.report,
                "text": _lines(outcome),
            }
            for outcome in outcomes
        ]
    }


def render(outcomes: Sequence[Outcome]) -> str:
    """The verdicts as text, one block per drill."""
    return "\n".join(line for outcome in outcomes for line in _lines(outcome))


def _lines(outcome: Outcome) -> list[str]:
    data = outcome.report
    proven = ", ".join(LEVELS[1 : LEVELS.index(data["level"]) + 1]) or "nothing"
    asked = data["assertions"]
    holding = sum(1 for result in asked if result["passed"])
    spent = [
        f"{phase} {seconds:.2f} s"
        for phase, seconds in data["rto_seconds"].items()
        if seconds is not None
    ]
    rows = [
        ("reason", data.get("reason")),
        ("level", f"{data['level']} (proven: {proven})"),
        ("values", outcome.details.get("values")),
        *((f"db{number}", _database(data, number)) for number in _databases(data)),
        ("assertions", f"{holding} of {len(asked)} hold" if asked else None),
        ("freshness", data["freshness"]),
        ("sandbox", _sandbox(data["sandbox"], outcome.details)),
        ("RPO", None if data["rpo_seconds"] is None else f"{data['rpo_seconds']:.0f} s"),
        ("RTO", ", ".join(spent)),
        *(("warning", warning) for warning in data["warnings"]),
        ("warning", outcome.details.get("kept")),
        ("warning", outcome.details.get("upload")),
    ]
    title = f"{data['verdict'].upper()}  {data['set']}/{data['backup_id'] or '(no backup)'}"
    return [
        f"{title}  (drill {outcome.drill_id})",
        *(f"  {name:<12}{value}" for name, value in rows if value),
    ]


def _sandbox(state: str | None, details: Mapping[str, str]) -> str | None:
    if state == SANDBOX_ENFORCED and "sandbox" in details:
        return f"{state} ({details['sandbox']})"
    return state


def _databases(data: Mapping[str, Any]) -> list[str]:
    both = data["databases"]
    return sorted({*(both["backup"] or {}), *(both["restored"] or {})}, key=int)


def _database(data: Mapping[str, Any], number: str) -> str:
    def words(side: Mapping[str, Mapping[str, int]] | None) -> str:
        if side is None:
            return "unknown"
        counts = side.get(number, {"keys": 0, "expires": 0})
        return f"{counts['keys']} keys, {counts['expires']} expires"

    both = data["databases"]
    return f"backup {words(both['backup'])}; restored {words(both['restored'])}"
