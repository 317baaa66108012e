"""`redis-backup verify`: re-read backups of the store and compare store, catalogue and
manifests.
"""

from __future__ import annotations

from typing import Any

from ..base.errors import ToolError
from ..base.output import Output
from ..config.model import ServerConfig
from ..formats.catalogue import CATALOGUE_NAME
from ..repository import catalogue as catalogue_module
from ..repository import store


def run(config: ServerConfig, target: str | None, output: Output) -> list[dict[str, Any]]:
    """Verify one backup, or all of every set and the catalogues with them (`target` None).

    Returns one result per thing looked at: `what` (`<set>/<id>` or `<set>/catalogue.jsonl`), `ok`,
    `error`. Raises ToolError when nothing can be looked at.
    """
    if target is not None:
        name, backup_id = store.find(config, target)
        return [_backup(config, name, backup_id, output)]
    results: list[dict[str, Any]] = []
    for name in store.set_names(config.store):
        results += _set(config, name, output)
    return results


def _set(config: ServerConfig, name: str, output: Output) -> list[dict[str, Any]]:
    set_dir = config.store / name
    where = f"{name}/{CATALOGUE_NAME}"
    try:
        known = catalogue_module.read(set_dir)
        complaints = list(store.consistency(set_dir, known))
    except (ToolError, OSError) as problem:
        # Without a catalogue that holds, no backup of the set can be vouched for.
        return [_result(where, str(problem), output)]
    results = [_result(where, complaint, output) for complaint in complaints]
    if not complaints:
        results.append(_result(where, None, output))
    there = set(store.backup_ids(set_dir))
    return results + [
        _backup(config, name, backup_id, output)
        for backup_id in known.present()
        if backup_id in there
    ]


def _backup(config: ServerConfig, name: str, backup_id: str, output: Output) -> dict[str, Any]:
    set_dir = config.store / name
    label = f"verify {name}/{backup_id}"
    try:
        known = catalogue_module.read(set_dir)
        store.verify_backup(
            set_dir,
            backup_id,
            known,
            progress=lambda done, total: output.progress(label, done, total),
        )
    except (ToolError, OSError) as problem:
        return _result(f"{name}/{backup_id}", str(problem), output)
    return _result(f"{name}/{backup_id}", None, output)


def _result(what: str, error: str | None, output: Output) -> dict[str, Any]:
    if error is None:
        output.step(f"good: {what}")
    else:
        output.step(f"BAD: {error}")
    return {"what": what, "ok": error is None, "error": error}
