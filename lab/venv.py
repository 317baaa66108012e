"""The virtual environment .venv, made from requirements.txt."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

from lab import files
from lab.machine import can_install, install
from lab.shell import LabError, run, step

MINIMUM = (3, 11)


def stamp(checkout: Path) -> str:
    """What .venv is made from. First line: where and with which Python, which its scripts carry;
    second line: the packages.
    """
    packages = hashlib.sha256((checkout / "requirements.txt").read_bytes()).hexdigest()
    return f"{checkout} Python {platform.python_version()}\n{packages}\n"


def ensure(checkout: Path) -> None:
    """Make .venv unless it is there, complete, and of this checkout, Python and requirements."""
    if sys.version_info < MINIMUM:
        raise LabError(f"Python {platform.python_version()} is too old: 3.11 or newer is needed")
    venv = checkout / ".venv"
    record = venv / ".made-from"
    wanted = stamp(checkout)
    found = record.read_text() if record.is_file() else ""
    if found == wanted:
        return
    if not _can_make_venvs():
        package = f"python3.{sys.version_info.minor}-venv"
        if not can_install():
            raise LabError(f"this Python cannot make virtual environments: install {package}")
        install([package])
    with step("venv", "installing requirements.txt into .venv"):
        if found.splitlines()[:1] != wanted.splitlines()[:1]:
            # Not with the link in .venv itself, which is about to go.
            python = str(Path(sys.executable).resolve())
            run([python, "-m", "venv", "--clear", str(venv)], timeout=300)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        run([*pip, "--requirement", str(checkout / "requirements.txt")], timeout=1200)
        files.write(record, wanted)


def _can_make_venvs() -> bool:
    return run([sys.executable, "-c", "import ensurepip, venv"], check=False).returncode == 0
