"""Lookup: a secret that is kept in a file of the controller, without making one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: kept_secret
short_description: Read a secret that is kept beside the inventory
description:
  - Reads what P(ansible.builtin.password#lookup) has stored, and makes nothing. So a dry run and a
    run that is refused leave no secret behind.
  - Where there is no such file, the answer begins with V(not-made-yet-) and is another one each
    time, so that nobody can use it should it ever be deployed. The role that needs the secret makes
    it, right before its first use.
options:
  _terms:
    description: Directory of the inventory, and name of the file below C(.secrets/) in it.
    required: true
    type: list
    elements: raw
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
redis_backup_rsync_secret: >-
  {{ lookup('proven.redis.kept_secret', inventory_dir, inventory_hostname ~ '.rsync') }}
"""

RETURN = r"""
_raw:
  description: The secret.
  type: list
  elements: str
"""

NOT_MADE = "not-made-yet-"


def read(path: Path) -> str:
    """The secret in the file; a new placeholder where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return NOT_MADE + secrets.token_hex(16)
    return re.sub(r" (salt|ident)=.*", "", text.rstrip("\n"))


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(
        self,
        terms: list[str | None],
        variables: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """See DOCUMENTATION."""
        self.set_options(var_options=variables, direct=kwargs)
        directory, name = terms
        # Ansible makes text of its own None.
        if directory in (None, "", "None"):
            raise AnsibleError(
                f"the secret {name} is kept beside the inventory, and this inventory is in no file;"
                " give an inventory that is a file with -i, or the secret as a variable"
            )
        path = Path(str(directory)) / ".secrets" / str(name)
        try:
            return [read(path)]
        except (OSError, UnicodeDecodeError) as error:
            raise AnsibleError(f"{path} cannot be read: {error}") from error
