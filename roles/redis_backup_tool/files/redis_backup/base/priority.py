"""Work that can wait stands back behind everything else on its host."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress

_LOWEST = 19


def stand_back() -> None:
    """Give this process and all that it starts from now on what nobody else wants: of the CPU by
    nice 19, of the disk by the idle class (ionice of util-linux; it needs a scheduler of the kernel
    that knows classes). There is no way back without privileges.
    """
    os.setpriority(os.PRIO_PROCESS, 0, _LOWEST)
    # Python has no call for it. Where the program is missing, nice counts for the disk too.
    with suppress(OSError):
        subprocess.run(
            ["ionice", "--class", "idle", "--pid", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
