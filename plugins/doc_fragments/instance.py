"""Documentation of the option `instance`, which the modules for one Redis server share."""

from __future__ import annotations


class ModuleDocFragment:
    """What Ansible loads. The argument spec is in module_utils/redis_instance.py."""

    DOCUMENTATION = r"""
options:
  instance:
    description: >-
      Where one Redis server is and how to log in to it. All modules take the same dictionary,
      whether or not they need every entry.
    type: dict
    required: true
    suboptions:
      unit:
        description: Name of the systemd unit.
        type: str
        required: true
      unit_dropin:
        description: Path of the unit's drop-in.
        type: path
        required: true
      server:
        description: Path of the server's binary.
        type: path
        required: true
      account:
        description: User and group that the server runs as, owner of its files.
        type: str
        required: true
      config_file:
        description: Path of the server's configuration file.
        type: path
        required: true
      log_file:
        description: Path of the server's log.
        type: path
        required: true
      addresses:
        description: Addresses to try, the first that answers is used.
        type: list
        elements: str
        required: true
      port:
        description: TCP port of the server.
        type: int
        required: true
      username:
        description: User to log in as.
        type: str
        default: default
      password:
        description: Password of that user.
        type: str
      previous_password:
        description: Another password to try.
        type: str
      run:
        description: >-
          Id of this run of Ansible. A module that changes something fails where another run has
          changed the instance since P(proven.redis.redis_claim#module). Empty, nothing is claimed.
        type: str
        default: ''
      lock_timeout:
        description: Seconds to wait for a module of another run that changes the instance.
        type: int
        default: 1200
"""
