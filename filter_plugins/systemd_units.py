"""Filter: what `systemctl show` says of several units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DOCUMENTATION = r"""
name: systemd_units
short_description: Properties of each unit in the output of C(systemctl show)
options:
  _input:
    description: The output of C(systemctl show --property=… UNIT …).
    type: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
units: "{{ shown.stdout | systemd_units }}"
# -> [{Id: cron.service, ActiveState: active}, {Id: ssh.service, ActiveState: failed}]
"""

RETURN = r"""
_value:
  description: One dictionary of properties per unit, in the order given.
  type: list
  elements: dict
"""


def systemd_units(output: str) -> list[dict[str, str]]:
    """See DOCUMENTATION."""
    units: list[dict[str, str]] = []
    for block in output.strip().split("\n\n"):
        pairs = [line.partition("=") for line in block.splitlines()]
        units.append({name: value for name, _, value in pairs})
    return units


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"systemd_units": systemd_units}
