"""Scratch folders: gone after the block, and what killed processes leave is gone with the next."""

import os
import signal
import time

import pytest

from tests.processes import ended, forked, wait_for
from workbench import storage
from workbench.storage.folders import scratch_of_this_process


def working(place):
    """Write into a scratch folder and never end."""
    with scratch_of_this_process(place, "captures") as own:
        (own / "large").write_bytes(bytes(1000))
        (place / "begun").touch()
        signal.pause()


def test_it_is_gone_after_the_block_and_after_an_error(tmp_path):
    with scratch_of_this_process(tmp_path, "captures") as own:
        (own / "large").write_bytes(bytes(1000))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), scratch_of_this_process(tmp_path, "captures"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(tmp_path):
    other = forked(working, tmp_path)
    wait_for((tmp_path / "begun").exists, "a folder of its own", other)
    (theirs,) = tmp_path.glob(".captures-*/large")
    with scratch_of_this_process(tmp_path, "captures") as own:
        assert theirs.exists()
        assert own != theirs.parent
    os.kill(other, signal.SIGKILL)
    assert ended(other) == -signal.SIGKILL
    assert theirs.exists()
    with scratch_of_this_process(tmp_path, "captures") as own:
        assert not theirs.parent.exists()
        left = {path for path in tmp_path.iterdir() if path.name != "begun"}
        assert left == {own, own.with_suffix(".alive")}


def test_a_locked_block_has_one_process_in_it(tmp_path):
    other = forked(in_turn, tmp_path)
    in_turn(tmp_path)
    assert ended(other) == 0
    written = (tmp_path / "said").read_text().split()
    assert written[::2] == ["in"] * 100
    assert written[1::2] == ["out"] * 100


def in_turn(place):
    """Say fifty times when the block begins and ends."""
    for _ in range(50):
        with storage.locked(place / "some.lock"), (place / "said").open("a", buffering=1) as said:
            said.write("in\n")
            time.sleep(0.001)
            said.write("out\n")
