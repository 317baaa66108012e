"""The reader of RDB files on files that nobody wrote: RdbError and nothing worse, soon, and in
little memory.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.campaigns import fuzz
from tests.campaigns.conftest import Size, TellTable
from tests.tool.backup_lab import PACKAGE

ROOT = Path(__file__).parents[2]


def test_the_reader_fuzzed(draw: random.Random, size: Size, table: TellTable) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.campaigns.fuzz",
            str(size(400, 40_000)),
            str(draw.randrange(2**32)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{PACKAGE}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    found = json.loads(done.stdout)
    assert found["examples"] >= size(300, 30_000)
    table(
        ("files", "refused", "read to the end", "worse", "slowest", "memory beyond the start"),
        [
            (
                found["examples"],
                found["refused"],
                found["examples"] - found["refused"],
                0,
                f"{found['slowest']:.2f} s",
                f"{found['peak'] / 2**20:.0f} MiB of {fuzz.MEMORY // 2**20} allowed",
            )
        ],
    )
