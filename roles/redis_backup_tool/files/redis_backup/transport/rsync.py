"""rsync to and from the backup server's daemon: what is sent, in which order, and what its exit
codes mean.

The secret travels in the child's environment, never in its arguments. Names on the other side are
unique and never written twice, so that nothing here depends on rsync's comparison of sizes and
times.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import ToolError
from ..config.model import Transport
from ..formats.receipts import MAX_RECEIPT_BYTES

RSYNC = "rsync"
MAX_ERROR_LINES = 3
# Pauses between two questions for a receipt.
_POLL_FIRST = 0.5  # seconds
_POLL_MAX = 5.0  # seconds
# A transfer of any size may take this long, and longer by its size.
_PATIENCE = 600.0  # seconds
_SLOWEST = 256 * 1024  # bytes per second

# rsync(1), EXIT VALUES. Those that another try may cure.
_TRANSIENT = {
    10: "the connection broke",
    11: "file error on the other side",
    12: "the connection broke",
    23: "some files were not transferred",
    24: "a file vanished on the other side",
    30: "time-out while sending or receiving",
    35: "time-out while connecting",
}


class TransportError(ToolError):
    """A transfer failed for good. `rsync_code` is rsync's exit code, None when it did not run."""

    def __init__(self, message: str, rsync_code: int | None = None) -> None:
        super().__init__(message)
        self.rsync_code = rsync_code


@dataclass(frozen=True)
class Failure:
    """What one failed run of rsync means."""

    message: str
    transient: bool


def upload(
    transport: Transport,
    parent: Path,
    upload_id: str,
    names: Sequence[str],
    *,
    notify: Callable[[str], None] | None = None,
) -> None:
    """Send `<parent>/<upload_id>/<name>` for each name, one after the other, into the host's inbox.

    The order is the caller's promise: what makes the upload complete (the manifest) comes last,
    and is only sent when everything before it has arrived. Raises TransportError.
    """
    for name in names:
        arguments = [
            "--relative",
            "--whole-file",
            "--times",
            f"{upload_id}/{name}",
            _url(transport, transport.inbox_module, ""),
        ]
        size = (parent / upload_id / name).stat().st_size
        _run_with_retry(transport, transport.inbox_module, arguments, parent, size, notify)


def fetch(
    transport: Transport,
    module: str,
    remote_path: str,
    destination: Path,
    limit: int,
    *,
    notify: Callable[[str], None] | None = None,
) -> None:
    """Fetch a file of at most `limit` bytes, whatever the server sends, into an existing directory.

    Only a regular file comes over, with a mode of our own. Raises TransportError.
    """
    arguments = [*_PULL, _url(transport, module, remote_path), f"{destination}/"]
    _run_with_retry(transport, module, arguments, destination, limit, notify)


def fetch_receipt(transport: Transport, upload_id: str, scratch: Path) -> bytes | None:
    """One receipt as it is on the server, None when it is not there (yet). One try only: the
    caller polls. `scratch` is a directory whose content the next run removes, should this one be
    killed.

    Raises TransportError when the server cannot be asked.
    """
    return _fetch_small(transport, _receipts_module(transport), f"{upload_id}.json", scratch)


def _fetch_small(transport: Transport, module: str, path: str, scratch: Path) -> bytes | None:
    with tempfile.TemporaryDirectory(prefix="receipt-", dir=scratch) as directory:
        arguments = [
            *_PULL,
            f"--max-size={MAX_RECEIPT_BYTES}",
            "--ignore-missing-args",
            _url(transport, module, path),
            f"{directory}/",
        ]
        _run_once(transport, module, arguments, Path(directory), MAX_RECEIPT_BYTES)
        try:
            return (Path(directory) / path.rpartition("/")[2]).read_bytes()
        except FileNotFoundError:
            return None


def polled(ask: Callable[[], bytes | None], seconds: float) -> Iterator[tuple[bytes | None, str]]:
    """What `ask` answers, again and again for so many seconds with growing pauses; and in brackets
    why it could not be asked, empty where it could.
    """
    deadline = time.monotonic() + seconds
    delay = _POLL_FIRST
    while True:
        try:
            answer, trouble = ask(), ""
        except TransportError as problem:
            answer, trouble = None, f" ({problem})"
        yield answer, trouble
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(delay, left))
        delay = min(delay * 1.5, _POLL_MAX)


def fetch_report_receipt(transport: Transport, drill_id: str, scratch: Path) -> bytes | None:
    """As `fetch_receipt`, of the report of a drill: a drill host reads it in the store."""
    return _fetch_small(
        transport, str(transport.store_module), f".receipts/{drill_id}.json", scratch
    )


def fetch_receipts(transport: Transport, scratch: Path) -> dict[str, bytes]:
    """All receipts of the set by id, as they are on the server. One try only: a host that cannot
    ask acts. `scratch` as in `fetch_receipt`.

    Raises TransportError when the server cannot be asked.
    """
    module = _receipts_module(transport)
    with tempfile.TemporaryDirectory(prefix="receipts-", dir=scratch) as directory:
        arguments = [
            *_PULL,
            f"--max-size={MAX_RECEIPT_BYTES}",
            "--include=/*.json",
            "--exclude=*",
            _url(transport, module, ""),
            f"{directory}/",
        ]
        _run_once(transport, module, arguments, Path(directory), MAX_RECEIPT_BYTES)
        return {
            path.name[: -len(".json")]: path.read_bytes()
            for path in sorted(Path(directory).iterdir())
            if path.name.endswith(".json")
        }


_PULL = (
    "--recursive",
    "--times",
    "--whole-file",
    "--no-links",
    "--no-devices",
    "--no-specials",
    "--chmod=D0700,F0600",
    # A name that is there already is not trusted to be the same file.
    "--ignore-times",
)


def _receipts_module(transport: Transport) -> str:
    if transport.receipts_module is None:
        raise TransportError(
            "the configuration names no receipts_module, so no receipt can be read"
        )
    return transport.receipts_module


def _url(transport: Transport, module: str, path: str) -> str:
    server = f"[{transport.server}]" if ":" in transport.server else transport.server
    return f"rsync://{transport.user}@{server}:{transport.port}/{module}/{path}"


def binary() -> str:
    """The path of rsync. Raises TransportError when it is not installed."""
    found = shutil.which(RSYNC)
    if found is None:
        raise TransportError("rsync is not installed: apt-get install rsync")
    return found


def environment(secret: str) -> dict[str, str]:
    """The environment of an rsync child: the secret, and nothing that could lead it elsewhere
    (RSYNC_PROXY, RSYNC_RSH).
    """
    return {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "LC_ALL": "C",
        "RSYNC_PASSWORD": secret,
    }


def _run_with_retry(
    transport: Transport,
    module: str,
    arguments: Sequence[str],
    directory: Path,
    size: int,
    notify: Callable[[str], None] | None,
) -> None:
    delays = list(transport.retry_delays)
    tries = 0
    while True:
        tries += 1
        failure = _run(transport, module, arguments, directory, size)
        if failure is None:
            return
        if not failure[1].transient or not delays:
            again = f" (tried {tries} times)" if tries > 1 else ""
            raise TransportError(failure[1].message + again, failure[0])
        delay = delays.pop(0)
        if notify is not None:
            notify(f"{failure[1].message}; next try in {delay:g} s")
        time.sleep(delay)


def _run_once(
    transport: Transport, module: str, arguments: Sequence[str], directory: Path, size: int
) -> None:
    failure = _run(transport, module, arguments, directory, size)
    if failure is not None:
        raise TransportError(failure[1].message, failure[0])


def time_limit(size: int) -> float:
    """Seconds that the transfer of a file of so many bytes may take. A server that sends a byte now
    and then would hold this host for ever: rsync's own time-out is for each read. Pure.
    """
    return _PATIENCE + size / _SLOWEST


def _bounded(size: int) -> None:
    """In the child, before rsync: no file larger than so many bytes, and a group of its own, so
    that it can be ended with all that it starts.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    os.setpgid(0, 0)


def _run(
    transport: Transport, module: str, arguments: Sequence[str], directory: Path, size: int
) -> tuple[int, Failure] | None:
    """One run of rsync, for a file of at most `size` bytes: it can write no larger one here."""
    command = [
        binary(),
        "--no-motd",
        f"--timeout={transport.timeout}",
        f"--contimeout={transport.connect_timeout}",
        *arguments,
    ]
    try:
        with subprocess.Popen(
            command,
            cwd=directory,
            env=environment(transport.secret),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: _bounded(size),
        ) as process:
            try:
                said = process.communicate(timeout=time_limit(size))[1]
            except BaseException:
                # To receive, rsync is two processes: the other one would go on without this one.
                os.killpg(process.pid, signal.SIGKILL)
                raise
    except subprocess.TimeoutExpired:
        server = f"{transport.server}:{transport.port}"
        raise TransportError(
            f"rsync with {server}, module {module}: not done after {time_limit(size):.0f} s: the"
            " network is slower than any backup can wait for, or the server holds us up"
        ) from None
    except OSError as problem:
        raise TransportError(f"rsync cannot be started: {problem.strerror}") from None
    if process.returncode == 0:
        return None
    stderr = said.decode("utf-8", "replace")
    return process.returncode, explain(process.returncode, stderr, transport, module)


def explain(code: int, stderr: str, transport: Transport, module: str) -> Failure:
    """What a failed run means and what to do. Pure; `stderr` is rsync's own, with LC_ALL=C."""
    server = f"{transport.server}:{transport.port}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = " / ".join(lines[:MAX_ERROR_LINES])[:400] or f"exit code {code}"
    if "auth failed" in stderr:
        return Failure(
            f"{server} refused user {transport.user} on module {module}:"
            " wrong rsync secret or user; deploy this host and the backup server again",
            transient=False,
        )
    if "access denied" in stderr:
        return Failure(
            f"{server} lets no one from this address into module {module} (hosts allow): {said};"
            " deploy this host and the backup server again",
            transient=False,
        )
    if "Unknown module" in stderr:
        # A daemon that lists no modules answers so as well to an address that it lets in nowhere.
        return Failure(
            f"{server} has no module {module} for this host. Either the backup server does not know"
            f" this host: deploy it again. Or this host comes from an address that is not in `hosts"
            f" allow` of the module there (redis_backup_hosts_allow, redis_restore_drill_address)."
            f" Or another rsync daemon has port {transport.port}: on the backup server,"
            f" `ss -ltnp sport = :{transport.port}` names it, and a deployment refuses it.",
            transient=False,
        )
    if "max connections" in stderr:
        return Failure(f"{server} has too many connections now: {said}", transient=True)
    if "No space left" in stderr or "Disk quota exceeded" in stderr:
        return Failure(
            f"{server} has no room for it in module {module}: {said}; make room on the backup"
            " server",
            transient=False,
        )
    if "File too large" in stderr:
        return Failure(
            f"rsync with {server}, module {module}: a file is larger than it was announced, or than"
            f" the file system takes that receives it; it was given up: {said}",
            transient=False,
        )
    if "No such file or directory" in stderr:
        return Failure(f"{server}, module {module}: not there: {said}", transient=False)
    if code == 10 and "Connection refused" in stderr:
        return Failure(
            f"nothing listens on {server}: is the rsync daemon of the backup server up?",
            transient=True,
        )
    if code == 5 and "@ERROR" not in stderr:
        return Failure(
            f"rsync with {server}, module {module}: the connection broke at its beginning, or"
            f" something else than an rsync daemon answers there: {said}",
            transient=True,
        )
    if code == 35 or (code == 10 and "failed to connect" in stderr):
        return Failure(
            f"{server} cannot be reached: {said}; is the backup server up, and the way to it open?",
            transient=True,
        )
    if (
        "read only" in stderr
        or "write only" in stderr
        or "refused" in stderr
        or "not allowed" in stderr
    ):
        return Failure(f"{server} does not allow this on module {module}: {said}", transient=False)
    if code in _TRANSIENT:
        return Failure(
            f"rsync with {server}, module {module}: {_TRANSIENT[code]}: {said}", transient=True
        )
    return Failure(
        f"rsync with {server}, module {module}, failed with code {code}: {said}", transient=False
    )
