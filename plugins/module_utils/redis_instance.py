"""The option `instance` of the modules: where one Redis server is and how to log in to it.

Its documentation is plugins/doc_fragments/instance.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils import redis_lock
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    Login,
    logins,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "instance": {
        "type": "dict",
        "required": True,
        "options": {
            "unit": {"type": "str", "required": True},
            "unit_dropin": {"type": "path", "required": True},
            "server": {"type": "path", "required": True},
            "account": {"type": "str", "required": True},
            "config_file": {"type": "path", "required": True},
            "log_file": {"type": "path", "required": True},
            "addresses": {"type": "list", "elements": "str", "required": True},
            "port": {"type": "int", "required": True},
            "username": {"type": "str", "default": "default"},
            "password": {"type": "str", "no_log": True},
            "previous_password": {"type": "str", "no_log": True},
            "run": {"type": "str", "default": ""},
            "lock_timeout": {"type": "int", "default": 1200},
        },
    }
}


class InstanceModule(AnsibleModule):
    """A module with that option, which logs nothing on its host.

    Ansible logs the arguments of a module, a dictionary as the text that Python makes of it. In
    there it does not know a password again in which Python escapes a character.
    """

    def log(self, msg: str, log_args: Mapping[str, Any] | None = None) -> None:
        """Nothing."""

    @contextmanager
    def reading(self) -> Iterator[redis_lock.Change | None]:
        """Hold the lock of the instance for reading; the value is its last change.

        Fails where somebody changes the instance for too long.
        """
        instance = self.params["instance"]
        try:
            with redis_lock.shared(instance["unit"], instance["lock_timeout"]) as last:
                yield last
        except redis_lock.LockedError as error:
            self.fail_json(msg=f"{error}. Run again when that has ended.")

    @contextmanager
    def changing(self, task: str, noted: redis_lock.Change | None = None) -> Iterator[None]:
        """Hold the lock of the instance: for a change, or in check mode for reading.

        Fails where somebody else holds it for too long, and where another run has changed the
        instance since this one claimed it.

        Args:
            task: what the module is about to do, for whoever waits meanwhile.
            noted: the last change that this run knows of; its own are known in any case.
        """
        if self.check_mode:
            with self.reading():
                yield
            return
        instance = self.params["instance"]
        unit, run = instance["unit"], instance["run"]
        try:
            with redis_lock.exclusive(unit, instance["lock_timeout"]) as lock:
                last = lock.last()
                if run and last and last.run != run and last != noted:
                    raise redis_lock.LockedError(f"another run is at work on {unit} ({last})")
                lock.write(run, task)
                yield
        except redis_lock.LockedError as error:
            self.fail_json(
                msg=f"This run changes nothing more here: {error}. Run again when that has ended."
            )


_LOGIN = frozenset(["username", "password", "previous_password"])


def without_login(instance: Mapping[str, Any]) -> dict[str, Any]:
    """What another host may know of the instance."""
    return {name: value for name, value in instance.items() if name not in _LOGIN}


def logins_of(instance: Mapping[str, Any], *more_passwords: str | None) -> list[Login]:
    """What to try to log in with."""
    passwords = (instance["password"], instance["previous_password"], *more_passwords)
    return logins(instance["username"], *passwords)


def connect(
    instance: Mapping[str, Any], *more_passwords: str | None, timeout: float = 30.0
) -> Connection:
    """Connect to the first address that answers, and log in by the first password it takes.

    Raises:
        OSError: none of the addresses answers.
        ServerError: one answers and refuses every login.
    """
    tried = logins_of(instance, *more_passwords)
    refused: OSError | None = None
    for address in instance["addresses"]:
        try:
            connection = Connection(address, instance["port"], timeout=timeout)
        except OSError as error:
            refused = refused or error
            continue
        try:
            connection.log_in(tried)
        except BaseException:
            connection.close()
            raise
        return connection
    raise refused or OSError("no address given")
