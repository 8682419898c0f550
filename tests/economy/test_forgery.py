"""What an operator with all keys of the ledger writes is found by whoever reads the log, or kept a checkpoint of it."""

from dataclasses import replace

import pytest
from nectar_ledger.audit.signatures import Signatures
from nectar_ledger.audit.walk import Walk
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.merkle import EMPTY_ROOT

from benchmarks.economy.forgery import FORGERIES, Forgery, forge, live, noticed
from benchmarks.economy.market import ORIGIN


def test_there_is_nothing_to_notice_in_an_honest_log() -> None:
    life = live()
    assert noticed(life, life.entries) is None


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.__name__.strip("_"))
def test_every_forgery_is_noticed(forgery: Forgery) -> None:
    assert forge((forgery,)).beyond <= 0


def test_without_signatures_receipts_could_be_invented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Signatures, "take", lambda signatures, part: None)
    assert forge().beyond > 0


def test_without_a_replay_credits_could_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "run", lambda walk, parts, progress: None)
    assert forge().beyond > 0


def test_without_an_old_checkpoint_the_newest_entries_could_be_dropped() -> None:
    life = replace(live(), kept=Checkpoint(ORIGIN, 0, EMPTY_ROOT))
    assert noticed(life, life.entries[:-1]) is None
