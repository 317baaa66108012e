"""One upload, copied out of its inbox and judged, in a process of its own that a bomb can exhaust
without harm to anybody else's upload.

An inbox is written by a host that may have been taken over: nothing in it is followed, renamed or
trusted. Every file is copied into a new one while it is hashed, and only the copy is judged.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import ToolError
from ..base.files import free_bytes, fsync_directory, remove_tree, write_durably
from ..base.output import human_bytes
from ..config.model import ServerConfig, Uploader
from ..config.reader import DAY
from ..formats import document
from ..formats import manifest as manifest_module
from ..formats.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, STORED_NAME, Manifest
from ..transport import zstd
from . import reread, store
from .inbox import (
    RejectedError,
    ReplacedError,
    check_names,
    copy_file,
    open_directory,
    read_small,
    told,
    touched,
)
from .limits import Limits

# Dumps shrink 2 to 20 times, those of empty bitmaps thousands of times. Nothing decompressed
# is ever stored: the bound is there so that one host cannot keep the server reading for days.
_RATIO_MAX = 1000
_PLAIN_ALWAYS = 16 * 1024**3
# After so many seconds of CPU an upload gives way to all others.
_FAIR = 2.0
# How often the process sees whether the run that began it is still there. Seconds.
_LOOK = 1.0

GOOD = "good"
REJECTED = "rejected"
DEFERRED = "deferred"
# Ours to solve (room, rights, a fault of this tool): the upload stays.
FAILED = "failed"
# The sender took it away: the next look sees what is there then.
GONE = "gone"


@dataclass(frozen=True)
class Judgement:
    """What was found. `cpu` is the seconds of CPU that it took; the manifest and its sha256 are
    there when they could be read, `reason` for all but a good one.
    """

    status: str
    cpu: float
    reason: str = ""
    manifest: Manifest | None = None
    manifest_sha256: str | None = None
    warnings: tuple[str, ...] = ()


class Examination:
    """A process at work on one upload; `work` is where its copy is made."""

    def __init__(
        self,
        config: ServerConfig,
        uploader: Uploader,
        name: str,
        *,
        budget: float,
        alone: bool,
        clock: Callable[[], float],
    ) -> None:
        self.uploader = uploader
        self.name = name
        self.alone = alone
        self.budget = budget
        # A name of this run's own: what an earlier one began may not be quite dead yet.
        self.work = config.store / store.INCOMING_NAME / f"{os.getpid()}-{name}"
        remove_tree(self.work)
        self.work.mkdir(mode=0o700)
        self.reader, writer = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _child(config, uploader, name, self.work, writer, parent, budget, alone, clock)
        os.close(writer)

    def result(self) -> Judgement:
        """Wait for its end. What did not say how it ends was ended: by its budget, or else."""
        with os.fdopen(self.reader, "rb") as pipe:
            raw = pipe.read()
        _, status, usage = os.wait4(self._pid, 0)
        cpu = usage.ru_utime + usage.ru_stime
        try:
            data: dict[str, Any] = json.loads(raw)
        except ValueError:
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
                return Judgement(
                    DEFERRED, cpu, f"verifying it takes more than {self.budget:.0f} s of CPU"
                )
            end = f"its process ended with {os.waitstatus_to_exitcode(status)}"
            return Judgement(FAILED, cpu, end)
        manifest = data["manifest"]
        return Judgement(
            status=data["status"],
            cpu=cpu,
            reason=data["reason"],
            manifest=None if manifest is None else manifest_module.from_json(manifest, self.name),
            manifest_sha256=data["manifest_sha256"],
            warnings=tuple(data["warnings"]),
        )

    def kill(self) -> None:
        """End it: this run ends."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        os.close(self.reader)


def _child(
    config: ServerConfig,
    uploader: Uploader,
    name: str,
    work: Path,
    writer: int,
    parent: int,
    budget: float,
    alone: bool,
    clock: Callable[[], float],
) -> None:
    """The life of the process; never returns."""
    try:
        # The locks are those of the run that began it, and so is its life.
        os.closerange(3, writer)
        os.closerange(writer + 1, 1024)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, lambda *_: os.getppid() == parent or os._exit(1))
        signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
        if alone or budget <= _FAIR:
            os.nice(19)
            signal.setitimer(signal.ITIMER_PROF, budget)
        else:
            signal.signal(signal.SIGPROF, lambda *_: _give_way(budget - _FAIR))
            signal.setitimer(signal.ITIMER_PROF, _FAIR)
        found = _judge(config, uploader, name, work, clock)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(json.dumps(found).encode("utf-8"))
        os._exit(0)
    finally:
        # Nothing of the parent's may run in here, whatever happened.
        os._exit(1)


def _give_way(left: float) -> None:
    """Beside the others from now on, and to the end when the rest of the budget is spent."""
    os.nice(19)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, left)


def _judge(
    config: ServerConfig, uploader: Uploader, name: str, work: Path, clock: Callable[[], float]
) -> dict[str, Any]:
    status, reason, manifest, digest = GOOD, "", None, None
    warnings: tuple[str, ...] = ()
    try:
        manifest, digest = _copy(config, uploader, name, work, clock)
        try:
            warnings = reread.verify_set(work, manifest).warnings
        except reread.VerifyError as problem:
            raise RejectedError(str(problem), digest) from None
        for path in (work / STORED_NAME, work / MANIFEST_NAME):
            path.chmod(0o400)
        fsync_directory(work)
    except RejectedError as problem:
        status, reason, digest = REJECTED, str(problem), problem.manifest_sha256
    except ReplacedError:
        status = GONE
    except Exception as problem:
        status, reason = FAILED, told(problem)
    return {
        "status": status,
        "reason": reason,
        "manifest": None
        if manifest is None
        else {"schema": document.SCHEMA, **manifest_module.to_json(manifest)},
        "manifest_sha256": digest,
        "warnings": warnings,
    }


def _copy(
    config: ServerConfig, uploader: Uploader, name: str, work: Path, clock: Callable[[], float]
) -> tuple[Manifest, str]:
    """Copy manifest and payload into files of our own; the manifest is judged here, the payload
    only by its size and sha256 as it is copied.
    """
    set_name = str(uploader.set)
    inbox = os.open(
        config.inbox / uploader.host, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    )
    upload = open_directory(inbox, name)
    check_names(upload, (STORED_NAME, MANIFEST_NAME))
    raw = read_small(upload, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    digest = manifest_module.sha256(raw)
    where = f"{set_name}/{name}/{MANIFEST_NAME}"
    try:
        manifest = manifest_module.decode(raw, where)
    except ToolError as problem:
        raise RejectedError(str(problem), digest) from None
    if (manifest.id, manifest.set, manifest.host) != (name, set_name, uploader.host):
        raise RejectedError(
            f"{where}: is about {manifest.set}/{manifest.id} of {manifest.host}", digest
        )
    # It may have waited here for long: a store that was full, a unit that was stopped.
    arrived = touched(inbox, name, os.stat(name, dir_fd=inbox, follow_symlinks=False))
    if abs(manifest.fork_time - arrived) > DAY:
        raise RejectedError(
            f"{where}: fork_time {manifest.fork_time} is more than a day off the time of its"
            " arrival by the backup server's clock: set the clocks right",
            digest,
        )
    payload = manifest.payload
    if payload.size > max(payload.stored_size * _RATIO_MAX, _PLAIN_ALWAYS):
        raise RejectedError(
            f"{set_name}/{name}/{STORED_NAME}: announced to grow from {payload.stored_size}"
            f" to {payload.size} bytes: no dump is so well compressed",
            digest,
        )
    Limits(config, clock).check_share(uploader.host, set_name, payload.stored_size, digest)
    free = free_bytes(config.store)
    if free < payload.stored_size + config.disk_reserve:
        raise ToolError(
            f"{config.store} has {human_bytes(free)} free, {human_bytes(payload.stored_size)} and"
            f" {human_bytes(config.disk_reserve)} in reserve are needed: make room"
        )
    copied = copy_file(upload, STORED_NAME, work / STORED_NAME, payload.stored_size, digest)
    if copied != zstd.Digest(payload.stored_size, payload.stored_sha256):
        raise RejectedError(
            f"{set_name}/{name}/{STORED_NAME}: arrived as {copied.size} bytes with sha256"
            f" {copied.sha256}, the manifest says {payload.stored_size} and"
            f" {payload.stored_sha256}",
            digest,
        )
    write_durably(work / MANIFEST_NAME, raw)
    return manifest, digest
