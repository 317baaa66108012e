#!/usr/bin/python
"""Ansible module: make one Redis instance be what its configuration file is to say."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_config
short_description: Make a Redis instance, running and on disk, be what its configuration says
description:
  - A trial boot of the wanted configuration comes first. What the server itself refuses never
    reaches the live file, and the module fails with the server's own words.
  - Compares directives by meaning, as Redis rewrites this file itself, in its own spelling.
  - A running server is changed live (CONFIG SET, REPLICAOF) and read back, then the file is written
    and the previous one kept as C(.previous).
  - What only a restart can change is returned as RV(restart_required); nothing is restarted here.
    The file keeps it as it is, and the whole wanted file lies beside it as C(.next), for whoever
    restarts the server. So the file is at any moment the one that the server runs with.
  - C(appendonly) is never turned on by file and restart, which would empty the dataset. A running
    server is switched live and waited for. A stopped one is started from the newest data on disk.
    An RDB becomes the beginning of a new append-only file where one is wanted; with an append-only
    file, where none is wanted, RV(pending) says that the module has to be called again once the
    server runs. Where no rule can tell what is newest, or that cannot be loaded, the module fails.
  - C(dir) and C(dbfilename) of an instance that holds data are changed like what needs a restart,
    and only with O(move_data), as whoever restarts the server has to move the data too.
  - A server that was started before its unit's drop-in was written needs a restart.
  - Where the server's binary is missing (check mode on a virgin host), nothing is booted.
  - With O(decided), the server and its master are looked at again directly before C(REPLICAOF) and
    before the file gets another C(replicaof). When they are not what was decided on, or when the
    server holds what the master's history does not contain, the module fails.
  - A C(dir) that belongs to the system, or that has files of others, is refused.
  - Owners and modes of the files of the instance are state, and mended.
  - A change that would delete keys, or refuse writes or clients, fails before it is made, in check
    mode too, unless O(accept) has an entry that covers it. The message has that entry.
options:
  content:
    description: The whole wanted configuration file.
    type: str
    required: true
  running:
    description: Whether the instance runs with this file, so that it has to be changed live.
    type: bool
    required: true
  has_data:
    description: Whether the instance has data, in memory or on disk.
    type: bool
    required: true
  move_data:
    description: Whether the data of an instance may be moved to another directory or name.
    type: bool
    default: false
  dir_holds:
    description: Patterns of the names that the server keeps in C(dir), as a shell has them.
    type: list
    elements: str
    default: []
  host:
    description: Name of this host in the entries of O(accept).
    type: str
    default: localhost
  accept:
    description:
      - What a change may cost, as entries C(HOST:SUBJECT:NUMBER-UNIT), such as
        V(redis-1:maxmemory:110000-keys). The number is an upper bound.
      - An entry for this host that is not needed is a warning in check mode.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for a rewrite of the append-only file, a BGSAVE or a link.
    type: int
    default: 600
extends_documentation_fragment:
  - proven.redis.instance
  - proven.redis.decided
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Configure Redis
  proven.redis.redis_config:
    instance:
      unit: redis-server.service
      unit_dropin: /etc/systemd/system/redis-server.service.d/50-managed.conf
      server: /usr/bin/redis-server
      account: redis
      config_file: /etc/redis/redis.conf
      log_file: /var/log/redis/redis-server.log
      addresses: [127.0.0.1]
      port: 6379
      password: "{{ redis_requirepass }}"
    content: "{{ lookup('ansible.builtin.template', 'redis.conf.j2') }}"
    running: true
    has_data: true
"""

RETURN = r"""
plan:
  description: What differs and how it is changed, one line per directive, secrets masked.
  type: list
  elements: str
  returned: always
staged:
  description: Whether the wanted file lies beside the present one as C(.next), for the restart.
  type: bool
  returned: always
restart_required:
  description: Names of the directives that only a restart changes, or that the unit has changed.
  type: list
  elements: str
  returned: always
pending:
  description: Whether the module has to be called again once the server runs.
  type: bool
  returned: always
consequences:
  description:
    - What the change costs. C(subject) is a directive, C(number) and C(unit) say how much of what,
      C(sentence) says it in words, and C(entry) is the consent to it.
    - On a failure for lack of consent, those that nobody has agreed to.
  type: list
  elements: dict
  returned: on success, and where the change is refused for them
"""

import contextlib
import glob
import os
import pwd
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils import redis_guard
from ansible_collections.proven.redis.plugins.module_utils.conf_accept import (
    require,
    shown,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_consequences import (
    Consequence,
    Seen,
    consequences,
    consequences_of_files,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_directives import fold
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import settings
from ansible_collections.proven.redis.plugins.module_utils.conf_plan import (
    LIVE,
    PROTECTED,
    RESTART,
    AnyChange,
    Planned,
    compare,
    hold_back,
    mask,
    plan,
    settle,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_text import (
    ConfError,
    decode,
    encode,
    quote,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_trial import (
    Wanted,
    effective_of,
    effective_settings,
    reason,
)
from ansible_collections.proven.redis.plugins.module_utils.directories import (
    forgets,
    objection,
    running_in,
)
from ansible_collections.proven.redis.plugins.module_utils.listeners import strangers
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import (
    AclError,
    for_version,
    version_in,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_disk import data_names, rdb_head
from ansible_collections.proven.redis.plugins.module_utils.redis_guard import Guard, GuardError
from ansible_collections.proven.redis.plugins.module_utils.redis_info import InfoError, parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_instance import (
    ARGUMENT_SPEC,
    InstanceModule,
    connect,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_live import info
from ansible_collections.proven.redis.plugins.module_utils.redis_move import MoveError, Place
from ansible_collections.proven.redis.plugins.module_utils.redis_ownership import Files, deviations
from ansible_collections.proven.redis.plugins.module_utils.redis_reconciler import (
    ApplyError,
    Reconciler,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ProtocolError,
    ServerError,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_start_files import Disk
from ansible_collections.proven.redis.plugins.module_utils.redis_start_plan import (
    Start,
    StartError,
    refuse_unmounted,
)
from ansible_collections.proven.redis.plugins.module_utils.systemd_time import seconds
from ansible_collections.proven.redis.plugins.module_utils.trial_boot import RefusedError
from ansible_collections.proven.redis.plugins.module_utils.whole_file import read_bytes, write_bytes

# Given by the unit on the command line, whatever the file says.
NOT_COMPARED = frozenset(["port", "tls-port", "daemonize", "supervised"])
# Not the password beside an aclfile. Taking it away by CONFIG SET would let everybody in.
NOT_COMPARED_WITH_USERS = NOT_COMPARED | {"requirepass"}
# Of the names of the data, those that can be changed with the data.
MOVABLE = frozenset(["dir", "dbfilename"])
HOW = {LIVE: "CONFIG SET", RESTART: "restart", PROTECTED: "restart, the data is moved"}


def with_real_dir(content: str) -> str:
    """The wanted file with links in ``dir`` resolved, as the server itself says it."""
    folder = settings(content).get("dir")
    if not folder or os.path.realpath(folder) == folder:
        return content
    lines = [line for line in content.split("\n") if not line.startswith("dir ")]
    return "\n".join([*lines, f"dir {quote(os.path.realpath(folder))}"]) + "\n"


def with_known_rules(module: AnsibleModule, content: str) -> str:
    """The wanted file with its users as the installed server takes them."""
    lines = content.split("\n")
    users = [number for number, line in enumerate(lines) if line.startswith("user ")]
    server = module.params["instance"]["server"]
    if users and os.path.exists(server):
        output = module.run_command([server, "--version"], check_rc=True)[1]
        for number in users:
            lines[number] = for_version(lines[number], version_in(output)).rstrip("\n")
    return "\n".join(lines)


def unit_is_newer(module: AnsibleModule) -> bool:
    """Whether the unit's drop-in was written after the server was started with it."""
    instance = module.params["instance"]
    try:
        written = os.stat(instance["unit_dropin"]).st_mtime
    except FileNotFoundError:
        return False
    command = ["systemctl", "show", "--property=ExecMainStartTimestamp", "--value"]
    shown = module.run_command(
        [*command, instance["unit"]], environ_update={"TZ": "UTC", "LC_ALL": "C"}
    )[1].strip()
    return bool(shown) and seconds(shown) < int(written)


def to_start(
    module: AnsibleModule, wanted: Wanted, current: dict[str, str]
) -> tuple[Start, list[Planned]]:
    """How a stopped server is started, and what its file keeps because the data lies there."""
    own_dir = wanted.values.get("dir", "/")
    place = Place.of({"dir": own_dir, **current})
    present, later = place._asdict(), Place.of({**wanted.values, "dir": own_dir})._asdict()
    moved = [
        Planned(PROTECTED, name, present[name], later[name])
        for name in sorted(present)
        if present[name] != later[name]
    ]
    refuse_protected(module, moved)
    return Start(Disk(module.params["instance"], place), wanted.values, current), moved


def read_file(path: str) -> str | None:
    """The text of a file, None where there is none."""
    content = read_bytes(path)
    return None if content is None else str(decode(content))


def replace_file(path: str, content: str, account: pwd.struct_passwd) -> None:
    """Write a file whole or not at all, for the server alone."""
    write_bytes(path, encode(content), 0o640, account.pw_uid, account.pw_gid)


def forget_staged(module: AnsibleModule) -> None:
    """Remove what was made ready for a restart that is not wanted any more."""
    instance = module.params["instance"]
    for path in (instance["config_file"], instance["unit_dropin"]):
        if os.path.lexists(path + ".next"):
            os.unlink(path + ".next")


def show(change: AnyChange, how: str) -> str:
    """One line of the plan, without secrets."""
    masked = mask(change)
    return f"{masked.name}: {masked.current} -> {masked.desired} ({how})"


def refuse_protected(module: AnsibleModule, planned: list[Planned]) -> None:
    """A server that has data must find it again after a restart."""
    for change in planned:
        movable = module.params["move_data"] and change.name in MOVABLE
        if change.kind == PROTECTED and module.params["has_data"] and not movable:
            module.fail_json(
                msg=f"The data of this server lies under {change.name} {change.current}, and the "
                f"inventory says {change.desired}: started so, it would be empty. Nothing was "
                "changed. Set the old value again, or let the role move the data "
                "(redis_move_data)."
            )


def untouched(module: AnsibleModule) -> str:
    """The end of a message in a run; a plan is refused for all hosts, by whoever collects them."""
    return "" if module.check_mode else " Nothing was changed on this host."


def refuse_stranger(module: AnsibleModule) -> None:
    """What answers on the port may be somebody else's server, which is nobody's to configure."""
    instance = module.params["instance"]
    others = strangers(instance["port"], instance["unit"])
    if others:
        module.fail_json(
            msg=f"Port {instance['port']} is held by "
            f"{others[0]}, which is no process of {instance['unit']}: a server that was started by "
            "hand, or somebody else's. Stop that, then run again, which starts the unit."
            + untouched(module)
        )


def refuse_directory(module: AnsibleModule, wanted: Wanted) -> None:
    """Fail unless the data directory may be given to this server alone, and keeps what is there."""
    instance = module.params["instance"]
    uid = gid = None
    with contextlib.suppress(KeyError):  # in a dry run on a new host
        account = pwd.getpwnam(instance["account"])
        uid, gid = account.pw_uid, account.pw_gid
    folder = wanted.values.get("dir", "")
    if not folder:
        return
    other = running_in(folder, instance["unit"])
    problem = forgets(folder) or objection(folder, uid, gid, 0o750, module.params["dir_holds"])
    if other:
        problem = f"{folder} is the data directory of {other} too, and each would write over the"
        problem += " other's files."
    if problem:
        module.fail_json(msg=f"{problem} Correct redis_dir.{untouched(module)}")


def refuse_socket_over_file(module: AnsibleModule, wanted: Wanted) -> None:
    """A server removes what has the name of its socket, before it listens there."""
    path = wanted.values.get("unixsocket", "")
    if path and os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        module.fail_json(
            msg=f"unixsocket {path} is there already and is no socket: the server would remove it "
            "when it starts, to listen in its place. Name another path as unixsocket in "
            f"redis_extra_config.{untouched(module)}"
        )


def ownership(module: AnsibleModule, wanted: Wanted, current_text: str) -> list[str]:
    """Lines of the plan about files of another owner or mode; mends them outside check mode."""
    instance = module.params["instance"]
    try:
        account = pwd.getpwnam(instance["account"])
    except KeyError:
        if module.check_mode:  # it comes with the package
            return []
        raise
    # The data is looked for where it lies, which may be elsewhere than it is wanted.
    present = {**wanted.values, **settings(current_text)}
    present["aclfile"] = present.get("aclfile") or wanted.values.get("aclfile", "")
    files = Files.of(instance, present)
    found = deviations(files, account)
    objections = [one.objection for one in found if one.objection]
    if objections:
        module.fail_json(msg=" ".join(objections) + untouched(module))
    if not module.check_mode:
        deviations(files, account, mend=True)
    return [f"{one.path}: {one.found} -> {one.wanted} (owner and mode)" for one in found]


def costs(connection: Connection, planned: list[Planned]) -> list[Consequence]:
    """What the planned changes of a running server would destroy, and whom they would shut out."""
    if not planned:
        return []
    by_address = any(fold(change.name) == "bind" for change in planned)
    clients = connection.command("CLIENT", "LIST") if by_address else ""
    state = parse_info(connection.command("INFO"))
    return list(consequences(planned, Seen(connection.config(), state, clients.splitlines())))


def costs_of_start(wanted: Wanted, current: dict[str, str]) -> list[Consequence]:
    """The same of a stopped server with data, as far as its files tell."""
    folder = current.get("dir") or wanted.values.get("dir", "/")
    names = data_names(current)
    snapshots = [os.path.join(folder, names["dbfilename"])]
    snapshots += glob.glob(os.path.join(glob.escape(folder), names["appenddirname"], "*.base.rdb"))
    used = [rdb_head(path).aux.get("used-mem", "") for path in snapshots if os.path.isfile(path)]
    most = max((int(text) for text in used if text.isdigit()), default=None)
    return list(consequences_of_files(current, wanted.values, most))


def hold(content: str, current: str, held: list[Planned]) -> str:
    """The wanted file, with what only a restart changes as it is now."""
    names = [change.name for change in held]
    if "aclfile" in names:
        # Without either of them in the file, a server that crashes would come back open to all.
        names += ["requirepass", "user"]
    text: str = hold_back(content, current, names)
    # Where the data lies is known of the server itself; whatever the file says, that is kept.
    lies = {fold(c.name): c.current for c in held if c.kind == PROTECTED and c.current is not None}
    for name, value in lies.items():
        text = hold_back(text, f"{name} {quote(value)}\n", [name])
    return text


def run(module: AnsibleModule) -> dict[str, Any]:
    params, instance = module.params, module.params["instance"]
    config_file = instance["config_file"]
    wanted = Wanted(with_known_rules(module, with_real_dir(params["content"])))
    if any(name.startswith("include ") for name in wanted.values):
        module.fail_json(
            msg="`include` is not possible: Redis rewrites its own file and would repeat there "
            "what the included one says. Name the directives in redis_extra_config instead."
        )
    refuse_directory(module, wanted)
    refuse_socket_over_file(module, wanted)
    before = read_file(config_file)
    current = before or ""
    guard = Guard(instance, params["decided"])
    guard.check_now(running=params["running"])

    effective: dict[str, str] = {}
    if os.path.exists(instance["server"]):
        effective = effective_settings(instance["server"], instance["account"], wanted)
    content = wanted.text
    planned: list[Planned] = []
    lines: list[str] = []
    restart: list[str] = []
    reconciler: Reconciler | None = None
    repoint: tuple[str, int] | None = None
    cost: list[Consequence] = []
    if params["running"]:
        refuse_stranger(module)
        connection = connect(instance)
        reconciler = Reconciler(connection, params["timeout"])
        settled = {"aclfile": "", **settle(wanted.text, effective)}
        not_compared = NOT_COMPARED_WITH_USERS if settled["aclfile"] else NOT_COMPARED
        version = str(info(connection, "server")["redis_version"])
        planned = plan(settled, connection.config(), not_compared, version=version)
        refuse_protected(module, planned)
        cost = costs(connection, planned)
        follows = reconciler.role()
        if wanted.replicaof not in (None, follows):
            repoint = wanted.replicaof
            lines.append(f"replicaof: {follows} -> {repoint} (REPLICAOF)")
        if unit_is_newer(module):
            restart.append("the unit")
            lines.append("the unit: started before its settings were changed (restart)")
    else:
        refuse_unmounted(settings(current).get("dir") or wanted.values.get("dir", "/"))
    start: Start | None = None
    if params["has_data"] and not params["running"]:
        start, planned = to_start(module, wanted, settings(current))
        cost = costs_of_start(wanted, settings(current))
        if start.appendonly:
            content += f"appendonly {start.appendonly}\n"
        lines += start.lines()
    accepted = require(module, cost, users=False)
    pending = not params["running"] and (content != wanted.text or bool(planned))
    held = [change for change in planned if change.kind != LIVE]
    if held:
        content = hold(content, current, held)

    in_file = compare(content, current, effective_of(content, wanted, effective))
    named = {fold(change.name) for change in planned}
    lines += [show(change, HOW[change.kind]) for change in planned]
    lines += [show(change, "file") for change in in_file if change.name not in named]
    lines += accepted
    restart += [change.name for change in held]

    write = bool(in_file) or before is None
    mended = ownership(module, wanted, current)
    lines += mended
    if not module.check_mode:
        account = pwd.getpwnam(instance["account"])
        if reconciler:
            reconciler.apply([change for change in planned if change.kind == LIVE])
        if reconciler and wanted.turns_on_appendonly(in_file):
            reconciler.finish_appendonly()
        changes_role = any(change.name == "replicaof" for change in in_file) or before is None
        if repoint or changes_role:
            guard.check_now(running=params["running"], with_master=True)
        if reconciler and repoint:
            reconciler.follow(repoint)
        if start and start.base:
            if before is not None and start.unsafe:
                # Until the new append-only file has its name, there may be none.
                replace_file(config_file, current + "\nappendonly no\n", account)
                write = True
            told = start.make_base()
            if told:
                module.warn(told)
        if held:
            replace_file(config_file + ".next", wanted.text, account)
        else:
            forget_staged(module)
        if before is not None and (write or held):
            replace_file(config_file + ".previous", before, account)
        if write:
            replace_file(config_file, content, account)
        if reconciler and repoint:
            reconciler.wait_for_link()
    return {
        "changed": bool(
            write or planned or repoint is not None or mended or (start and start.base)
        ),
        "plan": lines,
        "restart_required": restart,
        "staged": bool(held),
        "pending": pending,
        "consequences": shown(cost, params["host"]),
        "diff": {"prepared": "".join(f"{line}\n" for line in lines)},
    }


def main() -> None:
    module = InstanceModule(
        argument_spec={
            **ARGUMENT_SPEC,
            **redis_guard.ARGUMENT_SPEC,
            "content": {"type": "str", "required": True, "no_log": True},
            "running": {"type": "bool", "required": True},
            "has_data": {"type": "bool", "required": True},
            "move_data": {"type": "bool", "default": False},
            "dir_holds": {"type": "list", "elements": "str", "default": []},
            "host": {"type": "str", "default": "localhost"},
            "accept": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        with module.changing("redis_config, changing settings"):
            result = run(module)
    except GuardError as error:
        module.fail_json(msg=f"{error} {redis_guard.ADVICE}")
    except RefusedError as error:
        module.fail_json(
            msg=f"The server refuses the wanted configuration: {reason(str(error))}. The "
            "configuration file and the running server were left as they are. Correct the variable "
            "that renders this."
        )
    except StartError as error:
        module.fail_json(msg=str(error))
    except ApplyError as error:
        module.fail_json(
            msg=f"{error} Some settings may have been changed on the running server already; once "
            "that is mended, run again: it goes on from there."
        )
    except ConfError as error:
        module.fail_json(
            msg=f"{module.params['instance']['config_file']} cannot be understood: {error}"
        )
    except (AclError, InfoError, MoveError, OSError, ServerError, ProtocolError) as error:
        module.fail_json(msg=f"The configuration could not be applied: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
