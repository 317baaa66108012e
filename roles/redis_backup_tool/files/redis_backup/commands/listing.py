"""`redis-backup list` and `show`: what is in the store, from the catalogue and the manifests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.errors import ToolError
from ..base.fields import MAX_INTEGER, whole_number
from ..base.output import human_bytes, table
from ..base.times import parse_timestamp, timestamp
from ..config.model import ServerConfig
from ..formats import manifest as manifest_module
from ..formats.catalogue import Catalogue, Entry
from ..formats.manifest import Manifest
from ..formats.receipts import RECEIPT_NAME
from ..repository import catalogue as catalogue_module
from ..repository import reread, store


def collect(config: ServerConfig) -> list[dict[str, Any]]:
    """Every backup that must be in the store, by set, the one with the latest data first. Raises
    ToolError when the store cannot be read.

    A manifest that is missing or wrong is told in `error`: `verify` says more.
    """
    backups = []
    for name in store.set_names(config.store):
        set_dir = config.store / name
        known = catalogue_module.read(set_dir)
        by_moment = sorted(known.present().values(), key=lambda entry: (entry.moment, entry.n))
        backups += [_summary(set_dir, known, entry) for entry in reversed(by_moment)]
    return backups


def details(config: ServerConfig, target: str) -> dict[str, Any]:
    """One backup: its manifest, what the catalogue says of it, and the reports of its drills.
    Raises ToolError.
    """
    name, backup_id = store.find(config, target)
    set_dir = config.store / name
    known = catalogue_module.read(set_dir)
    entry = known.accepted().get(backup_id)
    if entry is None:
        raise ToolError(
            f"{name}/{backup_id}: is in the store but has no line in the catalogue: it was not"
            " accepted"
        )
    result = _summary(set_dir, known, entry)
    result["pruned"] = backup_id in known.pruned()
    if "error" not in result:
        manifest, _ = reread.read_manifest(set_dir / backup_id, name, backup_id)
        result["manifest"] = manifest_module.to_json(manifest)
    result["warnings"] = _warnings(set_dir, backup_id)
    result["drills"] = [
        {
            "drill_id": drill.drill_id,
            "at": drill.at,
            "host": drill.host,
            "level": drill.level,
            "verdict": drill.verdict,
            "report": _report(set_dir, str(drill.drill_id)),
        }
        for drill in known.drills(backup_id)
    ]
    return result


def _warnings(set_dir: Path, backup_id: str) -> list[str]:
    """What was noticed in it when it was accepted; `verify` complains of a receipt that is gone."""
    path = set_dir / backup_id / RECEIPT_NAME
    try:
        return list(store.read_receipt(path, f"{set_dir.name}/{backup_id}/{RECEIPT_NAME}").warnings)
    except ToolError:
        return []


def _forked(fork_time: int, accepted_at: str) -> str:
    """When the snapshot was taken, and how long it took from there into the store: by two hosts'
    clocks, so only said when it makes sense.
    """
    text = timestamp(fork_time)
    seconds = parse_timestamp(accepted_at) - fork_time
    return f"{text}, in the store {seconds} s later" if seconds >= 0 else text


def _report(set_dir: Path, drill_id: str) -> dict[str, Any] | None:
    """The report of a drill as its host sent it; None when it is gone or cannot be read."""
    try:
        return store.read_drill(set_dir, drill_id)
    except ToolError:
        return None


def render_list(backups: list[dict[str, Any]]) -> str:
    """The list for a person."""
    if not backups:
        return "no backups yet"
    rows = [["BACKUP", "ACCEPTED", "STORED", "KEYS", "LAST DRILL"]]
    for item in backups:
        if "error" in item:
            rows.append(
                [f"{item['set']}/{item['id']}", item["accepted_at"], "-", "-", item["error"]]
            )
            continue
        keys = sum(counts["keys"] for counts in item["databases"].values())
        rows.append(
            [
                f"{item['set']}/{item['id']}",
                item["accepted_at"],
                human_bytes(item["stored_size"]),
                str(keys),
                "; ".join([_drilled(item), *(mark.partition(" (")[0] for mark in item["marks"])]),
            ]
        )
    return table(rows)


def render_details(item: dict[str, Any]) -> str:
    """One backup for a person."""
    rows = [["backup", f"{item['set']}/{item['id']}"], ["accepted", item["accepted_at"]]]
    rows += [["mark", mark] for mark in item["marks"]]
    if item["pruned"]:
        rows.append(["pruned", "yes: only the catalogue still knows it"])
    if "error" in item:
        rows.append(["error", item["error"]])
    manifest = item.get("manifest")
    if manifest is not None:
        rows += [
            ["host", manifest["host"]],
            ["server", f"{manifest['engine']} {manifest['server_version']}"],
            ["format", f"{manifest['rdb']['magic']} version {manifest['rdb']['version']}"],
            ["forked", _forked(manifest["fork_time"], item["accepted_at"])],
            [
                "position",
                f"{manifest['repl_id'] or '-'} {manifest['repl_offset'] or '-'}"
                f" ({item['freshness']})",
            ],
            ["size", f"{human_bytes(item['size'])}, stored {human_bytes(item['stored_size'])}"],
            ["sha256", manifest["files"][0]["sha256"]],
            ["manifest", item["manifest_sha256"]],
        ]
        rows += [
            [f"db{number}", f"keys={counts['keys']},expires={counts['expires']}"]
            for number, counts in item["databases"].items()
        ]
    rows += [["warning", warning] for warning in item["warnings"]]
    rows += [
        [
            "drill",
            f"{drill['verdict']} at {drill['at']}, level {drill['level']}, by {drill['host']}"
            f" ({drill['drill_id']})",
        ]
        for drill in item["drills"]
    ]
    if item["drills"]:
        rows += _measured(item["drills"][-1]["report"] or {})
    else:
        rows.append(["drill", "none yet"])
    return table(rows)


def _measured(report: Mapping[str, Any]) -> list[list[str]]:
    """What the newest drill restored and how long it took. Only numbers that can be are taken from
    a report: it was written elsewhere.
    """
    rows = []
    restored = _mapping(_mapping(report.get("databases")).get("restored"))
    for number, counts in restored.items():
        keys, expires = (_mapping(counts).get(name) for name in ("keys", "expires"))
        if whole_number(number) is not None and _is_count(keys) and _is_count(expires):
            rows.append([f"restored db{number}", f"keys={keys},expires={expires}"])
    age = report.get("rpo_seconds")
    if _is_duration(age):
        rows.append(["RPO", f"{age:.0f} s from the snapshot to the drill"])
    spent = [
        f"{phase} {seconds:.2f} s"
        for phase, seconds in _mapping(report.get("rto_seconds")).items()
        if phase.isidentifier() and _is_duration(seconds)
    ]
    return [*rows, *([["RTO", ", ".join(spent)]] if spent else [])]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= MAX_INTEGER


def _is_duration(value: object) -> bool:
    """Seconds that can be written as a number: no infinity, and no integer beyond any float."""
    return isinstance(value, (int, float)) and -MAX_INTEGER <= value <= MAX_INTEGER


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _summary(set_dir: Path, known: Catalogue, entry: Entry) -> dict[str, Any]:
    drills = known.drills(entry.id)
    result: dict[str, Any] = {
        "set": entry.set,
        "id": entry.id,
        "host": entry.host,
        "kind": entry.kind,
        "accepted_at": entry.at,
        "manifest_sha256": entry.manifest_sha256,
        "marks": _marks(known, entry),
        "last_drill": (
            None
            if not drills
            else {"at": drills[-1].at, "verdict": drills[-1].verdict, "level": drills[-1].level}
        ),
    }
    try:
        manifest, digest = reread.read_manifest(set_dir / entry.id, entry.set, entry.id)
    except ToolError as problem:
        return {**result, "error": str(problem)}
    if digest != entry.manifest_sha256:
        return {
            **result,
            "error": f"{entry.set}/{entry.id}/{manifest_module.MANIFEST_NAME}: is not what was"
            " accepted",
        }
    return {**result, **_content(manifest)}


def _marks(known: Catalogue, entry: Entry) -> list[str]:
    """What makes it another than the others, in words."""
    marks = []
    verdict = known.verdict(entry.id)
    if verdict is not None and not verdict.ok:
        marks.append(f"damaged ({verdict.reason})")
    before = known.shrunk().get(entry.id)
    if before is not None:
        marks.append(f"much smaller than {before}")
    until = known.kept_until(entry.id)
    if until is not None:
        marks.append(f"kept until {timestamp(until)}")
    if entry.kind != "nightly":
        marks.append(str(entry.kind))
    return marks


def _content(manifest: Manifest) -> dict[str, Any]:
    return {
        "engine": manifest.engine,
        "server_version": manifest.server_version,
        "fork_time": manifest.fork_time,
        "freshness": manifest.freshness,
        "size": manifest.payload.size,
        "stored_size": manifest.payload.stored_size,
        "databases": manifest_module.databases_to_json(manifest.databases),
    }


def _drilled(item: dict[str, Any]) -> str:
    drill = item["last_drill"]
    return "none yet" if drill is None else f"{drill['verdict']} ({drill['level']}) {drill['at']}"
