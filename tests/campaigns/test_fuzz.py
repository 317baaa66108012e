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


def batch(examples: int, seed: int) -> dict[str, float]:
    """One process; what makes the examples remembers them all, so there are many of these."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.fuzz", str(examples), str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{PACKAGE}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    found: dict[str, float] = json.loads(done.stdout)
    assert found["examples"] >= examples * 0.8
    return found


def test_the_reader_fuzzed(draw: random.Random, size: Size, table: TellTable) -> None:
    found = [batch(size(400, 2000), draw.randrange(2**32)) for _ in range(size(1, 20))]
    examples = int(sum(item["examples"] for item in found))
    refused = int(sum(item["refused"] for item in found))
    table(
        ("files", "refused", "read to the end", "worse", "slowest", "memory for each"),
        [
            (
                examples,
                refused,
                examples - refused,
                0,
                f"{max(item['slowest'] for item in found):.2f} s",
                f"{fuzz.MEMORY // 2**20} MiB were enough",
            )
        ],
    )
