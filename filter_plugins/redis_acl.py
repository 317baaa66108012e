"""The filter redis_acl."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import AclError, render

DOCUMENTATION = r"""
name: redis_acl
short_description: Turn a list of users into the lines of an aclfile
description:
  - Writes one line per user, passwords as their SHA-256. There is always a line for the user
    C(default), because an aclfile without one lets everybody in.
  - The rules about channels that Redis 6.0 does not know are taken out on the host.
notes:
  - Fails for a user without a password or without rules. The message never shows a password.
positional: _input
options:
  _input:
    description: The users, as the role's variable redis_acl_users describes them.
    type: list
    elements: dict
    required: true
  admin_user:
    description: User that may do everything. With another name than V(default), C(default) is off.
    type: str
    default: default
  passwords:
    description: Passwords of that user. None at all means that it needs none.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show the lines
  ansible.builtin.debug:
    msg: "{{ users | proven.redis.redis_acl(passwords=['the password of the administrator']) }}"
  vars:
    users:
      - {name: shop, preset: application, password: a long password}
# user default on #d00f79e0... ~* &* +@all
# user shop on #31e30fee... ~* &* +@all -@admin -@dangerous +info ...
"""

RETURN = r"""
_value:
  description: The lines, each ended by a newline.
  type: str
"""


def redis_acl(users: Any, admin_user: str = "default", passwords: Sequence[str] = ()) -> str:
    """The lines of an aclfile; see DOCUMENTATION."""
    if (
        isinstance(users, (str, Mapping))
        or not isinstance(users, Sequence)
        or not all(isinstance(user, Mapping) for user in users)
    ):
        raise AnsibleFilterError("redis_acl: it takes a list of users, each a dictionary")
    try:
        return render(users, admin_user, [str(word) for word in passwords if word])
    except AclError as error:
        raise AnsibleFilterError(f"redis_acl: {error}") from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file by name."""
        return {"redis_acl": redis_acl}
