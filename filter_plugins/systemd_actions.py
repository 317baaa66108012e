"""Filter: what has to be done so that units of systemd run as their files say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.systemd_time import seconds

DOCUMENTATION = r"""
name: systemd_actions
short_description: What to start, restart, stop and reload so that units run as their files say
description:
  - A unit is restarted when this run has changed its file, when systemd has not read its file since
    (C(NeedDaemonReload)), and when the file is newer than the start, as a reload by somebody else
    makes systemd forget that it had not read it.
positional: enabled, disabled, modified, changed
options:
  _input:
    description: >-
      The output of C(systemctl show --property=… UNIT …) with the properties C(Id), C(ActiveState),
      C(UnitFileState), C(NeedDaemonReload) and C(ActiveEnterTimestamp), the last in UTC.
    type: str
    required: true
  enabled:
    description: Names of the units that are to run, now and after a boot.
    type: list
    elements: str
    required: true
  disabled:
    description: >-
      Names of the units that are to run neither now nor after a boot. All others are only reloaded.
    type: list
    elements: str
    required: true
  modified:
    description: When each file was last written, in seconds since 1970, by its path.
    type: dict
    required: true
  changed:
    description: Paths of the files that this run has changed.
    type: list
    elements: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
loop: >-
  {{ shown.stdout
     | proven.redis.systemd_actions(['a.timer'], ['b.service'], made.modified, made.paths) }}
# -> [{unit: a.timer, state: restarted, reload: true},
#     {unit: b.service, state: stopped, reload: false}]
"""

RETURN = r"""
_value:
  description: >-
    For each unit that needs something its name C(unit), the C(state) to bring it to (V(started),
    V(restarted), V(stopped), or none), and whether systemd has to C(reload) its files before.
  type: list
  elements: dict
"""


def systemd_actions(
    shown: str,
    enabled: Collection[str],
    disabled: Collection[str],
    modified: Mapping[str, float],
    changed: Collection[str],
) -> list[dict[str, Any]]:
    """What has to be done so that every unit runs as its file says; see DOCUMENTATION."""
    actions: list[dict[str, Any]] = []
    for unit in _units(shown):
        path = f"/etc/systemd/system/{unit['Id']}"
        reload = unit["NeedDaemonReload"] == "yes" or path in changed
        state = None
        if unit["Id"] in disabled:
            if unit["ActiveState"] != "inactive" or unit["UnitFileState"] == "enabled":
                state = "stopped"
        elif unit["Id"] in enabled:
            if unit["ActiveState"] != "active":
                state = "started"
            elif reload or modified.get(path, 0) // 1 > seconds(unit["ActiveEnterTimestamp"]):
                state = "restarted"
            elif unit["UnitFileState"] != "enabled":
                state = "started"
        if state or reload:
            actions.append({"unit": unit["Id"], "state": state, "reload": reload})
    return actions


def _units(shown: str) -> list[dict[str, str]]:
    """The properties of each unit, in the order given."""
    units: list[dict[str, str]] = []
    for block in shown.strip().split("\n\n"):
        pairs = [line.partition("=") for line in block.splitlines()]
        units.append({name: value for name, _, value in pairs})
    return units


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"systemd_actions": systemd_actions}
