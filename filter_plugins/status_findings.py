"""Filter: what is wrong with the sets, the backups and the drills of an inventory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.proven.redis.plugins.filter.redis_instances import redis_instances
from ansible_collections.proven.redis.plugins.filter.redis_sets import redis_sets
from ansible_collections.proven.redis.plugins.module_utils.redis_findings import (
    of_drill_host,
    of_server,
    of_set,
    units_shown,
)

DOCUMENTATION = r"""
name: status_findings
short_description: What is wrong with the sets, the backups and the drills of an inventory
description:
  - Puts into sentences what the playbook C(show_status) has registered on the hosts of its run.
  - Who is the master of a set is never wrong by itself.
positional: hostvars, looked_at, servers, drill_hosts
options:
  _input:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable of this name.
    type: dict
    required: true
  looked_at:
    description: Names of the hosts of the run.
    type: list
    elements: str
    required: true
  servers:
    description: Names of the backup servers.
    type: list
    elements: str
    required: true
  drill_hosts:
    description: Names of the drill hosts.
    type: list
    elements: str
    required: true
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
findings: "{{ groups | proven.redis.status_findings(hostvars, hosts, ['backup-1'], ['drill-1']) }}"
# -> [the link of redis-2 to its master redis-1 is down]
"""

RETURN = r"""
_value:
  description: A sentence each, without a full stop; empty when nothing is wrong.
  type: list
  elements: str
"""

# Units that run, now and after a boot; services that a timer starts may just not have failed.
DAEMONS = (".timer", "redis-backup-rsyncd.service", "cron.service")


def status_findings(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    looked_at: Sequence[str],
    servers: Sequence[str],
    drill_hosts: Sequence[str],
) -> list[str]:
    """See DOCUMENTATION."""
    # Ansible gathers the variables of a host anew at each access.
    known = {host: hostvars[host] for host in groups["all"]}
    outside = [
        result
        for host in looked_at
        for result in (known[host].get("__redis_outside_states") or {}).get("results") or ()
        if not result.get("skipped")
    ]
    found: list[str] = []
    sets = redis_sets(groups, known)
    for name, each in redis_sets(groups, known, looked_at).items():
        hosts = [
            host
            for group in each["groups"]
            for host in groups[group]
            if host in looked_at or any(_host_of(result) == host for result in outside)
        ]
        seen = {host: _redis_host(known[host]) for host in hosts if host in looked_at}
        if hosts:
            found += of_set(name, redis_instances(hosts, known, outside), seen)
    for host in servers:
        if host in looked_at:
            found += of_server(host, _server(known[host]), list(sets))
    for host in drill_hosts:
        if host in looked_at:
            found += of_drill_host(host, _drill_host(known[host]))
    return list(dict.fromkeys(found))


def _host_of(result: Mapping[str, Any]) -> str:
    return str(result[result["ansible_loop_var"]]["host"])


def _redis_host(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a Redis host, as `of_host` takes it."""
    health = variables.get("__redis_health") or {}
    facts = (variables.get("__redis_state") or {}).get("host") or {}
    lines: list[str] = []
    for name in ("__redis_planned_users", "__redis_planned"):
        lines += (variables.get(name) or {}).get("plan") or ()
    lines += _paths(variables, "__redis_planned_files")
    return {
        "silence": variables.get("status_redis_silence"),
        "problem": variables.get("status_redis_problem"),
        "settings": lines,
        "enabled": facts.get("enabled"),
        **{name: health.get(name) for name in ("persistence", "replication", "disk")},
        "units": _units(variables, "__redis_backup_units"),
        "schedule": _paths(variables, "__redis_backup_compared"),
        "crontabs": (variables.get("__redis_backup_crontabs") or {}).get("lines") or [],
    }


def _server(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a backup server, as `of_server` takes it."""
    checked = variables.get("status_backup_check") or {}
    silence = variables.get("status_server_silence")
    checks: list[Any] = []
    try:
        checks = json.loads(checked.get("stdout") or "{}").get("checks") or []
    except ValueError:
        silence = silence or "`redis-backup check` gave no answer that can be read"
    return {
        "silence": silence,
        "checks": checks,
        "units": _units(variables, "__redis_backup_server_shown"),
        "files": _paths(variables, "__redis_backup_server_compared"),
    }


def _drill_host(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "silence": variables.get("status_drill_silence"),
        "schedule": _paths(variables, "__redis_restore_drill_compared"),
        "units": _units(variables, "__redis_restore_drill_units"),
    }


def _paths(variables: Mapping[str, Any], name: str) -> list[str]:
    """Paths that a module in check mode would change."""
    return [str(path) for path in (variables.get(name) or {}).get("paths") or ()]


def _units(variables: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """Units of a registered `systemctl show`."""
    return units_shown((variables.get(name) or {}).get("stdout") or "", DAEMONS)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"status_findings": status_findings}
