#!/usr/bin/python
"""Ansible module: start or restart one Redis instance and wait until it really serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_service
short_description: Start or restart one Redis instance and wait until it serves
description:
  - Starts or restarts the systemd unit, waits until the server has loaded its data and, for a
    replica, until it is in sync with its master.
  - When a restarted server does not come back in time, the previous configuration file is put back,
    the server started with it, and the module fails with what the journal says.
options:
  unit:
    description: Name of the systemd unit.
    type: str
    required: true
  state:
    description: >-
      V(started) leaves a running server alone, and waits for a running replica to be in sync.
    type: str
    choices: [started, restarted]
    default: started
  addresses:
    description: Addresses to try, the first that answers is used.
    type: list
    elements: str
    required: true
  port:
    description: TCP port of the instance.
    type: int
    required: true
  config_file:
    description: Path of the server's configuration file, from which its password is read.
    type: path
    required: true
  save_first:
    description: >-
      Take an RDB snapshot before a restart, and do not restart when that fails, or when the file
      would have the server load other data than it has.
    type: bool
    default: false
  log_file:
    description: Path of the server's log, of which the end is shown when a start fails.
    type: path
    required: true
  rollback:
    description: >-
      Put the previous configuration file back when a restart fails, with the role, persistence and
      passwords of the new one.
    type: bool
    default: false
  ready_timeout:
    description: Seconds to wait for the server to have loaded its data.
    type: int
    default: 600
  sync_timeout:
    description: Seconds to wait for a replica to be in sync.
    type: int
    default: 600
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Restart Redis
  redis_service:
    unit: redis-server.service
    state: restarted
    addresses: [127.0.0.1]
    port: 6379
    config_file: /etc/redis/redis.conf
    log_file: /var/log/redis/redis-server.log
"""

RETURN = r"""
seconds:
  description: Seconds from the start until the server was ready and in sync.
  type: float
  returned: success
"""

import os
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.redis_conf import (
    ConfError,
    decode,
    encode,
    normalise,
    put_back,
    settings,
)
from ansible.module_utils.redis_info import parse_info
from ansible.module_utils.redis_live import SaveError, bgsave, wait_for_rewrite
from ansible.module_utils.redis_resp import (
    Connection,
    ProtocolError,
    ServerError,
    connect,
    wait_until,
)

# Settings that say where a server finds its data, with the server's own defaults; those of newer
# releases are compared where the server knows them.
LOADED_FROM = {
    "appendonly": "no",
    "dir": "/",
    "dbfilename": "dump.rdb",
    "appenddirname": "appendonlydir",
    "appendfilename": "appendonly.aof",
}


def online_replicas(info: dict[str, Any]) -> int:
    """How many replicas of a master have received all its data."""
    replicas = info["replication"].get("replicas", [])
    return sum(replica["state"] == "online" for replica in replicas)


class Instance:
    """The unit and the server it runs."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted: dict[str, Any] = module.params
        self.problem = ""
        self.before = ""  # run_id of the process that is to be replaced
        self.replicas = 0  # and how many replicas it had

    def systemctl(self, *words: str) -> str:
        code, output, error = self.module.run_command(["systemctl", *words])
        if code != 0:
            self.module.fail_json(
                msg=f"`systemctl {' '.join(words)}` failed: {(error or output).strip()}"
            )
        return str(output)

    def property(self, name: str) -> str:
        return self.systemctl("show", "--property", name, "--value", self.wanted["unit"]).strip()

    def connect(self) -> Connection:
        """A connection to the server, with the password of its file."""
        with open(self.wanted["config_file"], "rb") as file:
            password = settings(decode(file.read())).get("requirepass")
        return connect(self.wanted["addresses"], self.wanted["port"], password, timeout=30)

    def info(self) -> dict[str, Any] | None:
        """INFO of the server, or None while it cannot be had."""
        try:
            with self.connect() as connection:
                return dict(parse_info(connection.command("INFO", "all")))
        except (OSError, ProtocolError, ConfError) as error:
            self.problem = str(error)
        except ServerError as error:
            self.problem = f"it answers, and refuses: {error}"
        return None

    def ready(self) -> bool:
        info = self.info()
        if info is None:
            return False
        if info["server"]["run_id"] == self.before:
            self.problem = "it has not stopped yet"
            return False
        self.problem = "it is still loading its data"
        return not info["persistence"]["loading"]

    def in_sync(self) -> bool:
        info = self.info()
        if info is None:
            return False
        replication = info["replication"]
        if replication["role"] == "master":
            found = online_replicas(info)
            self.problem = f"{found} of {self.replicas} replicas have come back"
            return bool(found >= self.replicas)
        self.problem = (
            f"master_link_status is {replication['master_link_status']}, "
            f"master_sync_in_progress {replication['master_sync_in_progress']}"
        )
        return (
            replication["master_link_status"] == "up" and not replication["master_sync_in_progress"]
        )

    def wait_for_sync(self) -> None:
        if not wait_until(self.in_sync, self.wanted["sync_timeout"], pause=0.5):
            self.module.fail_json(
                msg=f"Master and replica were not in sync within {self.wanted['sync_timeout']} s: "
                f"{self.problem}. The server runs; look at both servers' logs, then run again."
            )

    def started_or_failed(self) -> bool:
        """Whether waiting any longer is of no use: it is ready, or it crashed."""
        return self.ready() or self.crashed()

    def crashed(self) -> bool:
        # Restart=always hides a server that cannot start: the count of restarts tells.
        return self.property("ActiveState") == "failed" or int(self.property("NRestarts") or 0) > 1

    def launch(self, verb: str) -> bool:
        """Start or restart; tell whether the server got ready in time."""
        # Unasked: NeedDaemonReload does not notice a new drop-in directory.
        self.systemctl("daemon-reload")
        if self.crashed():
            self.systemctl("reset-failed", self.wanted["unit"])
        # A server answers on while it shuts down; only another process is the new one.
        running = self.info()
        if running:
            self.before = running["server"]["run_id"]
            self.replicas = online_replicas(running)
        # Not waited for by systemctl: the load of a large dataset outlasts any limit of its own.
        self.systemctl("--no-block", verb, self.wanted["unit"])
        time.sleep(0.2)
        wait_until(self.started_or_failed, self.wanted["ready_timeout"])
        return self.ready()

    def save(self) -> None:
        """Take an RDB snapshot, so that a restart finds the data whatever the save points say."""
        try:
            with self.connect() as connection:
                self.check_that_data_comes_back(connection)
                wait_for_rewrite(connection, self.wanted["ready_timeout"])
                bgsave(connection, self.wanted["ready_timeout"])
        except (OSError, ProtocolError, ConfError, ServerError, SaveError) as error:
            self.module.fail_json(
                msg=f"{self.wanted['unit']} was not restarted: no snapshot could be taken before. "
                f"{error} The server runs on as it was; mend that, then run again."
            )

    def check_that_data_comes_back(self, connection: Connection) -> None:
        """Fail when the file names other data than the running server writes.

        Somebody may have changed the server alone. With `appendonly yes` in the file and not in the
        server, for one, a restart loads an append-only file that is old, or none.
        """
        with open(self.wanted["config_file"], "rb") as file:
            in_file = settings(decode(file.read()))
        running = connection.config()
        for name, default in LOADED_FROM.items():
            wanted = in_file.get(name, default)
            if name == "dir":
                wanted = os.path.realpath(wanted)
            if normalise(name, [running.get(name, wanted)]) != normalise(name, [wanted]):
                self.module.fail_json(
                    msg=f"{self.wanted['unit']} was not restarted: it runs with {name} "
                    f"{running[name]}, and {self.wanted['config_file']} says {wanted}, from which "
                    "other data would be loaded, or none. Run site.yml, which settles that."
                )

    def roll_back(self, previous: str) -> None:
        """Put the previous file back, but with the role, persistence and passwords of today."""
        path = self.wanted["config_file"]
        with open(previous, "rb") as old, open(path, "rb") as new:
            text = put_back(decode(old.read()), decode(new.read()))
            owner = os.fstat(new.fileno())
        handle, temporary = tempfile.mkstemp(prefix=".redis.conf.", dir=os.path.dirname(path))
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o640)
            os.fchown(handle, owner.st_uid, owner.st_gid)
            file.write(encode(text))
        os.replace(temporary, path)
        self.systemctl("reset-failed", self.wanted["unit"])

    def last_words(self) -> list[str]:
        """The end of what the server and systemd logged."""
        journal = ["journalctl", "--unit", self.wanted["unit"], "--lines", "8", "--output", "cat"]
        lines = str(self.module.run_command(journal)[1]).splitlines()
        if os.path.exists(self.wanted["log_file"]):
            tail = ["tail", "--lines", "4", self.wanted["log_file"]]
            lines += str(self.module.run_command(tail)[1]).splitlines()
        return lines


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "restarted"], "default": "started"},
            "addresses": {"type": "list", "elements": "str", "required": True},
            "port": {"type": "int", "required": True},
            "config_file": {"type": "path", "required": True},
            "save_first": {"type": "bool", "default": False},
            "log_file": {"type": "path", "required": True},
            "rollback": {"type": "bool", "default": False},
            "ready_timeout": {"type": "int", "default": 600},
            "sync_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    instance = Instance(module)
    begin = time.monotonic()
    if wanted["state"] == "started" and instance.ready():
        if not module.check_mode:
            instance.wait_for_sync()
        module.exit_json(changed=False, seconds=round(time.monotonic() - begin, 1))
    if module.check_mode:
        module.exit_json(changed=True)
    verb = "restart" if wanted["state"] == "restarted" else "start"
    if verb == "restart" and wanted["save_first"]:
        instance.save()
    if not instance.launch(verb):
        problem = "it exits at once" if instance.crashed() else instance.problem
        last_words = instance.last_words()
        advice = "Its last words are below."
        previous = wanted["config_file"] + ".previous"
        if wanted["rollback"] and os.path.exists(previous):
            instance.roll_back(previous)
            back = instance.launch("restart")
            advice = "The previous configuration file was put back, and the server " + (
                "runs again with it." if back else "does not start with it either."
            )
        module.fail_json(
            msg=f"{wanted['unit']} did not get ready after its {verb}, for which it has "
            f"{wanted['ready_timeout']} s: {problem}. {advice}",
            log=last_words,
        )
    instance.wait_for_sync()
    module.exit_json(changed=True, seconds=round(time.monotonic() - begin, 1))


if __name__ == "__main__":
    main()
