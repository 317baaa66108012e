"""The arguments of every command, and its help: what it does, where it runs, how it ends."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from .. import __version__

_REDIS_HOST = "a Redis host, as the user of the Redis server (redis or valkey)"
_BACKUP_SERVER = "the backup server, as the user redis-backup"
_DRILL_HOST = "the drill host, as the user redis-backup"
_ANY_HOST = "any host, as any user that may read the file; it needs no configuration"
_ANY_MACHINE = "any host, as any user"
_USAGE = "the command line or the configuration cannot be used"


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; `command` names the one to run. --config and --json are taken
    before and after it.
    """
    top = argparse.ArgumentParser(
        prog="redis-backup",
        description="Verified backups of Redis.",
        epilog="Exit codes: 0 done, 1 failed or disproved, 2 usage, 75 locked or not this host's"
        " turn. `redis-backup COMMAND --help` shows where a command runs.",
    )
    top.add_argument("--version", action="version", version=f"redis-backup {__version__}")
    top.add_argument(
        "--config",
        metavar="FILE",
        help="configuration (default: the only one in /etc/redis-backup)",
    )
    top.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    commands = top.add_subparsers(metavar="COMMAND", dest="command", required=True)

    create = _command(
        commands,
        "create",
        "make one verified backup of the set",
        "Makes a snapshot of this host's Redis, walks it, compresses it, sends it to the backup\n"
        "server and waits for the receipt. Without --now only when it is this host's turn.",
        _REDIS_HOST,
        {
            0: "the backup server has accepted the backup",
            1: "there is no confirmed backup",
            2: _USAGE,
            75: "another host's backup was accepted, or another run is at work here",
        },
    )
    create.add_argument(
        "--now",
        action="store_true",
        help="make a backup now, even when it is another host's turn",
    )

    _command(
        commands,
        "turn",
        "show this host's place in the backup order",
        "Shows this host's role and rank: rank 0 makes the backup, the others wait for it.\n"
        "Changes nothing.",
        _REDIS_HOST,
        {0: "shown", 1: "this host could make no good backup now", 2: _USAGE},
    )

    _command(
        commands,
        "accept",
        "take checked uploads into the repository",
        "Copies every complete upload out of the inboxes, verifies the copy and accepts it into\n"
        "the repository, or rejects it; the host gets a receipt of either. Starts at the end of\n"
        "a transfer and by a timer.",
        _BACKUP_SERVER,
        {
            0: "done; a rejected upload is its host's failure",
            1: "something is wrong on this server, or with a host that sends too much",
            2: _USAGE,
            75: "another run is at work",
        },
    )

    prune = _command(
        commands,
        "prune",
        "delete what the retention policy does not keep",
        "Applies the retention policy to every set. Waits for a run of `accept` to end.",
        _BACKUP_SERVER,
        {
            0: "the policy was applied",
            1: "nothing was deleted of a set that is damaged, or the repository stayed locked",
            2: _USAGE,
        },
    )
    prune.add_argument("--dry-run", action="store_true", help="only show what would be deleted")

    _command(
        commands,
        "check",
        "is there a fresh and proven backup? (for monitoring)",
        "Checks for every set that the catalogue is whole, that the newest backup is fresh and\n"
        "that the last drill passed; and that there is room. One line per check.",
        _BACKUP_SERVER,
        {0: "every check is ok", 1: "a check failed", 2: _USAGE},
    )

    _command(
        commands,
        "check-config",
        "show what is wrong with a configuration",
        "Reads a configuration from standard input as the other commands read theirs. Ansible\n"
        "runs this on its own machine before it deploys a configuration.",
        _ANY_MACHINE,
        {0: "nothing is wrong with it", 1: "something is", 2: "the command line cannot be used"},
    )

    _command(
        commands,
        "list",
        "list the backups in the repository",
        "Lists the backups of every set, the one with the latest data first.",
        _BACKUP_SERVER,
        {0: "listed", 1: "the repository cannot be read", 2: _USAGE},
    )

    show = _command(
        commands,
        "show",
        "show one backup",
        "Shows one backup: its manifest, and what its drills measured.",
        _BACKUP_SERVER,
        {0: "shown", 1: "there is no such backup", 2: _USAGE},
    )
    show.add_argument("id", metavar="ID", help="<id> or <set>/<id>")

    _command(
        commands,
        "status",
        "show the numbers that `check` decides from",
        "Shows the state of the repository as JSON: ages, limits, sizes, what is bad, marked or\n"
        "deferred. For monitoring that decides by itself.",
        _BACKUP_SERVER,
        {0: "shown", 1: "the repository cannot be read", 2: _USAGE},
    )

    verify = _command(
        commands,
        "verify",
        "read backups in the repository again",
        "Reads backups from their first byte to their last and compares them with their\n"
        "manifests and with the catalogue. A verdict that is another than before is written down:\n"
        "retention and `check` go by it. Needs no Redis.",
        _BACKUP_SERVER,
        {0: "all of them are good", 1: "one is not, or the repository cannot be read", 2: _USAGE},
    )
    which = verify.add_mutually_exclusive_group()
    which.add_argument("id", metavar="ID", nargs="?", help="<id> or <set>/<id> (default: all)")
    which.add_argument(
        "--all", action="store_true", help="every backup of every set, and the catalogues"
    )

    _command(
        commands,
        "scrub",
        "compare the stored bytes of every backup with their sha256",
        "Reads what is stored, to find what a disk has changed. Runs by a timer every week. What\n"
        "is not good is read a second time before it counts as bad, and a later good reading\n"
        "withdraws that.",
        _BACKUP_SERVER,
        {0: "all of them are good", 1: "one is not, or the repository cannot be read", 2: _USAGE},
    )

    fetch = _command(
        commands,
        "fetch",
        "write a backup as a plain RDB file",
        "Reads a backup to its end, compares it with its manifest and writes DIR/ID.rdb.",
        _BACKUP_SERVER,
        {0: "the file is there", 1: "the backup is not good, or there is no room", 2: _USAGE},
    )
    fetch.add_argument("id", metavar="ID", help="<id> or <set>/<id>")
    fetch.add_argument("directory", metavar="DIR", help="where to write it")

    keep = _command(
        commands,
        "keep",
        "keep a backup for some days, whatever the retention policy says",
        "Marks a backup. The mark runs from now; --days 0 takes it away.",
        _BACKUP_SERVER,
        {0: "marked", 1: "there is no such backup", 2: _USAGE},
    )
    keep.add_argument("id", metavar="ID", help="<id> or <set>/<id>")
    keep.add_argument("--days", metavar="N", type=int, required=True, help="days from now")

    acknowledge = _command(
        commands,
        "acknowledge",
        "let a backup count that is much smaller than the one before",
        "A backup with far fewer keys or bytes than the newest before is marked: it counts for\n"
        "nothing, and `check` fails. When the data were meant to go, this takes the mark away.",
        _BACKUP_SERVER,
        {0: "it counts", 1: "there is no such backup, or it is not marked", 2: _USAGE},
    )
    acknowledge.add_argument("id", metavar="ID", help="<id> or <set>/<id>")

    reindex = _command(
        commands,
        "reindex",
        "write the catalogue of a set again",
        "Writes it from the receipts and reports that lie beside the backups, when it is damaged.",
        _BACKUP_SERVER,
        {0: "written", 1: "some of them cannot be read: they have no line now", 2: _USAGE},
    )
    reindex.add_argument("set", metavar="SET")

    adopt = _command(
        commands,
        "adopt-repository",
        "take the store as it is for the repository of this backup server",
        "The server remembers which repository is its own, so that a store whose file system is\n"
        "not mounted is not taken for a new one. This is for a store that was replaced on\n"
        "purpose. Deploy the hosts again afterwards: they remember it too.",
        _BACKUP_SERVER,
        {0: "adopted", 1: "it cannot be written", 2: _USAGE},
    )
    adopt.add_argument(
        "--begin",
        action="store_true",
        help="only where neither the store nor the server has an identity yet",
    )

    inspect = _command(
        commands,
        "inspect",
        "walk one RDB file",
        "Reads an RDB file from its first byte to its last and shows what it holds. Needs Python\n"
        "alone.",
        _ANY_HOST,
        {0: "the file is well-formed", 1: "it is not, or cannot be read", 2: _USAGE},
    )
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument(
        "--digest", action="store_true", help="read every value too and print their digest"
    )

    drill = _command(
        commands,
        "drill",
        "restore a backup in a sandbox and compare",
        "Fetches a backup from the backup server, restores it in a sandboxed Redis, compares it\n"
        "and sends the report to the backup server.",
        _DRILL_HOST,
        {
            0: "every drill passed, and the backup server has the reports",
            1: "a drill failed, or its report did not arrive",
            2: _USAGE,
        },
    )
    drill.add_argument(
        "id", metavar="ID", nargs="?", help="<id> or <set>/<id> (default: the newest of every set)"
    )

    scheduled = _command(
        commands,
        "scheduled",
        "run a job by cron, and tell a person when it fails",
        "Runs a command of this program, as cron does. When that fails, however it ends, the\n"
        "command of the user's that is named in the configuration (redis_backup_notify_command)\n"
        "gets the failure on its standard input. One that fails or hangs changes nothing but the\n"
        "journal.",
        "a Redis host, as the user of the Redis server (redis or valkey), or the drill host, as"
        " the user redis-backup",
        {
            0: "the job is done",
            1: "the job failed; any other code is the job's too",
            2: _USAGE,
        },
    )
    scheduled.add_argument("job", choices=("create", "drill"), help="what the job is called")
    scheduled.add_argument(
        "words", metavar="COMMAND", nargs=argparse.REMAINDER, help="the command with its arguments"
    )

    notify = _command(
        commands,
        "notify",
        "tell a person that a unit of systemd failed",
        "Hands the end of the unit's journal to the command of the user's that is named in the\n"
        "configuration (redis_backup_notify_command). Of one unit once in 20 hours.",
        _BACKUP_SERVER,
        {0: "told, or nobody is to be told", 1: "that command failed or hung", 2: _USAGE},
    )
    notify.add_argument("unit", metavar="UNIT", help="name of the unit without .service")
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
    where: str,
    codes: Mapping[int, str],
) -> argparse.ArgumentParser:
    """A command with its help."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{description}\n\nRuns on {where}.",
        epilog="Exit codes:\n" + "\n".join(f"  {code:>2}  {codes[code]}" for code in sorted(codes)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Without a default, the parser of the command does not undo what stood before the command.
    command.add_argument(
        "--config", metavar="FILE", default=argparse.SUPPRESS, help="configuration to use"
    )
    command.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print one JSON document on stdout",
    )
    return command
