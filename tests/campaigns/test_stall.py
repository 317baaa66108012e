"""No client waits for a backup: what the master's clients see, next to SAVE.

Few keys with a server that is made to save slowly in the fast tests; in full the bench itself, five
rounds over a million keys.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from bench import stall
from tests.campaigns.conftest import SOAK, Size, Tell


def test_clients_do_not_wait_for_a_backup(tmp_path: Path, size: Size, tell: Tell) -> None:
    rounds = stall.measure(
        tmp_path,
        keys=size(8_000, 1_000_000),
        rounds=size(1, 5),
        save_delay=size(150, 0),
    )
    tell("\n".join(stall.report(rounds)))

    def worst(way: str) -> float:
        return statistics.median(item[way].worst for item in rounds)

    # Every request is accounted for, late or not.
    for item in rounds:
        for window in item.values():
            assert len(window.latencies) > 0.95 * (window.seconds * stall.RATE - 1)
    if SOAK:
        # Other work on this machine makes any client wait: the pause has its share of that too.
        noise = 2 * worst(stall.IDLE) + 0.02
        forks = [window.fork for item in rounds if (window := item[stall.MASTER]).fork is not None]
        assert worst(stall.MASTER) <= statistics.median(forks) + noise
        assert worst(stall.REPLICA) <= noise
        assert stall.ratio(rounds) <= 0.2
    else:
        # A second of SAVE and more against a fork of some milliseconds, on a machine of any load.
        assert worst(stall.CLASSIC) > 1
        assert worst(stall.MASTER) < worst(stall.CLASSIC) / 2
        assert worst(stall.REPLICA) < worst(stall.CLASSIC) / 2
