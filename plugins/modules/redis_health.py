#!/usr/bin/python
"""Ansible module: what an operator should know of a running instance besides its role."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_health
short_description: Tell what an operator should know of one Redis instance besides its role
description:
  - Reads whether the instance can save, write its append-only file and take writes, and how much
    room its data has. Changes nothing.
  - An instance that does not answer is told by M(proven.redis.redis_state); here it has no
    C(persistence).
options:
  dir:
    description: Data directory as the inventory says, for an instance that does not answer.
    type: path
    required: true
extends_documentation_fragment: proven.redis.instance
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Read what else is to be known of the instance
  proven.redis.redis_health:
    instance: "{{ instance }}"
    dir: /var/lib/redis
"""

RETURN = r"""
persistence:
  description: >-
    The section of INFO of that name; null where the instance does not answer, or takes no password
    given.
  type: dict
  returned: always
replication:
  description: The section of INFO of that name, with C(min_replicas_to_write); null likewise.
  type: dict
  returned: always
disk:
  description: >-
    The data directory C(dir), its C(free) bytes, and the bytes C(needed) by the next snapshot;
    null where there is no such directory.
  type: dict
  returned: always
"""

import os
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.redis_info import InfoError, parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_instance import (
    ARGUMENT_SPEC,
    InstanceModule,
    connect,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    ProtocolError,
    ServerError,
)

# Redis writes a snapshot beside the one before; the rest is for its log and the append-only file.
RESERVE = 64 * 1024 * 1024


def disk_of(directory: str, dbfilename: str) -> dict[str, Any] | None:
    """The room of a data directory, and what its next snapshot takes."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    try:
        snapshot = os.stat(os.path.join(directory, dbfilename)).st_size
    except OSError:
        snapshot = 0
    free = status.f_bavail * status.f_frsize
    return {"dir": directory, "free": free, "needed": snapshot + RESERVE}


def main() -> None:
    module = InstanceModule(
        argument_spec={
            **ARGUMENT_SPEC,
            "dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    instance, directory, dbfilename = module.params["instance"], module.params["dir"], "dump.rdb"
    persistence: dict[str, Any] | None = None
    replication: dict[str, Any] | None = None
    try:
        with connect(instance, timeout=5) as connection:
            info = parse_info(connection.command("INFO", "all"))
            config = connection.config()
        persistence = dict(info["persistence"])
        replication = dict(info["replication"])
        replication["min_replicas_to_write"] = int(config.get("min-replicas-to-write", 0))
        directory, dbfilename = config.get("dir", directory), config.get("dbfilename", dbfilename)
    except (OSError, ServerError, ProtocolError, InfoError, KeyError):
        # The state of the instance has said so already.
        persistence = replication = None
    module.exit_json(
        changed=False,
        persistence=persistence,
        replication=replication,
        disk=disk_of(directory, dbfilename),
    )


if __name__ == "__main__":
    main()
