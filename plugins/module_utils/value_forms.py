"""What a variable of the roles may be beyond the type in its argument specification.

A table: the variable, or a part of one (`redis_acl_users[].name`), and its form. Whole numbers have
their bounds here.

What the program redis-backup demands of its configuration stands here too, so that a refusal can
name the variable: tests/unit/test_value_forms.py holds the two together.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils import (
    calendar_event,
    cron_schedule,
    save_points,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_directives import (
    BOOLEANS,
    MEMORY,
    MEMORY_SHARES,
    OCTAL,
    fold,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import normalise

INT_MAX = 2**31 - 1
DAY = 86400
WEEK = 7 * DAY
YEARS = 3650 * DAY
MIB = 1024**2
# A file of ext4 ends at twice as many.
INBOX_MAX = 8 * 1024**4
PIB = 1024**5

SIZE = re.compile(r"[0-9]+(b|k|kb|m|mb|g|gb)?", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
PER_CENT = re.compile(r"([1-9][0-9]?|100)%")
SIZES = (
    "bytes or a size with a unit of redis.conf (k, kb, m, mb, g, gb), without a space, a sign or a"
    " fraction"
)
NAME = "a name of 1 to 63 letters, digits, dots, dashes and underscores that begins with a letter"
NAME += " or a digit"


@dataclass(frozen=True)
class Form:
    """`wanted` follows "it must be"; `example` is YAML. `problem` says in words what is wrong with
    a value of the right type, or is empty; a pattern has no words for it."""

    wanted: str
    example: str
    problem: Callable[[Any], str | None]
    # The value is taken as it is, with no look at the type of the specification.
    any_type: bool = False
    # Of text: a number is as good.
    numbers: bool = False


def _matching(pattern: str, flags: int = 0) -> Callable[[Any], str | None]:
    compiled = re.compile(pattern, flags)
    return lambda value: "" if compiled.fullmatch(str(value)) else None


# Bounds of whole numbers. Each has an upper one: what is beyond it is a slip of the pen, which a
# server, systemd or a loop device would find out after the first change.
BOUNDS: Mapping[str, tuple[int, int]] = {
    # fs.nr_open, beyond which systemd starts no unit, is this where nobody has raised it.
    "redis_nofile_limit": (64, 1048576),
    "redis_ready_timeout": (1, WEEK),
    "redis_sync_timeout": (1, WEEK),
    # The units of the packages give the server no capability for a lower one.
    "redis_port": (1024, 65535),
    "redis_timeout": (0, YEARS),
    # Linux has no longer time (TCP_KEEPIDLE).
    "redis_tcp_keepalive": (0, 32767),
    # Each takes memory from the start on.
    "redis_databases": (1, 10000),
    "redis_auto_aof_rewrite_percentage": (0, INT_MAX),
    "redis_replica_priority": (0, INT_MAX),
    "redis_repl_backlog_ttl": (0, YEARS),
    "redis_repl_diskless_sync_delay": (0, DAY),
    "redis_min_replicas_to_write": (0, INT_MAX),
    "redis_min_replicas_max_lag": (0, YEARS),
    # A negative one turns the log off.
    "redis_slowlog_log_slower_than": (-(2**63), 2**63 - 1),
    "redis_slowlog_max_len": (0, 10**7),
    "redis_backup_turn_delay": (0, DAY),
    "redis_backup_redis_port": (1, 65535),
    "redis_backup_inbox_size": (0, INBOX_MAX),
    "redis_backup_bgsave_timeout": (1, WEEK),
    "redis_backup_receipt_timeout": (0, WEEK),
    "redis_backup_shrink_limit": (0, 100),
    "redis_backup_disk_reserve": (0, PIB),
    "redis_backup_zstd_level": (1, 19),
    "redis_backup_server_rsync_port": (1, 65535),
    "redis_backup_server_max_connections": (1, 10000),
    "redis_backup_server_rsync_timeout": (1, WEEK),
    "redis_backup_server_accept_interval": (1, DAY),
    "redis_backup_server_inbox_max_age": (60, YEARS),
    "redis_backup_server_uploads_per_day": (1, 10**6),
    "redis_backup_server_share_per_day": (1, 100),
    "redis_backup_server_receipts_min_age": (14 * DAY, YEARS),
    "redis_backup_server_disk_reserve": (0, PIB),
    "redis_backup_server_keep_last": (0, 10**6),
    "redis_backup_server_keep_daily": (0, 10**6),
    "redis_backup_server_keep_weekly": (0, 10**6),
    "redis_backup_server_keep_monthly": (0, 10**6),
    "redis_backup_server_keep_minimum": (1, 10**6),
    "redis_backup_server_max_backup_age": (60, YEARS),
    "redis_backup_server_max_drill_age": (0, YEARS),
    "redis_backup_server_max_scrub_age": (0, YEARS),
    "redis_restore_drill_assertions[].db": (0, 9999),
    "redis_restore_drill_max_age": (0, YEARS),
    "redis_restore_drill_load_timeout": (1, WEEK),
    "redis_restore_drill_receipt_timeout": (0, WEEK),
    "redis_restore_drill_inbox_size": (0, INBOX_MAX),
}
# Of whole numbers with no entry; tests/unit/test_value_forms.py wants one for each.
NO_ENTRY = (0, INT_MAX)


def _inbox_size(value: Any) -> str | None:
    return "" if int(value) == 0 or int(value) >= 16 * MIB else None


def _zero_or(least: int) -> Callable[[Any], str | None]:
    return lambda value: "" if int(value) == 0 or int(value) >= least else None


def _save(value: Any) -> str | None:
    try:
        save_points.save_points(value)
    except save_points.SavePointsError as error:
        return str(error)
    return ""


# What else lies in the data directory: __redis_data_names of the role redis has it too. Directories
# of other ports are digits.
_TAKEN = re.compile(
    r"\.|\.\.|appendonlydir|appendonly\.aof.*|temp-.*|\.redis-backup|\.redis-move-unfinished"
    r"|moved-.*|[0-9]+"
)


def _dbfilename(value: Any) -> str | None:
    if not re.fullmatch(r"[^/\s\0]+", str(value)):
        return None
    if _TAKEN.fullmatch(str(value)):
        return "that is the name of something else in or around redis_dir"
    return ""


_CLASSES = {"normal": "normal", "replica": "replica", "slave": "replica", "pubsub": "pubsub"}


def _buffer_limits(value: Any) -> str | None:
    found = []
    for line in value:
        words = str(line).split()
        if (
            len(words) != 4
            or words[0].lower() not in _CLASSES
            or not all(SIZE.fullmatch(word) for word in words[1:3])
            or not words[3].isdigit()
        ):
            return f"{line!r} is no such line"
        found.append(_CLASSES[words[0].lower()])
        problem = _too_small(words)
        if problem:
            return problem
    if sorted(found) != sorted(set(_CLASSES.values())):
        return f"it has the classes {', '.join(found) or 'none'}"
    return ""


def _too_small(words: Sequence[str]) -> str:
    """Of a class and its two limits: the server takes limits by which it can be reached by nobody
    any more, and no role can put them right then."""
    reason = {
        "normal": "the server closes the connection before it has answered INFO or CONFIG GET, to"
        " this role too, which could not change it back",
        "replica": "no replica ever gets in sync",
    }.get(_CLASSES.get(words[0].lower(), ""), "")
    sizes = [int(normalise("maxmemory", [word])) for word in words[1:3] if SIZE.fullmatch(word)]
    if reason and any(0 < size < MIB for size in sizes):
        return f"{' '.join(words)} has a limit below 1mb, by which {reason}; 0 is no limit"
    return ""


def _extra_buffer_limits(value: Any) -> str:
    """The same directive in redis_extra_config: one class or more, as text or a list of either."""
    lines = value if isinstance(value, list) else [value]
    parts = [part for line in lines for part in (line if isinstance(line, list) else [line])]
    words = [word for part in parts for word in re.sub("[\"']", " ", str(part)).split()]
    found = (_too_small(words[first : first + 3]) for first in range(0, len(words), 4))
    return next((problem for problem in found if problem), "")


def _path_or_none(value: Any) -> bool:
    (path,) = value if isinstance(value, list) and len(value) == 1 else [value]
    return path in (None, "") or (isinstance(path, str) and path.startswith("/"))


def _directives(value: Any) -> str | None:
    """Of redis_extra_config: what the server would take for something else, or refuse."""
    for name, given in value.items():
        today = fold(str(name))
        if today in OCTAL:
            # YAML has read 0770 as 504, and nobody can tell that from 504.
            if not isinstance(given, str) or not re.fullmatch("0?[0-7]{3}", given):
                return (
                    f"{name} is {given!r}, and a mode must be text in quotes, or YAML turns 0770"
                    f' into 504: {name}: "0770"'
                )
        elif today in BOOLEANS:
            if not isinstance(given, bool) and given not in ("yes", "no"):
                return f"{name} is {given!r}, and must be true or false"
        elif today in MEMORY:
            share = today in MEMORY_SHARES and PER_CENT.fullmatch(str(given))
            if isinstance(given, bool) or not (share or SIZE.fullmatch(str(given))):
                of = ", or 1% to 100% of redis_maxmemory" if today in MEMORY_SHARES else ""
                return f"{name} is {given!r}, and must be {SIZES}{of}"
        elif today == "client-output-buffer-limit" and _extra_buffer_limits(given):
            return f"{name}: {_extra_buffer_limits(given)}"
        elif today == "unixsocket" and not _path_or_none(given):
            return f"{name} is {given!r}, and must be an absolute path"
        if isinstance(given, float) and given != given:
            return f"{name} is nan, which no server takes"
        if isinstance(given, dict):
            return f"{name} is a dictionary, and must be text, a number, true, false or a list"
        if isinstance(given, list) and any(isinstance(item, dict) for item in given):
            return f"{name} has a dictionary in its list"
    return ""


def _expectation(value: Any) -> str | None:
    if len(value) != 1 or next(iter(value)) not in ("equals", "at_least", "matches"):
        return None
    kind, wanted = next(iter(value.items()))
    if isinstance(wanted, bool):
        return f"{kind} is {wanted!r}, and Redis replies with numbers, text and lists"
    if kind == "at_least" and not _NUMBER.fullmatch(str(wanted)):
        return f"at_least is {wanted!r}, and must be a number"
    if kind == "matches":
        if not isinstance(wanted, str):
            return f"matches is {wanted!r}, and must be a regular expression"
        try:
            re.compile(wanted)
        except re.error as error:
            return f"matches is no regular expression: {error}"
    return ""


def _not_empty(value: Any) -> str | None:
    return "" if value else None


def _all_absolute(value: Any) -> str | None:
    paths = value.values()
    return "" if all(isinstance(path, str) and path.startswith("/") for path in paths) else None


def _command_line(value: Any) -> str | None:
    """Of a program that no shell runs: one line with the quotes of a shell, or its words."""
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError as error:
            return f"it cannot be split into words ({error})"
    elif isinstance(value, list) and all(isinstance(word, str) for word in value):
        words = value
    else:
        return None
    if words and not words[0].startswith("/"):
        return f"its first word, {words[0]}, is no absolute path; for a shell: /bin/sh -c '...'"
    return "it has a NUL character" if "\0" in "".join(words) else ""


def _not_blank(value: Any) -> str | None:
    return "" if str(value) else None


_LINE = _matching(r"[^\n\0]*")
_LONG_LINE = _matching(r"[^\n\0]{12,}|")
_WORD = _matching(r"[!-~]+")
_NAME = Form(NAME, "redis", _matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"))
_GROUP = Form("the name of one group, without spaces", "redis", _matching(r"\S+"))
_ADDRESS = Form("one address or host name", "192.168.1.2", _matching(r"[A-Za-z0-9_.:%-]+"))
_BOUND = Form(
    "one address or host name, behind a dash where it is optional",
    "192.168.1.2",
    _matching(r"-?[A-Za-z0-9_.:%*-]+"),
)
_ALLOWED = Form("one address, network or name", "192.168.1.0/24", _matching(r"[A-Za-z0-9_.:%/*-]+"))
_SIZE = Form(SIZES, "64mb", _matching(SIZE.pattern, re.IGNORECASE), numbers=True)
_CRON = Form(
    "five fields as cron takes them, or a word like @daily",
    cron_schedule.EXAMPLE,
    lambda value: cron_schedule.problem(str(value)),
)
_ABSOLUTE = Form("an absolute path", "/var/lib/redis", _matching(r"/[^\n\0]*"))
_CALENDAR = Form(
    "a calendar event of systemd without an end",
    calendar_event.EXAMPLE,
    lambda value: calendar_event.problem(str(value)),
)
_RECIPIENT = Form(
    "one or more mail addresses on one line, or empty for no mail",
    "root",
    _matching(r"[^\s\0]+( *, *[^\s\0]+)*|"),
)
_INBOX = Form(
    f"0, or bytes as a whole number from 16777216 (16 MiB) to {INBOX_MAX} (8 TiB)",
    "67108864",
    _inbox_size,
)
_SECRET_WORD = Form("one word of printable ASCII", "a-long-random-word", _WORD)
_PACKAGE = Form("the name of a package", "rsync", _matching(r"[a-z0-9][a-z0-9+.-]+"))

FORMS: Mapping[str, Form] = {
    "redis_set_name": _NAME,
    "redis_replication_group": _GROUP,
    "redis_master_group": _GROUP,
    "redis_address": _ADDRESS,
    "redis_bind": Form(
        "a list of addresses, not empty",
        "[127.0.0.1, 192.168.1.2]",
        _not_empty,
    ),
    "redis_bind[]": _BOUND,
    "redis_requirepass": Form("text without newlines", "", _LINE),
    "redis_previous_password": Form("text without newlines", "", _LINE),
    "redis_masterauth": Form("text without newlines", "", _LINE),
    "redis_acl_users[].name": Form("one word", "shop", _matching(r"[^\s\0]+")),
    "redis_acl_users[].password": Form(
        "12 characters or more, without newlines", "", _matching(r"[^\n\0]{12,}")
    ),
    "redis_acl_users[].previous_password": Form(
        "12 characters or more, without newlines", "", _matching(r"[^\n\0]{12,}|")
    ),
    "redis_acl_users[].rules": Form(
        "a list of words of ACL SETUSER, not empty", '["~app:*", "+@all"]', _not_empty
    ),
    "redis_admin_user": Form("one word", "default", _matching(r"[^\s\0]+")),
    "redis_masteruser": Form("one word", "replica", _matching(r"[^\s\0]*")),
    "redis_save": Form(save_points.WANTED, save_points.EXAMPLE, _save, any_type=True),
    "redis_dbfilename": Form("the name of a file, without a directory", "dump.rdb", _dbfilename),
    "redis_dir": _ABSOLUTE,
    "redis_auto_aof_rewrite_min_size": _SIZE,
    "redis_repl_backlog_size": _SIZE,
    "redis_maxmemory": Form(
        f"{SIZES}, or a part of the machine's memory from 1% to 100%",
        "2gb, or redis_maxmemory: 60%",
        _matching(f"{SIZE.pattern}|{PER_CENT.pattern}", re.IGNORECASE),
        numbers=True,
    ),
    "redis_client_output_buffer_limit": Form(
        "three lines of class, hard limit, soft limit and seconds, one for each of normal, replica"
        " and pubsub; of normal and replica, a limit is 0 or 1mb or more",
        "[normal 0 0 0, replica 256mb 64mb 60, pubsub 32mb 8mb 60]",
        _buffer_limits,
    ),
    "redis_extra_config": Form(
        "a dictionary of directives and values", "{latency-monitor-threshold: 100}", _directives
    ),
    "redis_backup_set_name": _NAME,
    "redis_backup_schedule": _CRON,
    "redis_backup_mailto": _RECIPIENT,
    "redis_backup_notify_command": Form(
        "a command line that begins with an absolute path, a list of its words, or empty",
        "/usr/local/bin/tell --urgent",
        _command_line,
        any_type=True,
    ),
    "redis_backup_redis_address": _ADDRESS,
    "redis_backup_rsync_secret": _SECRET_WORD,
    "redis_backup_hosts_allow": Form(
        "a list of addresses, networks or names", "[192.168.1.2]", _not_empty
    ),
    "redis_backup_hosts_allow[]": _ALLOWED,
    "redis_backup_inbox_size": _INBOX,
    "redis_backup_server_directory": _ABSOLUTE,
    "redis_backup_server_address": _ADDRESS,
    "redis_backup_server_prune_schedule": _CALENDAR,
    "redis_backup_server_check_schedule": _CALENDAR,
    "redis_backup_server_scrub_schedule": _CALENDAR,
    "redis_backup_server_max_drill_age": Form(
        f"0, or seconds, from 60 to {YEARS} (ten years)", "93600", _zero_or(60)
    ),
    "redis_backup_server_max_scrub_age": Form(
        f"0, or seconds, from 3600 to {YEARS} (ten years)", "777600", _zero_or(3600)
    ),
    "redis_backup_server_group": _GROUP,
    "redis_backup_tool_packages[]": _PACKAGE,
    "redis_restore_drill_group": _GROUP,
    "redis_restore_drill_assertions[].command": Form(
        "a list of words, not empty", "[HLEN, users]", _not_empty
    ),
    "redis_restore_drill_assertions[].command[]": Form("a word", "HLEN", _not_blank, numbers=True),
    "redis_restore_drill_assertions[].expect": Form(
        "a dictionary with exactly one of equals, at_least and matches",
        "{at_least: 1000}",
        _expectation,
    ),
    "redis_restore_drill_sets[].name": _NAME,
    "redis_restore_drill_schedule": _CRON,
    "redis_restore_drill_mailto": _RECIPIENT,
    "redis_restore_drill_memory_max": Form(
        "bytes, with K, M, G or T behind or without, or 1% to 100% of the machine's memory",
        "75%",
        _matching(r"[1-9][0-9]*[KMGT]?|[1-9][0-9]?%|100%"),
        numbers=True,
    ),
    "redis_restore_drill_servers": Form(
        "a dictionary of engines and the absolute paths of their servers",
        "{redis: /usr/bin/redis-server}",
        _all_absolute,
    ),
    "redis_restore_drill_packages[]": _PACKAGE,
    "redis_restore_drill_rsync_secret": _SECRET_WORD,
    "redis_restore_drill_inbox_size": _INBOX,
    "redis_restore_drill_address": _ALLOWED,
}
# Text that may be empty, and means something then.
MAY_BE_EMPTY = frozenset(
    {
        "redis_backup_redis_username",
        "redis_backup_redis_password",
        "redis_backup_mailto",
        "redis_backup_notify_command",
        "redis_restore_drill_mailto",
    }
)
# Of these, another variable's entries are parts.
SAME_AS: Mapping[str, str] = {
    "redis_restore_drill_sets[].assertions": "redis_restore_drill_assertions"
}
