"""Documentation of the option `decided`, which modules that change a role share."""

from __future__ import annotations


class ModuleDocFragment:
    """What Ansible loads. The argument spec is in module_utils/redis_guard.py."""

    DOCUMENTATION = r"""
options:
  decided:
    description: >-
      What was decided about the instance, an entry of the plan of the filter
      P(proven.redis.redis_topology#filter), and what that was based on. Without it, nothing is
      looked at again.
    type: dict
    suboptions:
      host:
        description: Name of the host.
        type: str
        required: true
      role:
        description: What the instance is to be.
        type: str
        choices: [master, replica]
        required: true
      does:
        description: What happens to it.
        type: str
        required: true
      replicaof:
        description: Address and port of its master, none for the master.
        type: list
        elements: str
      seen_role:
        description: The role that it had, none where it did not run.
        type: str
      seen_master:
        description: Address and port of the instance that it followed, none where it followed none.
        type: list
        elements: str
      may_lose:
        description: Whether its data may be given up, by redis_rejoin_as_replica.
        type: bool
        default: false
      master:
        description: Name of the master's host.
        type: str
        required: true
      master_addresses:
        description: Address of the master, and other names of it.
        type: list
        elements: str
        required: true
      master_port:
        description: TCP port of the master.
        type: int
        required: true
      master_replid:
        description: >-
          Replication id of the master, none where it had no backlog and so is going to take
          another.
        type: str
"""
