"""No client waits for a backup: what the master's clients see, next to SAVE.

Few keys with a server that is made to save slowly in the fast tests; in full the bench itself, five
rounds over a million keys.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from bench import stall
from tests.campaigns.conftest import SOAK, Tell


def measured(root: Path, tell: Tell, keys: int, rounds: int, save_delay: int) -> list[stall.Round]:
    """The rounds, of which every request is accounted for, late or not."""
    found = stall.measure(root, keys, rounds, save_delay)
    tell("\n".join(stall.report(found)))
    for item in found:
        for window in item.values():
            assert len(window.latencies) > 0.95 * (window.seconds * stall.RATE - 1)
    return found


def test_clients_do_not_wait_for_a_backup(tmp_path: Path, tell: Tell) -> None:
    def worst(way: str) -> float:
        return statistics.median(item[way].worst for item in rounds)

    if SOAK:
        rounds = measured(tmp_path, tell, keys=1_000_000, rounds=5, save_delay=0)
        # Other work on this machine makes any client wait: the pause has its share of that too.
        noise = 2 * worst(stall.IDLE) + 0.02
        forks = [window.fork for item in rounds if (window := item[stall.MASTER]).fork is not None]
        assert worst(stall.MASTER) <= statistics.median(forks) + noise
        assert worst(stall.REPLICA) <= noise
        assert stall.ratio(rounds) <= 0.2
    else:
        # A second of SAVE and more against a fork of some milliseconds. Where other work on this
        # machine makes clients wait for that long, ten seconds: only a backup that stops the
        # master takes longer then.
        for save_delay in (150, 1500):
            rounds = measured(
                tmp_path / str(save_delay), tell, keys=8_000, rounds=1, save_delay=save_delay
            )
            assert worst(stall.CLASSIC) > 1
            if max(worst(stall.MASTER), worst(stall.REPLICA)) < worst(stall.CLASSIC) / 2:
                return
        raise AssertionError("clients wait for a backup as they do for SAVE")
