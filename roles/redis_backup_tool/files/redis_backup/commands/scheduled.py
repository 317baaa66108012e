"""What runs by itself tells a person of a failure: `scheduled` for cron, `notify` for systemd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..base import notify
from ..base.errors import EXIT_DONE, EXIT_FAILED, EXIT_NOT_NOW
from ..base.output import Output
from ..config.model import Config, HostConfig, ServerConfig

# The end of what a job said is what counts; a mail or a chat takes no more.
LONGEST = 8192  # bytes
# `accept` runs every few seconds: a failure that lasts is told once a night, like those of cron.
PAUSE = 20 * 3600  # seconds
_FORWARD = 0.2  # seconds between two looks at a job's output


def run(config: Config, job: str, words: Sequence[str], output: Output) -> int:
    """Run a command, and tell a person when it fails, however it ends. Its exit status, as a shell
    tells it.
    """
    try:
        code, said = _watch(words)
    except OSError as problem:
        code, said = 127, f"{words[0]}: {problem.strerror}"
    if code not in (EXIT_DONE, EXIT_NOT_NOW) and config.notify:
        _tell(config, job, f"exit status {code}", said, output, REDIS_BACKUP_STATUS=str(code))
    return code


def unit_failed(config: Config, unit: str, output: Output) -> int:
    """Tell a person that a unit of systemd failed, unless that was told within the last hours."""
    if not config.notify:
        output.step(f"{unit} failed; redis_backup_notify_command is not set, so nobody is told")
        return EXIT_DONE
    state = os.environ.get("STATE_DIRECTORY")
    stamp = Path(state) / unit if state else None
    if stamp is not None and _is_fresh(stamp):
        return EXIT_DONE
    name = f"{unit}.service"
    result = _ask("systemctl", "show", "--property=Result,ExecMainStatus", name)
    said = _ask("journalctl", f"--unit={name}", "--lines=30", "--no-pager", "--output=cat")
    job = unit.removeprefix("redis-backup-")
    told = _tell(config, job, ", ".join(result.split()), said, output)
    if told and stamp is not None:
        stamp.touch()
    return EXIT_DONE if told else EXIT_FAILED


def _tell(config: Config, job: str, end: str, said: str, output: Output, **more: str) -> bool:
    """Hand a failure to the user's command; whether that worked."""
    host = socket.gethostname() if isinstance(config, ServerConfig) else config.host
    of_set = f" of set {config.set}" if isinstance(config, HostConfig) else ""
    text = (
        f"redis-backup {job}{of_set} failed on {host}: {end}\n\n{said[-LONGEST:].strip()}\n\n"
        f"More: journalctl -t redis-backup on {host}\n"
    )
    env = notify.environment(REDIS_BACKUP_HOST=host, REDIS_BACKUP_JOB=job, **more)
    if isinstance(config, HostConfig):
        env["REDIS_BACKUP_SET"] = config.set
    problem = notify.tell(config.notify, text, env)
    if problem is not None:
        output.warn(f"nobody was told of this failure by redis_backup_notify_command: {problem}")
    return problem is None


def _watch(words: Sequence[str]) -> tuple[int, str]:
    """Run a command; its exit status, and the end of what it said.

    What it says goes to memory first and from there to our own output, so that neither a full disk
    nor the end of this process is in its way.
    """
    heard = os.memfd_create("output")
    place = 0
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=heard, stderr=heard) as process:
        try:
            while process.poll() is None:
                place = _forward(heard, place)
                time.sleep(_FORWARD)
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
            _forward(heard, place)
    size = os.fstat(heard).st_size
    said = os.pread(heard, LONGEST, max(size - LONGEST, 0)).decode("utf-8", "replace")
    os.close(heard)
    if process.returncode >= 0:
        return process.returncode, said
    return 128 - process.returncode, f"{said}\n({signal.Signals(-process.returncode).name})"


def _forward(heard: int, place: int) -> int:
    """Hand on what a job has said since the last look. Whoever reads it may be gone."""
    while block := os.pread(heard, 65536, place):
        place += len(block)
        with suppress(OSError):
            os.write(sys.stdout.fileno(), block)
    return place


def _is_fresh(stamp: Path) -> bool:
    try:
        return abs(time.time() - stamp.stat().st_mtime) < PAUSE
    except FileNotFoundError:
        return False


def _ask(*words: str) -> str:
    """What a program of the system says, or why it says nothing."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"({problem})"
    return (done.stdout or done.stderr).decode("utf-8", "replace")
