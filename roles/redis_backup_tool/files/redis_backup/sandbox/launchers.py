"""How the prober is started and stopped: by the confined unit, or as a plain child process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from ..base.errors import ToolError
from .errors import SandboxError
from .prober import INSIDE, start_time
from .traces import alive, read_output

# What the prober may take to look around, and how long a server may take to end. Seconds.
EVIDENCE_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0


class Launcher(Protocol):
    """How the prober is started. `inside` is the sandbox's directory as it sees it."""

    confined: bool
    inside: Path

    def start(self) -> None:
        """Start the prober; raises SandboxError with the reason."""

    def ended(self) -> bool:
        """Whether what was started is known to have ended."""

    def stop(self) -> None:
        """Stop whatever runs, also what a killed drill left; raises SandboxError."""


class UnitLauncher(Launcher):
    """The confined systemd unit. Sudo allows the tool's user exactly these two commands."""

    confined = True
    inside = INSIDE

    def __init__(self, unit: str) -> None:
        self._unit = unit

    def start(self) -> None:
        self._systemctl("start", EVIDENCE_TIMEOUT)

    def ended(self) -> bool:
        # Asked without sudo; where systemd does not tell (no D-Bus), it is not known.
        command = ["/bin/systemctl", "is-active", self._unit]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, text=True, timeout=5.0, check=False)
            return done.stdout.strip() in ("inactive", "failed")
        return False

    def stop(self) -> None:
        self._systemctl("stop", 90.0)

    def _systemctl(self, verb: str, timeout: float) -> None:
        # By its old path, which every Debian has: sudo allows exactly this one.
        command = ["sudo", "-n", "/bin/systemctl", verb, self._unit]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise SandboxError(f"{' '.join(command)}: {problem}") from None
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[:300]
            raise SandboxError(
                f"{' '.join(command)} failed: {said or done.returncode};"
                " deploy the drill host again"
            )


class ProcessLauncher(Launcher):
    """A plain child process, for hosts without systemd and for tests: nothing is confined."""

    confined = False

    def __init__(self, directory: Path, memory_max: str = "75%") -> None:
        self.inside = directory
        self._memory_max = memory_max
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        package_parent = Path(__file__).resolve().parents[2]
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "redis_backup.sandbox.prober",
                f"--directory={self.inside}",
                f"--memory-max={self._memory_max}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(package_parent)},
            # Python looks for modules in the working directory first, and that may be anybody's.
            cwd="/",
            # A group of its own: what it forks ends with it.
            start_new_session=True,
        )

    def ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(STOP_TIMEOUT)
            return
        # What an earlier drill left, if it is still that very process.
        with contextlib.suppress(ToolError, OSError, KeyError, ValueError, IndexError):
            left = json.loads(read_output(self.inside / "out" / "evidence.json"))
            if start_time(left["pid"]) == left["start_time"]:
                os.kill(left["pid"], signal.SIGKILL)
                deadline = time.monotonic() + STOP_TIMEOUT
                while alive(left) and time.monotonic() < deadline:
                    time.sleep(0.02)
