#!/usr/bin/python
"""Ansible module: see that a TCP port is free for a unit, or that the unit listens on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: listening_port
short_description: See that a TCP port is free for a unit, or that the unit listens on it
description:
  - Fails when another process than one of the unit listens on the port, on whatever address, and
    names that process and its unit.
  - With O(state=listening), waits until a process of the unit listens. A unit that is active may
    be one that fails to listen, ends and is started again.
  - Changes nothing.
options:
  port:
    description: Number of the port.
    type: int
    required: true
  unit:
    description: Unit of systemd that is to have the port.
    type: str
    required: true
  variable:
    description: Name of the variable that says the port, for the message.
    type: str
    required: true
  state:
    description: Whether the port has to be free for the unit, or in its hands.
    type: str
    choices: [free, listening]
    default: free
  timeout:
    description: Seconds to wait for the unit to listen.
    type: int
    default: 15
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Check that nobody else has the port of the rsync daemon
  proven.redis.listening_port:
    port: 873
    unit: redis-backup-rsyncd.service
    variable: redis_backup_server_rsync_port
"""

RETURN = r"""
listeners:
  description: Who listens on the port, in words.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils.listeners import Listener, listeners
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import wait_until


def taken(port: int, unit: str, variable: str, others: list[Listener]) -> str:
    """What is wrong when others have the port, and what to do."""
    holder = others[0]
    cure = (
        f"If nothing needs it, systemctl disable --now {holder.unit}; else"
        if holder.unit.endswith(".service")
        else "End it; or"
    )
    if holder.pid == 1:
        cure = "A socket unit has it (systemctl list-sockets): disable that; or"
    return (
        f"Port {port} is held by {holder} on {holder.address}, so {unit} cannot listen there. "
        f"{cure} give another port in {variable}."
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "port": {"type": "int", "required": True},
            "unit": {"type": "str", "required": True},
            "variable": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["free", "listening"], "default": "free"},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    port, unit = module.params["port"], module.params["unit"]

    def ours() -> bool:
        return any(one.unit == unit for one in listeners(port))

    if module.params["state"] == "listening":
        listens = wait_until(ours, module.params["timeout"])
    else:
        listens = True
    found = listeners(port)
    others = [one for one in found if one.unit != unit]
    if others:
        begin = "Nothing was changed. " if module.params["state"] == "free" else ""
        module.fail_json(msg=begin + taken(port, unit, module.params["variable"], others))
    if not listens:
        journal = ["journalctl", "--unit", unit, "--lines", "6", "--output", "cat"]
        module.fail_json(
            msg=f"{unit} was started and does not listen on port {port} after "
            f"{module.params['timeout']} s. The end of its journal is below.",
            log=str(module.run_command(journal)[1]).splitlines(),
        )
    module.exit_json(changed=False, listeners=[str(one) for one in found])


if __name__ == "__main__":
    main()
