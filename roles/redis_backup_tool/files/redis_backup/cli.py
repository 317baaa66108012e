"""The command line: `redis-backup [--config FILE] [--json] COMMAND`.

Exit 0 done, 1 failed or disproved, 2 usage, 75 a lock is held or it is not this host's turn. Each
command imports what it needs: `inspect` works with the standard library alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from . import __version__
from .errors import EXIT_DONE, EXIT_FAILED, ToolError, UsageError
from .output import Output, human_bytes

if TYPE_CHECKING:
    from .config import DrillConfig, HostConfig, ServerConfig

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
    options = parser().parse_args(arguments)
    output = Output(as_json=options.json)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return int(options.run(options, output))
    except ToolError as problem:
        output.error(str(problem), problem.exit_code)
        return problem.exit_code
    except KeyboardInterrupt as interruption:
        # What was begun was cleaned up on the way here.
        output.error(str(interruption) or "stopped", EXIT_FAILED)
        return EXIT_FAILED
    except BrokenPipeError:
        # Whoever read our output went away; nothing more can be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        output.error(f"{where}{problem.strerror or problem}", EXIT_FAILED)
        return EXIT_FAILED
    except MemoryError:
        output.error("out of memory: what was begun was given up; run again", EXIT_FAILED)
        return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    """The parser of the command line. --config and --json are taken before and after the
    command.
    """
    # Without a default, the parser of the command does not undo what stood before the command.
    after = argparse.ArgumentParser(add_help=False)
    after.add_argument(
        "--config", metavar="FILE", default=argparse.SUPPRESS, help="configuration to use"
    )
    after.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print one JSON document on stdout",
    )
    top = argparse.ArgumentParser(
        prog="redis-backup",
        description="Verified backups of Redis.",
        epilog="Exit: 0 done, 1 failed or disproved, 2 usage, 75 locked or not this host's turn.",
    )
    top.add_argument("--version", action="version", version=f"redis-backup {__version__}")
    top.add_argument(
        "--config",
        metavar="FILE",
        help="configuration (default: the only one in /etc/redis-backup)",
    )
    top.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    create = commands.add_parser(
        "create", parents=[after], help="make one verified backup of the set"
    )
    create.add_argument("--now", action="store_true", help="whoever's turn it is")
    create.set_defaults(run=_create)

    turn = commands.add_parser("turn", parents=[after], help="say when this host would act")
    turn.set_defaults(run=_turn)

    accept = commands.add_parser(
        "accept", parents=[after], help="take checked uploads into the store"
    )
    accept.add_argument(
        "--rebuild", metavar="SET", help="first write the lines that the set's catalogue lost"
    )
    accept.set_defaults(run=_accept)

    prune = commands.add_parser(
        "prune", parents=[after], help="delete what the retention policy does not keep"
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    prune.set_defaults(run=_prune)

    check = commands.add_parser(
        "check", parents=[after], help="is there a fresh and proven backup? (for monitoring)"
    )
    check.set_defaults(run=_check)

    check_config = commands.add_parser(
        "check-config",
        parents=[after],
        help="read a configuration from standard input and show what is wrong with it",
    )
    check_config.set_defaults(run=_check_config)

    listing = commands.add_parser("list", parents=[after], help="list the backups in the store")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", parents=[after], help="show one backup")
    show.add_argument("id", metavar="ID", help="<id> or <set>/<id>")
    show.set_defaults(run=_show)

    verify = commands.add_parser("verify", parents=[after], help="re-read backups in the store")
    which = verify.add_mutually_exclusive_group()
    which.add_argument("id", metavar="ID", nargs="?", help="<id> or <set>/<id> (default: all)")
    which.add_argument(
        "--all", action="store_true", help="every backup of every set, and the catalogues"
    )
    verify.add_argument(
        "--digest", action="store_true", help="read every value too and compare their digest"
    )
    verify.set_defaults(run=_verify)

    inspect = commands.add_parser("inspect", parents=[after], help="walk one RDB file")
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument(
        "--digest", action="store_true", help="read every value too and print their digest"
    )
    inspect.set_defaults(run=_inspect)

    drill = commands.add_parser(
        "drill", parents=[after], help="restore a backup in a sandbox and compare"
    )
    drill.add_argument(
        "id", metavar="ID", nargs="?", help="<id> or <set>/<id> (default: the newest of every set)"
    )
    drill.set_defaults(run=_drill)
    return top


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def _load(options: argparse.Namespace, kind: type[Kind]) -> Kind:
    from . import config

    path = config.find(options.config, kind.KIND)
    loaded = config.load(path)
    if not isinstance(loaded, kind):
        raise UsageError(
            f"{path} is the configuration of {_WHERE[type(loaded).__name__]}:"
            f" this command works on {_WHERE[kind.__name__]}"
        )
    return loaded


def _create_module() -> ModuleType:
    try:
        from . import create
    except ModuleNotFoundError as problem:
        raise ToolError(
            f"the Python module {problem.name} is missing: apt-get install python3-redis"
        ) from None
    return create


def _create(options: argparse.Namespace, output: Output) -> int:
    from .config import HostConfig

    config = _load(options, HostConfig)
    result = _create_module().run(config, output, now=options.now)
    output.document(result)
    return EXIT_DONE


def _turn(options: argparse.Namespace, output: Output) -> int:
    from .config import HostConfig

    standing = _create_module().whose_turn(_load(options, HostConfig))
    output.document(standing)
    rank = standing["rank"]
    output.text(
        f"{standing['host']} is a {standing['role']} of set {standing['set']}: "
        + ("not in sync, it has no turn" if rank is None else f"rank {rank}")
    )
    return EXIT_DONE


def _accept(options: argparse.Namespace, output: Output) -> int:
    from . import accept
    from .config import ServerConfig

    outcome = accept.run(_load(options, ServerConfig), output, rebuild=options.rebuild)
    output.document(outcome.to_json())
    return EXIT_FAILED if outcome.problems else EXIT_DONE


def _prune(options: argparse.Namespace, output: Output) -> int:
    from . import prune
    from .config import ServerConfig

    result = prune.run(_load(options, ServerConfig), output, dry_run=options.dry_run)
    output.document(result)
    output.text(prune.render(result))
    return EXIT_FAILED if result["problems"] else EXIT_DONE


def _check(options: argparse.Namespace, output: Output) -> int:
    from . import check
    from .config import ServerConfig

    results = check.run(_load(options, ServerConfig), output)
    good = all(result.ok for result in results)
    output.document({"ok": good, "checks": [result.to_json() for result in results]})
    return EXIT_DONE if good else EXIT_FAILED


def _check_config(_options: argparse.Namespace, output: Output) -> int:
    from . import assertions, config
    from .fields import parse_json

    where = "configuration"
    problem = None
    try:
        found = config.parse(parse_json(sys.stdin.buffer.read(), where), Path(where))
        if isinstance(found, config.DrillConfig):
            for name, drilled in found.sets.items():
                assertions.parse(list(drilled.assertions), f"set {name}")
    except ToolError as error:
        problem = str(error)
    output.document({"ok": problem is None, "problem": problem})
    output.text(problem or "nothing is wrong with it")
    return EXIT_DONE if problem is None else EXIT_FAILED


def _list(options: argparse.Namespace, output: Output) -> int:
    from . import listing
    from .config import ServerConfig

    backups = listing.collect(_load(options, ServerConfig))
    output.document({"backups": backups})
    output.text(listing.render_list(backups))
    return EXIT_DONE


def _show(options: argparse.Namespace, output: Output) -> int:
    from . import listing
    from .config import ServerConfig

    backup = listing.details(_load(options, ServerConfig), options.id)
    output.document(backup)
    output.text(listing.render_details(backup))
    return EXIT_DONE


def _verify(options: argparse.Namespace, output: Output) -> int:
    from . import audit
    from .config import ServerConfig

    config = _load(options, ServerConfig)
    results = audit.run(config, options.id, output, digest=options.digest)
    bad = [result for result in results if not result["ok"]]
    output.document({"ok": not bad, "results": results})
    output.text(
        f"{len(results) - len(bad)} of {len(results)} good" if results else "no backups yet"
    )
    return EXIT_FAILED if bad else EXIT_DONE


def _inspect(options: argparse.Namespace, output: Output) -> int:
    from . import rdb

    path = Path(options.file)
    info = rdb.inspect(
        path,
        progress=lambda done, total: output.progress("walk", done, total),
        digest=options.digest,
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
    for row in rows:
        output.text("".join(character if character.isprintable() else "?" for character in row))
    return EXIT_DONE


def _drill(options: argparse.Namespace, output: Output) -> int:
    from .config import DrillConfig

    config = _load(options, DrillConfig)
    from . import drill

    outcomes: Any = drill.run(config, options.id, output=output)
    output.document(drill.to_json(outcomes))
    output.text(drill.render(outcomes))
    return EXIT_DONE if all(outcome.passed for outcome in outcomes) else EXIT_FAILED
