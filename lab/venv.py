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


def _fingerprint(checkout: Path) -> str:
    """Changes when .venv has to be made anew: its scripts carry the checkout's path."""
    wanted = (checkout / "requirements.txt").read_bytes()
    identity = f"{checkout}\0{platform.python_version()}\0".encode()
    return hashlib.sha256(identity + wanted).hexdigest()


def ensure(checkout: Path) -> None:
    """Make .venv unless it is there, complete, and of this checkout, Python and requirements."""
    if sys.version_info < MINIMUM:
        raise LabError(f"Python {platform.python_version()} is too old: 3.11 or newer is needed")
    venv = checkout / ".venv"
    stamp = venv / ".made-from"
    fingerprint = _fingerprint(checkout)
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return
    if not _has_ensurepip():
        package = f"python3.{sys.version_info.minor}-venv"
        if not can_install():
            raise LabError(f"this Python cannot make virtual environments: install {package}")
        install([package])
    with step("venv", "installing requirements.txt into .venv"):
        # Not the link in .venv itself, which is about to go.
        python = str(Path(sys.executable).resolve())
        run([python, "-m", "venv", "--clear", str(venv)], timeout=300)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        run([*pip, "--requirement", str(checkout / "requirements.txt")], timeout=1200)
        files.write(stamp, fingerprint)


def _has_ensurepip() -> bool:
    return run([sys.executable, "-c", "import ensurepip, venv"], check=False).returncode == 0
