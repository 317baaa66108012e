"""The filter redis_conf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.module_utils.conf_render import render
from ansible_collections.proven.redis.plugins.module_utils.conf_text import ConfError

DOCUMENTATION = r"""
name: redis_conf
short_description: Turn a dictionary into the lines of a redis.conf
description:
  - Writes one directive per entry, in the order of the dictionary, quoted as Redis itself quotes.
  - Booleans become C(yes) and C(no). An entry without a value (null) is left out.
  - A list gives repeated lines where Redis adds lines up (C(save), C(client-output-buffer-limit),
    C(user), C(rename-command), C(loadmodule), C(include)), and the arguments of one line where it
    takes several there (C(bind), C(replicaof), C(oom-score-adj-values), C(shutdown-on-sigterm) and
    the like). For these directives a text is split as Redis would split it; for any other it is
    one value, whatever is in it.
  - An empty C(save) becomes C(save ""), because no line at all would mean Redis's own save points.
  - Names that changed with time (C(slaveof) and C(replicaof), ziplist and listpack) are spelled
    for the version, whichever is given.
notes:
  - Fails for a value with a newline or NUL character, for a directive that is given twice (under
    its old and its new name, too), and for a list where Redis takes one value. The message never
    shows a value.
positional: _input
options:
  _input:
    description: Directives and their values.
    type: dict
    required: true
  version:
    description: The version of Redis that will read the file, such as V(7.0) or V(6.0.16).
    type: str
    default: "7.0"
"""

EXAMPLES = r"""
- name: Show the lines
  ansible.builtin.debug:
    msg: "{{ directives | proven.redis.redis_conf(version='7.0') }}"
  vars:
    directives:
      bind: [192.0.2.11, 127.0.0.1]
      appendonly: true
      save: [900 1, 300 10]
      requirepass: 'a "quoted" secret # with a hash'
      slaveof: [192.0.2.12, 6379]
      maxmemory: null
# bind 192.0.2.11 127.0.0.1
# appendonly yes
# save 900 1
# save 300 10
# requirepass "a \"quoted\" secret # with a hash"
# replicaof 192.0.2.12 6379
"""

RETURN = r"""
_value:
  description: The lines, each ended by a newline. Only ASCII; other characters are written as
    C(\xHH).
  type: str
"""


def redis_conf(mapping: Any, version: str = "7.0") -> str:
    """The lines of a redis.conf; see DOCUMENTATION."""
    if not isinstance(mapping, Mapping):
        raise AnsibleFilterError(
            f"redis_conf: it takes a dictionary of directives, not {type(mapping).__name__}"
        )
    try:
        return render(mapping, str(version))
    except ConfError as error:
        raise AnsibleFilterError(f"redis_conf: {error}") from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file by name."""
        return {"redis_conf": redis_conf}
