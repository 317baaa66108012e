"""The trial boot: a server that runs for a moment, to learn what it makes of a configuration.

It runs as the real one's user, in a directory of its own below /run, listens on a unix socket there
and ends with the module that started it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

from ansible_collections.proven.redis.plugins.module_utils.conf_text import encode
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import Connection

BOOT_TIMEOUT = 20  # seconds
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>

Answer = TypeVar("Answer")


class RefusedError(Exception):
    """The server does not start with a configuration; the text is the end of its log."""


def boot_and_ask(
    server: str,
    account_name: str,
    files: Callable[[str], dict[str, str]],
    question: Callable[[Connection], Answer],
) -> Answer:
    """Boot a server and ask it something.

    Args:
        server: path of the server's binary.
        account_name: account to run it as.
        files: makes, for the path of the server's directory, the texts of its files by name. One
            is `redis.conf`, which has to say `unixsocket DIRECTORY/s`.
        question: what to do with a connection to it; not authenticated.

    Raises:
        RefusedError: the server does not start.
        KeyError: there is no such account.
    """
    account = pwd.getpwnam(account_name)
    # Not where TMPDIR points to: the server's user may not get in there.
    folder = tempfile.mkdtemp(prefix="redis-trial-boot-", dir="/run")
    try:
        os.chown(folder, account.pw_uid, account.pw_gid)
        for name, text in files(folder).items():
            with open(os.path.join(folder, name), "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                os.fchown(file.fileno(), account.pw_uid, account.pw_gid)
                file.write(encode(text))
        return _boot(server, account, folder, question)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _boot(
    server: str,
    account: pwd.struct_passwd,
    folder: str,
    question: Callable[[Connection], Answer],
) -> Answer:
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        # As many files as the unit may open, or the server lowers its maxclients.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # Ends with this module, also when that is killed.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    with open(os.path.join(folder, "log"), "w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            [server, os.path.join(folder, "redis.conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=os.getgrouplist(account.pw_name, account.pw_gid),
            preexec_fn=prepare,
        )
        try:
            deadline = time.monotonic() + BOOT_TIMEOUT
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    with Connection(unixsocket=os.path.join(folder, "s")) as connection:
                        return question(connection)
                except OSError:
                    time.sleep(0.02)
        finally:
            stuck = process.poll() is None
            process.kill()
            process.wait()
        log.seek(0)
        if stuck:
            raise RefusedError(f"{log.read()}\nIt did not answer within {BOOT_TIMEOUT} s")
        raise RefusedError(log.read())
