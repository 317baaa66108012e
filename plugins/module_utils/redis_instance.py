"""The option `instance` of the modules: where one Redis server is and how to log in to it.

Its documentation is plugins/doc_fragments/instance.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
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
