"""Nodes that bill what is not so, budgets and lines that are used up, a lost ledger: sessions go on, or say why."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nectar.errors import BudgetError
from nectar_ledger_client.client import LedgerClient
from nectar_protocol.identity import parse_peer_id

from tests.client.swarm import eventually
from tests.integration.conftest import Tokens
from tests.integration.credits.conftest import Hire, Open
from tests.integration.credits.paidnode import PaidNode
from tests.ledger.api.served import Served

pytestmark = pytest.mark.slow  # nodes of their own, which lie

NEW = 24
# One node of four blocks does 320 units of decode, or 80 of prefill, for a token.


@pytest.mark.parametrize("lie", ["units", "outputs"])
def test_a_node_that_bills_what_is_not_so_is_left_and_not_paid(
    lie: str, open_model: Open, hire: Hire, team: list[PaidNode], client: LedgerClient, wallet_file: Path, local: Any,
    tokens: Tokens, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    liar = hire("4:8", team[0], lie=lie)
    model, prompt = open_model(wallet=wallet_file), tokens(10)
    with model.session(10 + NEW, weight=1, route=[(team[0].peer, 0, 4), (liar.peer, 4, 8)]) as session:
        out = model.generate(prompt, session=session, max_new_tokens=2, do_sample=False)
        session._keeper.route.chosen = {}
        eventually(lambda: session._keeper.broken or session._keeper.repairs)
        out = model.generate(out, session=session, max_new_tokens=NEW - 2, do_sample=False)
        assert torch.equal(out, local.generate(prompt, max_new_tokens=NEW, do_sample=False))
        assert liar.peer not in {span.peer for span in session.route}
    assert liar.peer not in {node.peer for node in session.spent.nodes}
    assert any("bill is not signed" in record.getMessage() for record in caplog.records)
    liar.stop()


def test_a_session_that_has_used_up_its_budget_says_so_at_once(
    open_model: Open, team: list[PaidNode], client: LedgerClient, wallet_file: Path, tokens: Tokens
) -> None:
    model = open_model(wallet=wallet_file)
    with model.session(200, weight=1, budget="0.01") as session:
        with pytest.raises(BudgetError, match="larger one"):
            model.generate(tokens(10), session=session, max_new_tokens=150, min_new_tokens=150, do_sample=False)
        assert 5_000 < session.spent.ucr <= 10_000
        hold = session._payer._book.bought.hold.hold
    assert hold.escrow_ucr(1_000_000) <= 10_000
    eventually(lambda: client.hold(hold.id).left_ucr == 0)


def test_a_long_session_has_its_caps_raised_in_time(
    open_model: Open, wallet_file: Path, local: Any, tokens: Tokens, client: LedgerClient
) -> None:
    model, prompt = open_model(wallet=wallet_file), tokens(4)
    with model.session(100, weight=1) as session:
        out = model.generate(prompt, session=session, max_new_tokens=90, do_sample=False)
        for length in (20, 10, 30, 5, 40, 8):  # rolled back and computed again
            out = model.generate(out[:, :length], session=session, max_new_tokens=95 - length, do_sample=False)
        hold = session._payer._book.bought.hold.hold
        assert session.repairs == []
    assert torch.equal(out, local.generate(prompt, max_new_tokens=91, do_sample=False))
    assert hold.revision > 1
    eventually(lambda: all(line.final for line in client.hold(hold.id).lines))


def test_a_free_session_outlives_its_lines(
    open_model: Open, team: list[PaidNode], ledger: Served, local: Any, tokens: Tokens, client: LedgerClient
) -> None:
    world = ledger.world
    ledger.record(world.publish_policy(replace(world.policy, version=world.policy.version + 1, free_cap_units=8_000)))
    model, prompt = open_model(), tokens(6, seed=7)
    with model.session(120) as session:
        out = model.generate(prompt, session=session, max_new_tokens=100, do_sample=False)
        holds = session._payer._book.holds
    assert torch.equal(out, local.generate(prompt, max_new_tokens=100, do_sample=False))
    assert len(holds) >= 2
    for bought in holds:
        id = bought.hold.hold.id
        eventually(lambda id=id: all(line.final for line in client.hold(id).lines))
    assert session.spent.units > 8_000


@pytest.mark.slow  # a lost ledger is waited for
def test_a_replacement_that_gets_no_line_serves_on_unmetered(
    open_model: Open, hire: Hire, team: list[PaidNode], ledger: Served, stop_ledger: Any, wallet_file: Path, local: Any,
    tokens: Tokens, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    doomed = hire("4:8", team[0])
    model, prompt = open_model(wallet=wallet_file), tokens(10, seed=8)
    with model.session(90, weight=1, route=[(team[0].peer, 0, 4), (doomed.peer, 4, 8)]) as session:
        out = model.generate(prompt, session=session, max_new_tokens=NEW, do_sample=False)
        session._keeper.route.chosen = {}
        stop_ledger()
        doomed.stop()
        with caplog.at_level(logging.WARNING, "nectar"):
            out = model.generate(out, session=session, max_new_tokens=50, do_sample=False)
        assert torch.equal(out, local.generate(prompt, max_new_tokens=NEW + 50, do_sample=False))
        paid = {node.peer for node in session.spent.nodes}
    assert team[1].peer not in paid
    assert parse_peer_id(team[0].peer)
    assert [record for record in caplog.records if "does not answer" in record.getMessage()]
