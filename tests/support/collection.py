"""The collection as other people get it: built from a copy of the checkout, installed at home."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def home_of(directory: Path) -> Path:
    """The home of the user who works in a directory. It is made where it is missing."""
    home = directory.with_name(f"{directory.name}-home")
    home.mkdir(exist_ok=True)
    return home


def ansible(directory: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs in a directory, as somebody who has set nothing up, and whose
    collections are those that were installed from that directory.
    """
    kept = {name: value for name, value in os.environ.items() if "ANSIBLE" not in name}
    own = {"HOME": str(home_of(directory)), "ANSIBLE_NOCOLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [str(BIN / program), *words],
        cwd=directory,
        env={**kept, **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def good(done: subprocess.CompletedProcess[str]) -> str:
    """What a program printed that has to end well."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
    with tarfile.open(packed) as archive:
        archive.extractall(directory / "redis", filter="tar")
    return directory / "redis"


def install(checkout: Path, directory: Path) -> None:
    """Build the collection and install it for the user who works in the directory."""
    output = ["--output-path", str(directory)]
    good(ansible(checkout, "ansible-galaxy", "collection", "build", *output))
    (built,) = directory.glob("proven-redis-*.tar.gz")
    good(ansible(directory, "ansible-galaxy", "collection", "install", str(built)))
