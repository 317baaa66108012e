"""Lookup: the program redis-backup as one executable file, the same bytes for the same sources."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: redis_backup_zipapp
short_description: Pack the program redis-backup into one executable file
description:
  - Packs the Python package of the role C(redis_backup_tool) into one executable zip application,
    in a directory of the controller that Ansible removes at the end of the run, and returns its
    path.
  - The file's bytes depend on the sources and on the version alone. Nothing is compressed and no
    time is stored, so that another controller builds the same file and M(ansible.builtin.copy) has
    nothing to do.
  - The version is that of the collection. In a git checkout, the commit that last changed the
    program follows it, and C(.modified) where the program was changed since.
options:
  _terms:
    description: Nothing; the lookup takes no terms.
    type: list
    elements: str
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Install the tool
  ansible.builtin.copy:
    src: "{{ lookup('proven.redis.redis_backup_zipapp') }}"
    dest: /usr/local/bin/redis-backup
    mode: "0755"
"""

RETURN = r"""
_raw:
  description: Path of the built file.
  type: list
  elements: path
"""

COLLECTION = Path(__file__).resolve().parents[2]
PACKAGE = Path("roles/redis_backup_tool/files/redis_backup")
INTERPRETER = "/usr/bin/python3"
# The earliest date that a zip archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
MAIN = """\
import sys

from {package}.commands.cli import main

sys.exit(main())
"""


def run_sources(
    code: str, *words: str, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python code on the controller that imports the program from its sources, whose directory
    is the first argument it gets, before these words; `text` is its standard input. Unpacked: a
    check of many hosts has no use for the version that git is asked for.
    """
    sources = str((COLLECTION / PACKAGE).parent)
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", code, sources, *words],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


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


def version(collection: Path) -> str:
    """The version of the collection, with the commit of the program where git knows it."""
    if not (collection / "galaxy.yml").exists():
        manifest = json.loads((collection / "MANIFEST.json").read_bytes())
        return str(manifest["collection_info"]["version"])
    released = str(yaml.safe_load((collection / "galaxy.yml").read_bytes())["version"])
    # A copy that lies in somebody else's repository has no commit of its own.
    if not (collection / ".git").exists():
        return released
    commit = _git(collection, "log", "-1", "--format=%H")
    # In a shallow clone, the oldest commit seems to have changed everything.
    if not commit or (collection / ".git" / "shallow").exists():
        return released
    modified = ".modified" if _git(collection, "status", "--porcelain") else ""
    return f"{released}+{commit[:12]}{modified}"


def _git(collection: Path, *words: str) -> str:
    """What git answers about the program and its version; empty where git cannot be asked."""
    # Whoever runs Ansible runs what is in the checkout, whosever it is. A hook of another
    # repository may have set GIT_DIR.
    git = [
        "git",
        "--no-optional-locks",
        "-c",
        f"safe.directory={collection}",
        "-C",
        str(collection),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            [*git, *words, "--", f":(glob){PACKAGE}/**/*.py", "galaxy.yml"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def build(collection: Path = COLLECTION) -> Path:
    """The path of the packed program; packed by the first that asks in a run of Ansible."""
    package = collection / PACKAGE
    sources = modules(package)
    sources[f"{package.name}/_version.py"] = f"VERSION = {version(collection)!r}\n".encode()
    content = zipapp(package.name, sources)
    directory = Path(constants.DEFAULT_LOCAL_TMP)
    path = directory / f"{package.name}-{hashlib.sha256(content).hexdigest()[:16]}.pyz"
    if not path.exists():
        # Each host has a worker of its own that does this at the same time: whole files only.
        descriptor, beside = tempfile.mkstemp(dir=directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(beside).replace(path)
    return path


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
        if terms:
            raise AnsibleError("redis_backup_zipapp takes no terms: it packs redis-backup alone")
        return [str(build())]
