"""Lookup: a Python package as one executable file, the same bytes for the same sources."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: redis_backup_zipapp
short_description: Build a zip application from a Python package
description:
  - Packs the modules of a package into one executable zip application, in a directory of the
    controller that Ansible removes at the end of the run, and returns its path.
  - The file's bytes depend on the names and contents of the modules alone. Nothing is compressed
    and no time is stored, so that another controller builds the same file and
    M(ansible.builtin.copy) has nothing to do.
  - The application calls C(cli.main) of the package and exits with what it returns.
options:
  _terms:
    description: Directories, each a Python package.
    required: true
    type: list
    elements: path
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Install the tool
  ansible.builtin.copy:
    src: "{{ lookup('proven.redis.redis_backup_zipapp', role_path ~ '/files/redis_backup') }}"
    dest: /usr/local/bin/redis-backup
    mode: "0755"
"""

RETURN = r"""
_raw:
  description: Path of the built file, one per package.
  type: list
  elements: path
"""

INTERPRETER = "/usr/bin/python3"
# The earliest date that a zip archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
MAIN = """\
import sys

from {package}.cli import main

sys.exit(main())
"""


def modules(package: Path) -> dict[str, bytes]:
    """The sources of a package by their path below its parent. Raises AnsibleError without any."""
    found = {
        path.relative_to(package.parent).as_posix(): path.read_bytes()
        for path in package.rglob("*.py")
    }
    if f"{package.name}/__init__.py" not in found:
        raise AnsibleError(f"{package} is no Python package: it has no __init__.py")
    return found


def zipapp(package: str, sources: Mapping[str, bytes]) -> bytes:
    """The application as bytes. Pure: the same sources give the same bytes on every controller."""
    buffer = BytesIO()
    # Offsets in the archive count from the start of the file, shebang included.
    buffer.write(f"#!{INTERPRETER}\n".encode())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        contents = {**sources, "__main__.py": MAIN.format(package=package).encode()}
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # Unix, whatever the controller is
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, contents[name])
    return buffer.getvalue()


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(
        self,
        terms: list[str],
        variables: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """See DOCUMENTATION."""
        self.set_options(var_options=variables, direct=kwargs)
        return [self._build(Path(term)) for term in terms]

    def _build(self, package: Path) -> str:
        content = zipapp(package.name, modules(package))
        directory = Path(constants.DEFAULT_LOCAL_TMP)
        path = directory / f"{package.name}-{hashlib.sha256(content).hexdigest()[:16]}.pyz"
        if not path.exists():
            # Each host has a worker of its own that does this at the same time: whole files only.
            descriptor, scratch = tempfile.mkstemp(dir=directory)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(scratch).replace(path)
        return str(path)
