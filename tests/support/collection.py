"""The collection as other people get it: built from a copy of the checkout, installed at home."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from tests.support import ansible_runs
from tests.support.ansible_runs import ROOT, good


def home_of(directory: Path) -> Path:
    """The home of the user who works in a directory. It is made where it is missing."""
    home = directory.with_name(f"{directory.name}-home")
    home.mkdir(exist_ok=True)
    return home


def ansible(directory: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs in a directory, as somebody who has set nothing up, and whose
    collections are those that were installed from that directory.
    """
    home = str(home_of(directory))
    return ansible_runs.ansible(
        program, *words, cwd=directory, HOME=home, PYTHONDONTWRITEBYTECODE="1"
    )


def clone(directory: Path) -> Path:
    """What git has of this checkout, and what is to be added to it, in another place."""
    names = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT
    )
    packed = directory / "files.tar"
    with tarfile.open(packed, "w") as archive:
        for name in names.decode().rstrip("\0").split("\0"):
            if (ROOT / name).is_symlink() or (ROOT / name).exists():
                archive.add(ROOT / name, arcname=name)
    (directory / "redis").mkdir()
    # By tar: what `extractall` wants to be given differs between the releases of Python.
    subprocess.run(["tar", "-xf", packed, "-C", directory / "redis"], check=True)
    return directory / "redis"


def install(checkout: Path, directory: Path) -> None:
    """Build the collection and install it for the user who works in the directory."""
    output = ["--output-path", str(directory)]
    good(ansible(checkout, "ansible-galaxy", "collection", "build", *output))
    (built,) = directory.glob("proven-redis-*.tar.gz")
    good(ansible(directory, "ansible-galaxy", "collection", "install", str(built)))
