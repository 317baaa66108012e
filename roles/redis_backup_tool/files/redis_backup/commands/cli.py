"""The command line: `redis-backup [--config FILE] [--json] COMMAND`.

Exit 0 done, 1 failed or disproved, 2 usage, 75 a lock is held or it is not this host's turn. Each
command imports what it needs: `inspect` works with the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from ..base.errors import EXIT_DONE, EXIT_FAILED, ToolError, UsageError
from ..base.output import Output, hold_standard_streams, human_bytes
from .parser import parser

if TYPE_CHECKING:
    from ..config.model import Config, DrillConfig, HostConfig, ServerConfig

    Kind = TypeVar("Kind", HostConfig, ServerConfig, DrillConfig)

_WHERE = {
    "HostConfig": "a Redis host",
    "ServerConfig": "the backup server",
    "DrillConfig": "the drill host",
}


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop: nobody may take it for an error of one step and go on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Bad input never ends in a traceback."""
    # What a backup tool writes is nobody else's to read.
    os.umask(0o077)
    hold_standard_streams()
    options = parser().parse_args(arguments)
    output = Output(as_json=options.json)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _COMMANDS[options.command](options, output)
    except ToolError as problem:
        output.error(str(problem), problem.exit_code)
        return problem.exit_code
    except KeyboardInterrupt as interruption:
        # What was begun was cleaned up on the way here.
        output.error(str(interruption) or "stopped", EXIT_FAILED)
        return EXIT_FAILED
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        output.error(f"{where}{problem.strerror or problem}", EXIT_FAILED)
        return EXIT_FAILED
    except MemoryError:
        output.error("out of memory: what was begun was given up; run again", EXIT_FAILED)
        return EXIT_FAILED


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def _load(options: argparse.Namespace, kind: type[Kind]) -> Kind:
    from ..config import reader

    path = reader.find(options.config, kind.KIND)
    loaded = reader.load(path)
    if not isinstance(loaded, kind):
        raise UsageError(
            f"{path} is the configuration of {_WHERE[type(loaded).__name__]}:"
            f" this command works on {_WHERE[kind.__name__]}"
        )
    return loaded


def _create(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import HostConfig
    from ..host import create

    result = create.run(_load(options, HostConfig), output, now=options.now)
    output.document(result)
    return EXIT_DONE


def _turn(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import HostConfig
    from ..host import standing as standing_module

    standing = standing_module.whose_turn(_load(options, HostConfig))
    output.document(standing)
    rank = standing["rank"]
    output.text(
        f"{standing['host']} is a {standing['role']} of set {standing['set']}: "
        + ("not in sync, it has no turn" if rank is None else f"rank {rank}")
    )
    return EXIT_DONE


def _accept(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from ..repository import accept

    outcome = accept.run(_load(options, ServerConfig), output)
    output.document(outcome.to_json())
    return EXIT_FAILED if outcome.problems else EXIT_DONE


def _prune(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from ..repository import prune

    result = prune.run(_load(options, ServerConfig), output, dry_run=options.dry_run)
    output.document(result)
    output.text(prune.render(result))
    return EXIT_FAILED if result["problems"] else EXIT_DONE


def _check(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from . import check

    results = check.run(_load(options, ServerConfig), output)
    good = all(result.ok for result in results)
    output.document({"ok": good, "checks": [result.to_json() for result in results]})
    return EXIT_DONE if good else EXIT_FAILED


def _check_config(_options: argparse.Namespace, output: Output) -> int:
    from ..base.fields import parse_json
    from ..config import model, reader
    from ..drill import assertions

    where = "configuration"
    problem = None
    try:
        found = reader.parse(parse_json(sys.stdin.buffer.read(), where), Path(where))
        if isinstance(found, model.DrillConfig):
            for name, drilled in found.sets.items():
                assertions.parse(list(drilled.assertions), f"set {name}")
    except ToolError as error:
        problem = str(error)
    output.document({"ok": problem is None, "problem": problem})
    output.text(problem or "nothing is wrong with it")
    return EXIT_DONE if problem is None else EXIT_FAILED


def _list(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from . import listing

    backups = listing.collect(_load(options, ServerConfig))
    output.document({"backups": backups})
    output.text(listing.render_list(backups))
    return EXIT_DONE


def _show(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from . import listing

    backup = listing.details(_load(options, ServerConfig), options.id)
    output.document(backup)
    output.text(listing.render_details(backup))
    return EXIT_DONE


def _verify(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from . import verify

    config = _load(options, ServerConfig)
    if options.command == "scrub":
        results = verify.scrub(config, output)
    else:
        results = verify.run(config, options.id, output)
    bad = [result for result in results if not result["ok"]]
    output.document({"ok": not bad, "results": results})
    output.text(
        f"{len(results) - len(bad)} of {len(results)} good" if results else "no backups yet"
    )
    return EXIT_FAILED if bad else EXIT_DONE


def _fetch(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from . import fetch

    result = fetch.run(_load(options, ServerConfig), options.id, Path(options.directory), output)
    output.document(result)
    output.text(f"{result['path']}: of {result['engine']} {result['server_version']}")
    return EXIT_DONE


def _status(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from . import status

    found = status.collect(_load(options, ServerConfig), time.time())
    output.document(found)
    output.text(json.dumps(found, indent=2))
    return EXIT_DONE


def _keep(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from ..repository import marks

    until = marks.keep(_load(options, ServerConfig), options.id, options.days, time.time())
    output.document({"id": options.id, "until": until})
    output.text(f"{options.id}: kept until {until}, whatever the retention policy says")
    return EXIT_DONE


def _acknowledge(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from ..repository import marks

    found = marks.acknowledge(_load(options, ServerConfig), options.id, time.time())
    output.document({"acknowledged": found})
    output.text("\n".join(f"{backup_id}: counts like any other" for backup_id in found))
    return EXIT_DONE


def _reindex(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from ..repository import marks

    known, problems = marks.rebuild(_load(options, ServerConfig), options.set)
    output.document({"lines": len(known.entries), "problems": problems})
    for problem in problems:
        output.warn(problem)
    output.text(f"{options.set}: {len(known.entries)} lines, {len(known.present())} backups")
    return EXIT_FAILED if problems else EXIT_DONE


def _adopt_repository(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import ServerConfig
    from ..repository import identity

    config = _load(options, ServerConfig)
    if options.begin:
        identity.begin(config, time.time())
        found = identity.require(config)
    else:
        found = identity.adopt(config, time.time()).id
    output.document({"repository": found})
    output.text(f"{config.store}: repository {found}")
    return EXIT_DONE


def _inspect(options: argparse.Namespace, output: Output) -> int:
    from ..digest.digester import on_all_cores
    from ..rdb import walker

    path = Path(options.file)
    info = walker.inspect(
        path,
        progress=lambda done, total: output.progress("walk", done, total),
        digester=on_all_cores() if options.digest else None,
    )
    output.document(info.to_json())
    rows = [
        f"{path}: {info.magic} version {info.rdb_version}, {human_bytes(info.size)}, checksum"
        f" {info.crc} is right"
    ]
    rows += [
        f"db{number}:keys={item.keys},expires={item.expires}"
        for number, item in sorted(info.databases.items())
    ]
    if info.functions:
        rows.append(f"functions:{info.functions}")
    if info.digest is not None:
        rows.append(f"digest:{info.digest}")
    rows += [f"{key}:{value}" for key, value in info.aux.items()]
    rows += [f"warning: {warning}" for warning in info.warnings]
    for row in rows:
        output.text("".join(character if character.isprintable() else "?" for character in row))
    return EXIT_DONE


def _drill(options: argparse.Namespace, output: Output) -> int:
    from ..config.model import DrillConfig
    from ..drill import report, run

    outcomes = run.run(_load(options, DrillConfig), options.id, output=output)
    output.document(report.to_json(outcomes))
    output.text(report.render(outcomes))
    return EXIT_DONE if all(outcome.passed for outcome in outcomes) else EXIT_FAILED


def _scheduled(options: argparse.Namespace, output: Output) -> int:
    from . import scheduled

    if not options.words:
        raise UsageError("name the command to run behind the job")
    config = _load_any(options, "drill" if options.job == "drill" else "host")
    return scheduled.run(config, options.job, options.words, output)


def _notify(options: argparse.Namespace, output: Output) -> int:
    from . import scheduled

    return scheduled.unit_failed(_load_any(options, "server"), options.unit, output)


def _load_any(options: argparse.Namespace, kind: str) -> Config:
    """A configuration of whatever kind: the command that is run complains of a wrong one."""
    from ..config import reader

    return reader.load(reader.find(options.config, kind))


_COMMANDS: dict[str, Callable[[argparse.Namespace, Output], int]] = {
    "create": _create,
    "turn": _turn,
    "accept": _accept,
    "prune": _prune,
    "check": _check,
    "check-config": _check_config,
    "list": _list,
    "show": _show,
    "status": _status,
    "verify": _verify,
    "scrub": _verify,
    "fetch": _fetch,
    "keep": _keep,
    "acknowledge": _acknowledge,
    "reindex": _reindex,
    "adopt-repository": _adopt_repository,
    "inspect": _inspect,
    "drill": _drill,
    "scheduled": _scheduled,
    "notify": _notify,
}
