#!/usr/bin/python
"""Ansible module: start, restart or stop one Redis instance, and wait until it really serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_service
short_description: Start, restart or stop one Redis instance and wait until it serves
description:
  - Starts or restarts the systemd unit, waits until the server has loaded its data and, for a
    replica, until it is in sync with its master.
  - With O(staged), the configuration file that lies beside the present one as C(.next) takes its
    place for the restart. When the server does not come back in time, the file before is put back,
    the server started with it, and the module fails with what the journal says.
  - Where that file names another C(dir) or C(dbfilename), the data is moved while the server is
    stopped, and a drop-in of the unit that lies beside the present one as C(.next) takes its place
    too. Old place or new, one of them holds all of the data at every moment.
  - Nothing is stopped or started while the server's account cannot use its files.
  - The password that its configuration file has is tried too.
  - With O(decided), the server, its file and its master are looked at again directly before the
    server is stopped or started. When they are not what was decided on, the module fails.
options:
  state:
    description: >-
      V(started) leaves a running server alone, and waits for a running replica to be in sync.
      V(stopped) waits for the server to have ended within O(ready_timeout), and keeps it from
      starting with the machine.
    type: str
    choices: [started, restarted, stopped]
    default: started
  save_first:
    description: >-
      Take an RDB snapshot before a restart, and do not restart when that fails, or when the file
      would have the server load other data than it has.
    type: bool
    default: false
  staged:
    description: Whether to restart the server with the file that was made ready for it.
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
extends_documentation_fragment:
  - proven.redis.instance
  - proven.redis.decided
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Restart Redis
  proven.redis.redis_service:
    instance:
      unit: redis-server.service
      unit_dropin: /etc/systemd/system/redis-server.service.d/50-managed.conf
      server: /usr/bin/redis-server
      account: redis
      config_file: /etc/redis/redis.conf
      log_file: /var/log/redis/redis-server.log
      addresses: [127.0.0.1]
      port: 6379
    state: restarted
"""

RETURN = r"""
seconds:
  description: Seconds from the start until the server was ready and in sync.
  type: float
  returned: success
replid:
  description: >-
    The replication id of the server, C(master_replid) of INFO; none as long as a master has no
    backlog, since it takes another with its first replica.
  type: str
  returned: when the server was started or restarted
kept:
  description: Where the old files of data that was copied are kept; none where it was not.
  type: str
  returned: when the server was restarted
"""

import os
import pwd
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils import redis_guard
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import normalise, settings
from ansible_collections.proven.redis.plugins.module_utils.conf_text import ConfError, decode
from ansible_collections.proven.redis.plugins.module_utils.directories import (
    configured_for,
    running_in,
)
from ansible_collections.proven.redis.plugins.module_utils.listeners import strangers
from ansible_collections.proven.redis.plugins.module_utils.redis_disk import (
    DEFAULT_NAMES,
    data_files,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_guard import Guard, GuardError
from ansible_collections.proven.redis.plugins.module_utils.redis_info import InfoError, parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_instance import (
    ARGUMENT_SPEC,
    InstanceModule,
    connect,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_live import (
    SaveError,
    bgsave,
    wait_for_rewrite,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_move import (
    Carried,
    MoveError,
    Place,
    acting_as,
    carry,
    check_writable,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_ownership import Files, unusable
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ProtocolError,
    ServerError,
    wait_until,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_start import (
    Held,
    held,
    lasting_keys,
    missing_keys,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_start_files import Disk
from ansible_collections.proven.redis.plugins.module_utils.redis_start_plan import (
    StartError,
    check_append_only_file,
    check_snapshot,
    check_start,
)
from ansible_collections.proven.redis.plugins.module_utils.whole_file import (
    existing_bytes,
    read_bytes,
    write_bytes,
)

# Settings that say where a server finds its data, with the server's own defaults; those of newer
# releases are compared where the server knows them.
LOADED_FROM = {
    "appendonly": "no",
    "dir": "/",
    **DEFAULT_NAMES,
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
        self.facts: dict[str, Any] = module.params["instance"]
        self.unit: str = self.facts["unit"]
        self.config_file: str = self.facts["config_file"]
        self.problem = ""
        self.before = ""  # run_id of the process that is to be replaced
        self.replicas = 0  # how many replicas it had
        self.had: Held | None = None  # and what keys have to be there after the start

    def systemctl(self, *words: str) -> str:
        code, output, error = self.module.run_command(["systemctl", *words])
        if code != 0:
            self.module.fail_json(
                msg=f"`systemctl {' '.join(words)}` failed: {(error or output).strip()}"
            )
        return str(output)

    def property(self, name: str) -> str:
        return self.systemctl("show", "--property", name, "--value", self.unit).strip()

    def connect(self) -> Connection:
        """A connection to the server, with the passwords of the inventory or that of its file."""
        return connect(self.facts, self.settings().get("requirepass"))

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

    def has_keys(self) -> bool:
        """Whether a server runs that has keys: then what lies on the disk is older."""
        running = self.info()
        return bool(running and running.get("keyspace"))

    def wait_for_sync(self) -> None:
        if not wait_until(self.in_sync, self.wanted["sync_timeout"], pause=0.5):
            self.module.fail_json(
                msg=f"Master and replica were not in sync within {self.wanted['sync_timeout']} s: "
                f"{self.problem}. The server runs; look at both servers' logs, then run again."
            )

    def check_keys(self) -> None:
        """Fail when a master has come up with fewer keys than there were.

        A replica gets its keys from its master. A master gives its replicas what it has, so it is
        stopped where that is less than half, before they have copied it.
        """
        running = self.info()
        if running is None or self.had is None or running["replication"]["role"] != "master":
            return
        missing = missing_keys(self.had, running)
        if not missing:
            return
        found = lasting_keys(running)
        advice = "It runs. Compare its files with those of its replicas"
        if found < self.had.keys / 2 and self.stop_without_a_save():
            advice = (
                "It was stopped, without a save, so that its replicas keep what they have. Look at "
                "its files, and at those of its replicas"
            )
        self.fail(
            f"{self.unit} had {self.had.keys} keys that do not expire and came up with {found}. "
            f"{advice}, and at its log; see docs/runbooks/data-at-a-start.md. "
            f"{self.disk(self.settings()).describe()}"
        )

    def stop_without_a_save(self) -> bool:
        """Stop a server that must not put what it has over what lies there; tell whether it is."""
        try:
            with self.connect() as connection:
                connection.command("CONFIG", "SET", "save", "")
        except (OSError, ProtocolError, ServerError):
            return False
        self.systemctl("stop", self.unit)
        return True

    def settings(self) -> dict[str, str]:
        """What the present configuration file sets."""
        with open(self.config_file, "rb") as file:
            return dict(settings(decode(file.read())))

    def disk(self, values: Mapping[str, str]) -> Disk:
        """The files that a server with these settings loads and writes."""
        return Disk(self.facts, Place.of(values))

    def check_start(self) -> None:
        """Fail unless the file has a server that does not run load the newest data there is."""
        values = self.settings()
        self.had = check_start(self.unit, self.config_file, self.disk(values), values)

    def started_or_failed(self) -> bool:
        """Whether waiting any longer is of no use: it is ready, or it crashed."""
        return self.ready() or self.crashed()

    def crashed(self) -> bool:
        # Restart=always hides a server that cannot start: the count of restarts tells.
        return self.property("ActiveState") == "failed" or int(self.property("NRestarts") or 0) > 1

    def remember(self) -> None:
        """What a running server has, before it is stopped."""
        running = self.info()
        if running:
            # A server answers on while it shuts down; only another process is the new one.
            self.before = running["server"]["run_id"]
            self.replicas = online_replicas(running)
            if lasting_keys(running):
                self.had = held(running)

    def confirm(self, file: bytes) -> None:
        """Fail when the set is not what was decided on, while this server runs on as it is.

        Args:
            file: the file with which the server is about to start.
        """
        guard = Guard(self.facts, self.wanted["decided"])
        in_file = settings(decode(file))
        if guard.decided and self.property("ActiveState") != "active":
            place = Place.of(in_file)
            guard.check_empty(data_files(*lies(place)).has_keys)
        guard.check_file(in_file.get("replicaof"))
        guard.check_now(running=False, with_master=True)

    def refuse_stranger(self) -> None:
        """Fail when it is another server that answers: ours could not listen then."""
        others = strangers(self.facts["port"], self.unit)
        if others:
            self.fail(
                f"Port {self.facts['port']} is held by {others[0]}, which is no process of "
                f"{self.unit}, so that cannot listen there. Stop that process, then run again."
            )

    def refuse_sharer(self) -> None:
        """Fail when another server has the same data directory, before this one opens its files.

        Two instances that one run makes at the same time do not see each other any earlier; and by
        now the files of all say what they are to say.
        """
        folder = self.settings().get("dir", "")
        other = folder and (
            running_in(folder, self.unit) or configured_for(folder, self.config_file)
        )
        if other:
            self.module.fail_json(
                msg=f"{self.unit} was not started: {folder} is the data directory of {other} too, "
                "and each would write over the other's files. Correct redis_dir."
            )

    def refuse_unusable(self, verb: str) -> None:
        """Fail when the server could not come up with its files, before it is stopped for that."""
        values = settings(decode(existing_bytes(self.config_file)))
        account = pwd.getpwnam(self.facts["account"])
        problems = unusable(Files.of(self.facts, values), account)
        if problems:
            self.module.fail_json(
                msg=f"{self.unit} was not {verb}: the account {account.pw_name} "
                f"{', '.join(problems)}, so the server would not come up. Nothing was changed. "
                "Run site.yml, which mends owners and modes."
            )

    def stopped(self) -> bool:
        return self.property("ActiveState") in ("inactive", "failed")

    def stop(self) -> bool:
        """Stop the server; tell whether it has ended in time."""
        self.remember()
        self.systemctl("--no-block", "stop", self.unit)
        return bool(wait_until(self.stopped, self.wanted["ready_timeout"]))

    def retired(self) -> bool:
        """Whether it is stopped, and stays so when the machine starts."""
        return self.stopped() and self.property("UnitFileState") != "enabled"

    def retire(self) -> None:
        """Stop the server and keep it from starting with the machine."""
        guard = Guard(self.facts, self.wanted["decided"])
        guard.check_now(running=self.property("ActiveState") == "active")
        if not self.stop():
            self.fail(f"{self.unit} did not end within {self.wanted['ready_timeout']} s.")
        self.systemctl("disable", "--quiet", self.unit)

    def launch(self, verb: str) -> bool:
        """Start or restart; tell whether the server got ready in time."""
        # Unasked: NeedDaemonReload does not notice a new drop-in directory.
        self.systemctl("daemon-reload")
        if self.crashed():
            self.systemctl("reset-failed", self.unit)
        self.remember()
        # Not waited for by systemctl: the load of a large dataset outlasts any limit of its own.
        self.systemctl("--no-block", verb, self.unit)
        time.sleep(0.2)
        wait_until(self.started_or_failed, self.wanted["ready_timeout"])
        return self.ready()

    def save(self) -> None:
        """Take an RDB snapshot, so that a restart finds the data whatever the save points say."""
        try:
            with self.connect() as connection:
                self.check_that_data_comes_back(connection)
                wait_for_rewrite(connection, self.wanted["ready_timeout"])
                begin = int(connection.command("TIME")[0])
                bgsave(connection, self.wanted["ready_timeout"])
                disk = self.disk(self.settings())
                check_snapshot(disk, begin)
                if connection.config()["appendonly"] == "yes":
                    timeout = self.wanted["ready_timeout"]
                    check_append_only_file(self.unit, disk, connection, timeout)
                self.save_at_the_end(connection)
        except (OSError, ProtocolError, ConfError, ServerError, SaveError) as error:
            self.module.fail_json(
                msg=f"{self.unit} was not restarted: no snapshot could be taken before. "
                f"{error} {self.what_lies_there()}The server runs on as it was; mend that, then "
                "run again."
            )

    def what_lies_there(self) -> str:
        """The data files in words, for a message that is about something else."""
        try:
            return f"{self.disk(self.settings()).describe()} "
        except (OSError, ConfError):
            return ""

    def check_that_data_comes_back(self, connection: Connection) -> None:
        """Fail when the file names other data than the running server writes.

        Somebody may have changed the server alone. With `appendonly yes` in the file and not in the
        server, for one, a restart loads an append-only file that is old, or none.
        """
        in_file = self.settings()
        running = connection.config()
        for name, default in LOADED_FROM.items():
            wanted = in_file.get(name, default)
            if name == "dir":
                wanted = os.path.realpath(wanted)
            if normalise(name, [running.get(name, wanted)]) != normalise(name, [wanted]):
                self.module.fail_json(
                    msg=f"{self.unit} was not restarted: it runs with {name} "
                    f"{running[name]}, and {self.config_file} says {wanted}, from which "
                    "other data would be loaded, or none. Run site.yml, which settles that."
                )

    def save_at_the_end(self, connection: Connection) -> None:
        """Make the server save once more when it is stopped, whatever its file says.

        Without save points and append-only file, what was written since the snapshot would be
        gone. The file is not touched: the server that is started knows nothing of this.
        """
        running = connection.config()
        if running["appendonly"] == "no" and not running["save"]:
            connection.command("CONFIG", "SET", "save", "3600 1")

    def fail(self, message: str) -> NoReturn:
        self.module.fail_json(msg=message, log=self.last_words())
        raise AssertionError

    def last_words(self) -> list[str]:
        """The end of what the server and systemd logged."""
        journal = ["journalctl", "--unit", self.unit, "--lines", "8", "--output", "cat"]
        lines = str(self.module.run_command(journal)[1]).splitlines()
        log_file = self.facts["log_file"]
        if os.path.exists(log_file):
            tail = ["tail", "--lines", "4", log_file]
            lines += str(self.module.run_command(tail)[1]).splitlines()
        return lines


class Staged:
    """The configuration that was made ready for a restart, and the move of the data if it asks for
    one."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.file = instance.config_file
        self.before = existing_bytes(self.file)
        self.owner = pwd.getpwnam(instance.facts["account"])
        if not os.path.lexists(self.file + ".next"):
            instance.module.fail_json(
                msg=f"There is no {self.file}.next to restart {instance.unit} with. "
                "Nothing was changed; run site.yml again."
            )
        self.next = existing_bytes(self.file + ".next")
        self.source = Place.of(settings(decode(self.before)))
        self.target = Place.of(settings(decode(self.next)))
        self.dropin_before: bytes | None = None
        self.carried: Carried | None = None

    @property
    def moves(self) -> bool:
        return bool(self.source != self.target)

    def as_server(self) -> Any:
        """Files of the data are touched with the rights of the server's user alone."""
        return acting_as(self.owner.pw_uid, self.owner.pw_gid)

    def check(self) -> None:
        """What can be known before the server is stopped."""
        if not self.moves:
            return
        try:
            with self.as_server():
                check_writable(self.target)
        except MoveError as error:
            self.instance.module.fail_json(
                msg=f"{error} Nothing was changed, {self.instance.unit} runs on."
            )

    def move(self) -> None:
        """Stop the server and put its data where the new file says; on failure all is as before."""
        unit = self.instance.unit
        if not self.instance.stop():
            self.instance.fail(
                f"{unit} did not stop within {self.instance.wanted['ready_timeout']} s. Nothing "
                "was moved. When it has stopped, run again: it is started where its data lies."
            )
        try:
            with self.as_server():
                self.carried = carry(self.source, self.target)
                if data_files(*lies(self.source)) != data_files(*lies(self.target)):
                    self.carried.discard()
                    raise MoveError(f"{self.target.dir} holds other data than {self.source.dir}.")
        except MoveError as error:
            back = self.instance.launch("start")
            self.instance.fail(
                f"{error} The data is where it was, in {self.source.dir}, and {unit} "
                + ("runs again." if back else "does not start again.")
            )

    def install(self) -> None:
        """Give the new file, and with a move the new drop-in, their names."""
        dropin = self.instance.facts["unit_dropin"]
        if self.moves and os.path.exists(dropin + ".next"):
            if os.path.exists(dropin):
                self.dropin_before = read_bytes(dropin)
            os.replace(dropin + ".next", dropin)
        self.write(self.next)
        os.unlink(self.file + ".next")

    def put_back(self) -> str:
        """Put everything back after a failed start, and start the server so; say how that went."""
        unit = self.instance.unit
        if self.moves:
            self.instance.stop()
        if self.carried and not self.carried.untouched():
            return (
                f"The new server has written to {self.target.dir} already, so that data is newer "
                f"than that in {self.source.dir}; nothing was put back. Look at {unit} and its log."
            )
        if read_bytes(self.file) != self.before:
            self.write(self.before)
        if self.dropin_before is not None:
            write_bytes(self.instance.facts["unit_dropin"], self.dropin_before, 0o644, 0, 0)
        if self.carried:
            with self.as_server():
                self.carried.discard()
        self.instance.systemctl("reset-failed", unit)
        back = self.instance.launch("start" if self.moves else "restart")
        return "The previous configuration file was put back, and the server " + (
            "runs again with it." if back else "does not start with it either."
        )

    def finish(self) -> str | None:
        """Give up the old names of data that was moved; tell where the old files are kept."""
        if not self.carried:
            return None
        with self.as_server():
            kept: str | None = self.carried.retire()
        return kept

    def write(self, content: bytes) -> None:
        write_bytes(self.file, content, 0o640, self.owner.pw_uid, self.owner.pw_gid)


def lies(place: Place) -> tuple[str, dict[str, str]]:
    return place.dir, place.names()


def run(module: AnsibleModule, instance: Instance) -> dict[str, Any]:
    """Start, restart or stop the server; see DOCUMENTATION."""
    wanted = module.params
    if wanted["state"] == "stopped":
        instance.retire()
        return {}
    verb = "restart" if wanted["state"] == "restarted" else "start"
    staged = Staged(instance) if wanted["staged"] else None
    if staged:
        staged.check()
    if verb == "restart" and wanted["save_first"]:
        instance.save()
    elif not instance.has_keys():
        instance.check_start()
    instance.confirm(staged.next if staged else existing_bytes(instance.config_file))
    if staged and staged.moves:
        staged.move()
    if staged:
        try:
            staged.install()
        except OSError as error:
            advice = staged.put_back()
            instance.fail(f"{instance.config_file} could not be written: {error}. {advice}")
    if not instance.launch("start" if staged and staged.moves else verb):
        problem = "it exits at once" if instance.crashed() else instance.problem
        last_words = instance.last_words()
        advice = staged.put_back() if staged else "Its last words are below."
        module.fail_json(
            msg=f"{instance.unit} did not get ready after its {verb}, for which it has "
            f"{wanted['ready_timeout']} s: {problem}. {advice}",
            log=last_words,
        )
    instance.refuse_stranger()
    instance.check_keys()
    kept = staged.finish() if staged else None
    if kept:
        module.warn(
            f"{os.uname().nodename}: the data was copied to another file system. The old files are "
            f"kept in {kept}; delete them when they are not needed any more."
        )
    instance.wait_for_sync()
    replication = (instance.info() or {}).get("replication", {})
    replid = replication["master_replid"] if replication.get("repl_backlog_active") else None
    return {"kept": kept, "replid": replid}


def main() -> None:
    module = InstanceModule(
        argument_spec={
            **ARGUMENT_SPEC,
            **redis_guard.ARGUMENT_SPEC,
            "state": {
                "type": "str",
                "choices": ["started", "restarted", "stopped"],
                "default": "started",
            },
            "save_first": {"type": "bool", "default": False},
            "staged": {"type": "bool", "default": False},
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
    if wanted["state"] == "stopped" and instance.retired():
        module.exit_json(changed=False, seconds=0.0)
    try:
        # A dry run on a new host has no files yet.
        if wanted["state"] != "stopped" and (
            os.path.exists(instance.config_file) or not module.check_mode
        ):
            instance.refuse_unusable(wanted["state"])
            instance.refuse_sharer()
        if module.check_mode:
            module.exit_json(changed=True)
        with module.changing(f"redis_service, {wanted['state']}"):
            result = run(module, instance)
    except GuardError as error:
        module.fail_json(msg=f"{error} {redis_guard.ADVICE}")
    except StartError as error:
        module.fail_json(msg=str(error))
    except (OSError, ConfError, InfoError, ServerError, ProtocolError) as error:
        module.fail_json(
            msg=f"{instance.unit} could not be {wanted['state']}: {error}. See whether it runs; "
            "once that is mended, run again."
        )
    module.exit_json(changed=True, seconds=round(time.monotonic() - begin, 1), **result)


if __name__ == "__main__":
    main()
