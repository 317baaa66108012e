#!/usr/bin/python
"""Ansible module: what is true about one Redis instance right now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_state
short_description: Tell what is true about one Redis instance right now
description:
  - Reads the running server, its configuration file and its data directory, and says which of the
    states of the deployment's decision table the instance is in. Changes nothing.
  - Needs Python's standard library alone, so it works in check mode on a host where nothing is
    installed yet.
  - Runs on the instance's own host. A server that is loading its data is waited for.
options:
  replication:
    description: How replicas are going to log in to their master.
    type: dict
    required: true
    suboptions:
      username:
        description: User that replicas connect as.
        type: str
        default: default
      password:
        description: Password of that user.
        type: str
  set_name:
    description: Name of the replication set that the file O(mark) must hold.
    type: str
    required: true
  mark:
    description: Path of the file that says that this instance is deployed by the role.
    type: path
    required: true
  packages:
    description: Debian packages that have to be installed.
    type: list
    elements: str
    required: true
  packaged_unit:
    description: Name of the unit that the package enables, for port 6379.
    type: str
    required: true
  packaged_config:
    description: Path of the configuration file of that unit.
    type: path
    required: true
  packaged_dir:
    description: Data directory of that unit.
    type: path
    required: true
  dir:
    description: Data directory as the inventory says.
    type: path
    required: true
  names:
    description: Addresses of all instances of the set. Those that are host names are resolved here.
    type: list
    elements: str
    default: []
  dbfilename:
    description: Name of the RDB file as the inventory says.
    type: str
    required: true
  loading_timeout:
    description: Seconds to wait for a server that is loading its data.
    type: int
    default: 600
extends_documentation_fragment: proven.redis.instance
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Read the state of this instance
  proven.redis.redis_state:
    instance:
      unit: redis-server.service
      unit_dropin: /etc/systemd/system/redis-server.service.d/50-managed.conf
      server: /usr/bin/redis-server
      account: redis
      config_file: /etc/redis/redis.conf
      log_file: /var/log/redis/redis-server.log
      addresses: [127.0.0.1, 192.168.1.2]
      port: 6379
      password: "{{ redis_requirepass }}"
    replication:
      password: "{{ redis_requirepass }}"
    set_name: redis
    mark: /etc/redis/redis.conf.managed
    packages: [redis-server]
    packaged_unit: redis-server.service
    packaged_config: /etc/redis/redis.conf
    packaged_dir: /var/lib/redis
    dir: /var/lib/redis
    names: [redis-1.example.com, redis-2.example.com]
    dbfilename: dump.rdb
"""

RETURN = r"""
instance_state:
  description:
    - The instance as the decision table wants it. C(state) is one of C(virgin), C(up), C(down)
      (stopped, with data), C(auth_refused) and C(not_ours); C(detail) says in words why.
    - C(offset) is the replication offset in bytes, of the running server or of the RDB on disk;
      C(replid), C(replid2) and C(second_offset) are the histories of a running one, as in INFO.
    - C(last_change) is who changed the instance last since its machine booted, C(run), C(at),
      C(pid) and C(task); none where nobody did.
    - C(operation) describes a switchover or a restore that is at work on it, by its marker, or a
      restore of its set, by the lease that it leaves on all hosts.
    - C(replicas) are those that a master knows, with the C(lag) in seconds since their last word.
    - C(refuses_replicas) says that the server does not know the user or the password by which
      replicas are going to connect, C(passwords_settled) that the default user has exactly the
      passwords given.
  type: dict
  returned: always
host:
  description: >-
    Whether the packages of the server are C(installed) completely, whether the unit is
    C(enabled), the server C(running) and the instance C(marked) as one of this set, and
    C(overcommit), the value of vm.overcommit_memory, or none where this host does not allow it to
    be set. C(platform) is the system, such as C(Debian 12); C(version) the major and minor version
    of the first package, installed or else to be had, none where apt knows of none.
    C(idle_package) says that the packaged service of port 6379 would come up, or is up, without
    data and as the package brought it, although this instance has another port. C(memory) is that
    of the machine, or of its container where that is lower, in bytes, rounded down to 64 MiB.
  type: dict
  returned: always
move:
  description: >-
    Where the data of this instance lies, C(from), if that is elsewhere than the inventory says,
    C(to), and the C(problem) that speaks against moving it; else none.
  type: dict
  returned: always
instance:
  description: >-
    O(instance) without the login, for a restart that another host of the set does.
  type: dict
  returned: always
"""

import glob
import hashlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils import redis_marker
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import settings
from ansible_collections.proven.redis.plugins.module_utils.conf_text import ConfError, decode
from ansible_collections.proven.redis.plugins.module_utils.host_memory import memory
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import sha256
from ansible_collections.proven.redis.plugins.module_utils.redis_disk import (
    DEFAULT_NAMES,
    DataFiles,
    data_files,
    data_names,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_info import InfoError, parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_instance import (
    ARGUMENT_SPEC,
    InstanceModule,
    connect,
    logins_of,
    without_login,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_move import (
    Place,
    objections,
    survey,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    Login,
    ProtocolError,
    ServerError,
    wait_until,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_set import (
    AUTH_REFUSED,
    DOWN,
    NOT_OURS,
    UNKNOWN,
    UP,
    VIRGIN,
)

OVERCOMMIT = "/proc/sys/vm/overcommit_memory"


def file_settings(path: str) -> dict[str, str]:
    """What a configuration file sets; empty where there is no file."""
    try:
        with open(path, "rb") as file:
            return dict(settings(decode(file.read())))
    except FileNotFoundError:
        return {}


def is_packaged(module: AnsibleModule, path: str) -> bool:
    """Whether the file is still byte for byte the one that its Debian package brought."""
    # The exit code is non-zero when one of the packages is unknown; the output still counts.
    output = module.run_command(
        ["dpkg-query", "--show", "--showformat=${Conffiles}\n", "redis-server", "valkey-server"]
    )[1]
    with open(path, "rb") as file:
        # dpkg records MD5; this compares, it protects nothing.
        digest = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
    return re.search(rf"^ {re.escape(path)} {digest}\b", output, re.MULTILINE) is not None


def read_live(connection: Connection, loading_timeout: float) -> dict[str, Any]:
    """INFO of a server, once it has loaded its data."""
    info: dict[str, Any] = {}

    def loaded() -> bool:
        info.clear()
        info.update(parse_info(connection.command("INFO", "all")))
        return not info["persistence"]["loading"]

    if not wait_until(loaded, loading_timeout, pause=0.5):
        raise TimeoutError(f"still loading its data after {loading_timeout} s")
    return info


def mark_of(path: str) -> str | None:
    """The set that the file names; None where there is no such file."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def elsewhere(wanted: dict[str, Any]) -> str | None:
    """The mark of an instance of the same set on another port of this host, if there is one."""
    pattern = os.path.join(glob.escape(os.path.dirname(wanted["mark"])), "*.conf.managed")
    others = (path for path in sorted(glob.glob(pattern)) if path != wanted["mark"])
    return next((path for path in others if mark_of(path) == wanted["set_name"]), None)


def describe(module: AnsibleModule) -> dict[str, Any]:
    """Classify the instance; see RETURN."""
    wanted, instance = module.params, module.params["instance"]
    configured = file_settings(instance["config_file"])
    mark = mark_of(wanted["mark"])
    state = {**UNKNOWN, "port": instance["port"], "state": NOT_OURS, "detail": ""}
    target = configured.get("replicaof", "").split()
    if len(target) == 2 and target[1].isdigit():
        state["file_replicaof"] = [target[0], int(target[1])]

    names = data_names(configured)
    directories = {configured.get("dir", wanted["dir"]), wanted["dir"]}
    files = [data_files(directory, names) for directory in sorted(directories)]
    state["keys_on_disk"] = any(found.has_keys for found in files)

    if mark is not None and mark != wanted["set_name"]:
        state["detail"] = (
            f"{wanted['mark']} says that this instance belongs to the set {mark!r}, "
            f"not to {wanted['set_name']!r}"
        )
        return state
    # The port is in the names of the files: with another one, this would be a new, empty instance.
    other = elsewhere(wanted) if mark is None else None
    if other is not None:
        found = re.search(r"-(\d+)\.conf\.managed$", other)
        state["detail"] = (
            f"the set {wanted['set_name']!r} is on this host already, on port "
            f"{found[1] if found else 6379}, says {other}: put redis_port back, "
            "or give a second instance a redis_set_name and a redis_replication_group of its own"
        )
        return state

    connection, refused = open_connection(instance)
    if connection is None:
        if module.run_command(["systemctl", "is-active", "--quiet", instance["unit"]])[0] == 0:
            module.fail_json(
                msg=f"{instance['unit']} runs, and nothing answers ({refused}). Nothing was "
                "changed. It may listen elsewhere, or hang: see its log and redis_bind."
            )
        return stopped(state, files, mark is not None, refused)
    with connection:
        return running(module, state, connection, mark is not None)


def open_connection(instance: Mapping[str, Any]) -> tuple[Connection | None, str]:
    """Connect to the first address that answers; else say why not."""
    refused, port = "", instance["port"]
    for address in instance["addresses"]:
        try:
            return Connection(address, port, timeout=10), ""
        except OSError as error:
            refused = refused or f"{address}:{port}: {error}"
    return None, refused


def stopped(
    state: dict[str, Any], files: list[DataFiles], ours: bool, refused: str
) -> dict[str, Any]:
    """An instance that does not answer."""
    state["offset"] = max((f.rdb.offset for f in files if f.rdb.offset is not None), default=None)
    if not state["keys_on_disk"]:
        state.update(state=VIRGIN, detail=f"no data on disk, and nothing answers ({refused})")
    elif ours:
        state.update(state=DOWN, detail=f"has data on disk, and nothing answers ({refused})")
    else:
        state["detail"] = (
            "data of a server that this role did not deploy lies on disk, "
            f"and nothing answers ({refused})"
        )
    return state


def running(
    module: AnsibleModule, state: dict[str, Any], connection: Connection, ours: bool
) -> dict[str, Any]:
    """An instance that answers."""
    try:
        connection.log_in(logins_of(module.params["instance"]))
        info = read_live(connection, module.params["loading_timeout"])
    except ServerError as error:
        refused = str(error).startswith(("NOAUTH", "WRONGPASS", "NOPERM"))
        if ours and not refused:
            module.fail_json(msg=f"The server answers with an error: {error}. Nothing was changed.")
        state.update(
            state=AUTH_REFUSED if ours else NOT_OURS,
            detail=f"the server refuses {refused_what(module)}: {error}",
        )
        return state
    except (ProtocolError, InfoError, KeyError, OSError) as error:
        if ours:
            module.fail_json(
                msg=f"The server on port {state['port']} does not say what it is: {error}. Nothing "
                "was changed. See its log; run again when it answers INFO."
            )
        state["detail"] = f"what listens on port {state['port']} is no Redis that answers: {error}"
        return state

    replication = info["replication"]
    is_master = replication["role"] == "master"
    state.update(
        role="master" if is_master else "replica",
        keys=sum(database["keys"] for database in info.get("keyspace", {}).values()),
        connected_replicas=replication["connected_slaves"],
        replicas=[
            {"address": str(replica["ip"]), "port": replica["port"], "lag": replica["lag"]}
            for replica in replication.get("replicas", [])
        ],
        offset=replication["master_repl_offset" if is_master else "slave_repl_offset"],
        replid=replication["master_replid"],
        replid2=replication["master_replid2"],
        second_offset=replication["second_repl_offset"],
        backlog_active=replication["repl_backlog_active"] == 1,
    )
    if not is_master:
        state.update(
            master_host=str(replication["master_host"]),
            master_port=replication["master_port"],
            link_up=replication["master_link_status"] == "up",
        )
    empty = is_master and not state["keys"] and not state["connected_replicas"]
    config_file = module.params["instance"]["config_file"]
    packaged = info["server"].get("config_file") == config_file and is_packaged(module, config_file)
    if empty and packaged and not state["keys_on_disk"]:
        state.update(state=VIRGIN, detail="an empty server as the package starts it")
    elif ours:
        state.update(
            state=UP,
            detail=f"running, {state['role']}",
            refuses_replicas=refuses_replicas(module),
            passwords_settled=passwords_settled(module, connection),
        )
    else:
        state["detail"] = (
            f"a server with {state['keys']} keys runs on port {state['port']} that this role did "
            f"not deploy: there is no {module.params['mark']}"
        )
    return state


def operation(unit: str, set_name: str) -> str:
    """What is at work on the instance by its marker, or on its set by a lease; empty for none."""
    try:
        marker = redis_marker.read(unit)
        return redis_marker.lease(set_name) if marker is None else str(marker)
    except redis_marker.MarkerError as error:
        return f"there is a marker of an operation that cannot be read: {error}"


def resolve(names: Iterable[str]) -> dict[str, list[str]]:
    """The addresses of those that are host names; one that is not known is left out.

    Loopback addresses do not count: Debian gives one to a host's own name.
    """
    resolved = {}
    for name in names:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            try:
                answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                continue
            addresses = {str(answer[4][0]) for answer in answers}
            resolved[name] = sorted(a for a in addresses if not ipaddress.ip_address(a).is_loopback)
    return resolved


def followed(state: dict[str, Any]) -> list[str]:
    """Whom an instance follows, now and by its file."""
    endpoints = [state["master_host"], *(state["file_replicaof"] or [])[:1]]
    return [address for address in endpoints if address]


def planned_move(module: AnsibleModule, state: dict[str, Any]) -> dict[str, Any] | None:
    """What has to be moved for the data to lie where the inventory says; see RETURN."""
    wanted, instance = module.params, module.params["instance"]
    if state["state"] not in (UP, DOWN):
        return None
    # A file that is gone, or names no directory, is written with that of the inventory.
    present = {"dir": wanted["dir"], **file_settings(instance["config_file"])}
    if state["state"] == UP:
        with connect(instance, timeout=5) as connection:
            running = connection.config()
        present.update((name, running[name]) for name in ("dir", *DEFAULT_NAMES) if name in running)
    source = Place.of(present)
    target = Place.of({**present, "dir": wanted["dir"], "dbfilename": wanted["dbfilename"]})
    if source == target:
        return None
    return {
        "from": os.path.join(source.dir, source.dbfilename),
        "to": os.path.join(target.dir, target.dbfilename),
        "problem": " ".join(objections(survey(source, target), source, target)),
    }


def refused_what(module: AnsibleModule) -> str:
    """Which passwords were tried, in words."""
    if module.params["instance"]["previous_password"]:
        return "the password of the inventory and the previous one"
    return "the password of the inventory"


def refuses_replicas(module: AnsibleModule) -> bool:
    """Whether the server would refuse a replica that connects as it is going to."""
    replication = module.params["replication"]
    if not replication["password"]:
        return False
    connection, refused = open_connection(module.params["instance"])
    if connection is None:
        raise OSError(refused)
    username = replication["username"]
    login = Login(None if username == "default" else username, replication["password"])
    with connection:
        try:
            connection.log_in([login])
        except ServerError:
            return True
    return False


def passwords_settled(module: AnsibleModule, connection: Connection) -> bool:
    """Whether the passwords of the default user are exactly those of the inventory."""
    instance = module.params["instance"]
    given = [instance["password"], instance["previous_password"]]
    wanted = {sha256(word) for word in given if word}
    answer = connection.command("ACL", "GETUSER", "default")
    found = dict(zip(answer[::2], answer[1::2]))
    return bool(set(found["passwords"]) == wanted)


def is_enabled(unit: str) -> bool:
    return any(
        os.path.islink(f"/etc/systemd/system/{wants}.wants/{unit}")
        for wants in ("multi-user.target", "default.target")
    )


def platform() -> str:
    """The system and its release, such as ``Debian 12``."""
    words: dict[str, str] = {}
    with open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.strip().partition("=")
            words[name] = value.strip("\"'")
    name = words.get("ID", "Linux").capitalize()
    return f"{name} {words.get('VERSION_ID', words.get('VERSION_CODENAME', '?'))}"


def release(version: str) -> str | None:
    """Major and minor of a package's version: ``5:7.0.15-1~deb12u5`` is ``7.0``."""
    found = re.match(r"(?:\d+:)?(\d+\.\d+)", version)
    return found[1] if found else None


def candidate(module: AnsibleModule, package: str) -> str | None:
    """The release of a package that apt would install, None where it knows none."""
    # apt translates its words, also that of `Candidate`.
    english = {"LC_ALL": "C", "LANGUAGE": "C"}
    output = module.run_command(["apt-cache", "policy", package], environ_update=english)[1]
    found = re.search(r"^ +Candidate: (\S+)$", output, re.MULTILINE)
    return release(found[1]) if found else None


def is_idle_package(module: AnsibleModule) -> bool:
    """Whether the packaged service, on a port that is not ours, is nobody's."""
    wanted = module.params
    unit, config, folder = (wanted[f"packaged_{name}"] for name in ("unit", "config", "dir"))
    if (
        unit == wanted["instance"]["unit"]
        or not os.path.exists(config)
        or not is_packaged(module, config)
    ):
        return False
    if data_files(folder, DEFAULT_NAMES).has_keys:
        return False
    if module.run_command(["systemctl", "is-active", "--quiet", unit])[0] != 0:
        return is_enabled(unit)
    try:
        with Connection("127.0.0.1", 6379, timeout=10) as connection:
            info = parse_info(connection.command("INFO", "all"))
    except (OSError, ServerError, ProtocolError, InfoError):
        return False
    return not info.get("keyspace") and info["replication"]["role"] == "master"


def host_facts(module: AnsibleModule, is_running: bool) -> dict[str, Any]:
    """The host's side: system, packages, units, kernel."""
    packages = [
        line.split(" ", 1)
        for line in module.run_command(
            [
                *("dpkg-query", "--show", "--showformat=${Version} ${Status}\n"),
                *module.params["packages"],
            ]
        )[1].splitlines()
    ]
    statuses = [status for _, status in packages]
    # A run that was killed in the middle of an installation leaves another status behind.
    installed = statuses == ["install ok installed"] * len(module.params["packages"])
    overcommit = None
    # A container sees the host's kernel, read-only; then there is nothing for us to set.
    if os.access(OVERCOMMIT, os.W_OK) and not os.statvfs(OVERCOMMIT).f_flag & os.ST_RDONLY:
        with open(OVERCOMMIT, encoding="ascii") as file:
            overcommit = int(file.read())
    return {
        "installed": installed,
        "platform": platform(),
        "version": release(packages[0][0])
        if installed
        else candidate(module, module.params["packages"][0]),
        "idle_package": is_idle_package(module),
        "marked": mark_of(module.params["mark"]) == module.params["set_name"],
        "running": is_running,
        "enabled": is_enabled(module.params["instance"]["unit"]),
        "overcommit": overcommit,
        "memory": memory(),
    }


def main() -> None:
    module = InstanceModule(
        argument_spec={
            **ARGUMENT_SPEC,
            "replication": {
                "type": "dict",
                "required": True,
                "options": {
                    "username": {"type": "str", "default": "default"},
                    "password": {"type": "str", "no_log": True},
                },
            },
            "set_name": {"type": "str", "required": True},
            "mark": {"type": "path", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
            "packaged_unit": {"type": "str", "required": True},
            "packaged_config": {"type": "path", "required": True},
            "packaged_dir": {"type": "path", "required": True},
            "dir": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "dbfilename": {"type": "str", "required": True},
            "loading_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        with module.reading() as last:
            state = describe(module)
            facts = host_facts(module, is_running=state["role"] is not None)
            move = planned_move(module, state)
            state["last_change"] = last._asdict() if last else None
            state["operation"] = operation(
                module.params["instance"]["unit"], module.params["set_name"]
            )
    except ConfError as error:
        module.fail_json(
            msg=f"{module.params['instance']['config_file']} cannot be understood: {error}. "
            "Nothing was changed. Mend the file, or move it away if no data depends on it."
        )
    except OSError as error:
        module.fail_json(msg=f"The state of this instance could not be read: {error}")
    instance = without_login(module.params["instance"])
    resolved = resolve({*module.params["names"], *followed(state)})
    module.exit_json(
        changed=False,
        instance_state=state,
        resolved=resolved,
        host=facts,
        move=move,
        instance=instance,
    )


if __name__ == "__main__":
    main()
