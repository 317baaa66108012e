#!/usr/bin/python
"""Ansible module: make the users of a Redis server, running and on disk, be what they are to be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_acl
short_description: Make the users of a Redis server be what the inventory says
description:
  - A trial boot with the wanted users comes first. What the server itself refuses never reaches
    the live one, and the ACL LIST of the trial boot is what the live one's is compared with, as
    Redis respells rules.
  - A running server is changed by ACL SETUSER and ACL DELUSER, each user at one stroke, read back
    and saved by ACL SAVE. Nobody is disconnected but deleted users; ACL LOAD, which disconnects
    others, is not used. A server that was not started with the file gets its users in memory, and
    the file beside it is written.
  - A user that goes or is turned off while clients are connected as it stops the module, in check
    mode too, unless O(accept) has an entry that covers it. Replicas do not count, nor does anybody
    on a server without keys.
  - A change that would leave a user without any password that works now is refused.
  - Without O(file), only the passwords of the user C(default) are looked at, and
    O(instance.password), which has to be given, is what requirepass becomes.
  - Where the server's binary is missing (check mode on a virgin host), nothing is booted.
options:
  content:
    description: >-
      Lines of an aclfile, as P(proven.redis.redis_acl#filter) makes them. What they say about
      channels is left out for Redis 6.0, which does not know it.
    type: str
    required: true
  file:
    description: Path of the aclfile; none where the server has only a requirepass.
    type: path
  running:
    description: Whether the instance runs, so that it has to be changed live.
    type: bool
    required: true
  host:
    description: Name of this host in the entries of O(accept).
    type: str
    default: localhost
  accept:
    description: Consent, as of M(proven.redis.redis_config); here, entries with the subject C(acl).
    type: list
    elements: str
    default: []
extends_documentation_fragment: proven.redis.instance
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Bring the users to what the inventory says
  proven.redis.redis_acl:
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
    content: "{{ redis_acl_users | proven.redis.redis_acl(passwords=[redis_requirepass]) }}"
    file: /etc/redis/redis.acl
    running: true
"""

RETURN = r"""
plan:
  description: What differs and how it is changed, one line per user, without secrets.
  type: list
  elements: str
  returned: always
consequences:
  description:
    - What the change costs and nobody has agreed to; C(sentence) says it in words, and C(entry) is
      the consent to it.
  type: list
  elements: dict
  returned: where the change is refused for them
"""

import os
import pwd
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils.acl_consequences import shut_out
from ansible_collections.proven.redis.plugins.module_utils.conf_accept import require
from ansible_collections.proven.redis.plugins.module_utils.conf_consequences import Consequence
from ansible_collections.proven.redis.plugins.module_utils.conf_text import decode, encode
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import (
    DEFAULT,
    DELETE,
    AclError,
    Step,
    User,
    for_version,
    plan,
    read,
    setuser,
    version_in,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_info import parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_instance import (
    ARGUMENT_SPEC,
    InstanceModule,
    connect,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ProtocolError,
    ServerError,
    logins,
)
from ansible_collections.proven.redis.plugins.module_utils.trial_boot import (
    RefusedError,
    boot_and_ask,
)
from ansible_collections.proven.redis.plugins.module_utils.whole_file import read_bytes, write_bytes

TRIAL_CONFIG = """\
port 0
unixsocket {folder}/s
unixsocketperm 700
dir {folder}
aclfile {folder}/users.acl
save ""
appendonly no
daemonize no
supervised no
logfile ""
"""
HOW = {DELETE: "ACL DELUSER"}
ADVICE = (
    "Nothing was changed. Put back the password that works, or give it beside the new one, as "
    "previous_password of this user in redis_acl_users (redis_previous_password for the "
    "administrator): then both are taken, and when no client uses the old one any more, take it "
    "out of the inventory."
)


def read_file(path: str) -> dict[str, User] | None:
    """The users of a file; None where there is none, or nothing that can be understood."""
    content = read_bytes(path)
    if content is None:
        return None
    try:
        return dict(read(decode(content).splitlines()))
    except AclError:
        return None


def write_file(path: str, content: str, user: str) -> None:
    """Write the file whole or not at all, for the server alone."""
    account = pwd.getpwnam(user)
    write_bytes(path, encode(content), 0o640, account.pw_uid, account.pw_gid)


def known_rules(module: AnsibleModule) -> str:
    """The wanted lines as the installed server takes them."""
    server = module.params["instance"]["server"]
    output = module.run_command([server, "--version"], check_rc=True)[1]
    return str(for_version(module.params["content"], version_in(output)))


def as_server_says(module: AnsibleModule, content: str) -> dict[str, User]:
    """The wanted users as a server that was started on them lists them.

    Raises:
        RefusedError: it does not start on them.
    """
    instance = module.params["instance"]

    def question(connection: Connection) -> dict[str, User]:
        connection.log_in(logins(instance["username"], instance["password"]))
        return dict(read(connection.command("ACL", "LIST")))

    return dict(
        boot_and_ask(
            instance["server"],
            instance["account"],
            lambda folder: {"redis.conf": TRIAL_CONFIG.format(folder=folder), "users.acl": content},
            question,
        )
    )


def reason(log: str) -> str:
    """What a server that did not start says about its users."""
    found = re.search(
        r"because of ACL errors: (.*?)\.?(?: WARNING: ACL errors|$)", log, re.MULTILINE
    )
    # Without the path of the trial boot's file, which is gone.
    said = found[1] if found else " ".join(log.split("\n")[-4:])
    return re.sub(r"\S*/users\.acl:", "line ", said)


def show(step: Step, how: str = "") -> str:
    """One line of the plan."""
    return f"user {step.name}: {step.says} ({how or HOW.get(step.kind, 'ACL SETUSER')})"


class ApplyError(Exception):
    """The running server did not become what is wanted; the text says why."""


def change_live(connection: Connection, content: str, steps: list[Step]) -> None:
    """Take the steps. Raises ApplyError, or what the connection raises."""
    for step in steps:
        words = ["DELUSER", step.name] if step.kind == DELETE else None
        try:
            connection.command("ACL", *(words or ["SETUSER", *setuser(content, step.name)]))
        except ServerError as error:
            raise ApplyError(
                f"The running server refuses the change of the user {step.name}: {error}."
            ) from None


def costs(
    connection: Connection, desired: dict[str, User], current: dict[str, User]
) -> list[Consequence]:
    """Whom the change would shut out; nobody on a server without keys."""
    if not parse_info(connection.command("INFO", "keyspace")).get("keyspace"):
        return []
    clients = connection.command("CLIENT", "LIST").splitlines()
    found: list[Consequence] = shut_out(
        desired, current, clients, str(connection.command("CLIENT", "ID"))
    )
    return found


def default_only(module: AnsibleModule) -> list[str]:
    """A server without an aclfile: the passwords of the default user, requirepass the first."""
    instance = module.params["instance"]
    (user,) = read(module.params["content"].splitlines()).values()
    with connect(instance) as connection:
        now = read(connection.command("ACL", "LIST"))[DEFAULT]
        wanted = now._replace(open=user.open, passwords=user.passwords)
        steps = plan({DEFAULT: wanted}, {DEFAULT: now})
        if steps and not module.check_mode:
            # At one stroke: CONFIG SET requirepass takes away every other password.
            connection.command("MULTI")
            connection.command("CONFIG", "SET", "requirepass", instance["password"])
            hashes = [f"#{word}" for word in sorted(user.passwords)]
            connection.command("ACL", "SETUSER", DEFAULT, "resetpass", *hashes)
            for answer in connection.command("EXEC"):
                if answer != "OK":
                    raise ApplyError("The running server refuses to change its password.")
            after = read(connection.command("ACL", "LIST"))[DEFAULT]
            if after.passwords != user.passwords:
                raise ApplyError("The running server took the passwords and reads back others.")
    return [show(step) for step in steps]


def all_users(module: AnsibleModule) -> list[str]:
    """A server with an aclfile, or one that is going to have it."""
    params, instance = module.params, module.params["instance"]
    if not os.path.exists(instance["server"]):
        return [f"{params['file']}: written once the server is installed"]
    content = known_rules(module)
    asked_for, desired = read(content.splitlines()), as_server_says(module, content)
    on_disk = read_file(params["file"])
    file_is_right = on_disk in (asked_for, desired)
    if not params["running"]:
        if file_is_right:
            return []
        steps = plan(desired, on_disk or {})
        if not module.check_mode:
            write_file(params["file"], content, instance["account"])
        return [show(step, "file") for step in steps]

    with connect(instance) as connection:
        current = read(connection.command("ACL", "LIST"))
        steps = plan(desired, current)
        accepted = require(module, costs(connection, desired, current), users=True)
        used = connection.command("CONFIG", "GET", "aclfile")[1]
        has_file = bool(used) and os.path.realpath(used) == os.path.realpath(params["file"])
        if not module.check_mode:
            change_live(connection, content, steps)
            if steps and read(connection.command("ACL", "LIST")) != desired:
                raise ApplyError("The running server took the users and lists others.")
            if has_file and (steps or not file_is_right):
                connection.command("ACL", "SAVE")
            elif not file_is_right:
                write_file(params["file"], content, instance["account"])
    lines = [*(show(step) for step in steps), *accepted]
    if not file_is_right:
        lines.append(f"{params['file']}: {'ACL SAVE' if has_file else 'written'}")
    return lines


def main() -> None:
    module = InstanceModule(
        argument_spec={
            **ARGUMENT_SPEC,
            "content": {"type": "str", "required": True, "no_log": True},
            "file": {"type": "path"},
            "running": {"type": "bool", "required": True},
            "host": {"type": "str", "default": "localhost"},
            "accept": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    if module.params["instance"]["password"] is None:
        module.fail_json(msg="missing required arguments: password found in instance")
    try:
        with module.changing("redis_acl, changing users"):
            lines = all_users(module) if module.params["file"] else default_only(module)
    except AclError as error:
        module.fail_json(msg=f"On this server, {error}. {ADVICE}")
    except RefusedError as error:
        module.fail_json(
            msg="The server refuses the wanted users, and keeps those it has: "
            f"{reason(str(error))}. Correct redis_acl_users."
        )
    except ApplyError as error:
        module.fail_json(
            msg=f"{error} Other users may have been changed already; once that is mended, run "
            "again: it goes on from there."
        )
    except (OSError, ServerError, ProtocolError) as error:
        module.fail_json(msg=f"The users could not be changed: {error}")
    module.exit_json(
        changed=bool(lines), plan=lines, diff={"prepared": "".join(f"{line}\n" for line in lines)}
    )


if __name__ == "__main__":
    main()
