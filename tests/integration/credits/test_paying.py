"""A swarm with a ledger: whoever works is paid what was agreed, whoever pays pays no more, and nothing else changes."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from nectar.errors import InsufficientFundsError
from nectar_ledger_client.client import LedgerClient
from nectar_protocol.identity import parse_peer_id

from tests.client.swarm import eventually
from tests.integration.conftest import Tokens
from tests.integration.credits.conftest import ALICE, Hire, Open
from tests.integration.credits.paidnode import PaidNode

NEW = 24


def units_of(client: LedgerClient, hold: bytes) -> dict[bytes, int]:
    return {line.node: line.units for line in client.hold(hold).lines}


def test_a_paid_session_costs_what_both_sides_signed_and_nothing_else_changes(
    open_model: Open, team: list[PaidNode], client: LedgerClient, wallet_file: Path, local: Any, tokens: Tokens
) -> None:
    model, prompt = open_model(wallet=wallet_file), tokens(20)
    with model.session(20 + NEW, weight=2) as session:
        out = model.generate(prompt, session=session, max_new_tokens=NEW, do_sample=False)
        assert torch.equal(out, local.generate(prompt, max_new_tokens=NEW, do_sample=False))
        bought = session._payer._book.bought
    id = bought.hold.hold.id
    eventually(lambda: client.hold(id).state != "open")
    spent = session.spent
    assert {parse_peer_id(node.peer): node.units for node in spent.nodes} == units_of(client, id)
    assert {node.peer for node in spent.nodes} == {node.peer for node in team}
    assert spent.units > 0
    assert spent.ucr == spent.units * 2
    view = client.hold(id)
    assert view.left_ucr == 0
    assert all(line.final for line in view.lines)
    assert client.purse(ALICE).debits_ucr - client.purse(ALICE).credits_ucr <= 0
    assert sum(line.amount_ucr for line in client.purse_statement(ALICE) if line.hold == id) == -spent.ucr


def test_free_sessions_show_what_nodes_gave(
    open_model: Open, team: list[PaidNode], client: LedgerClient, local: Any, tokens: Tokens
) -> None:
    model, prompt = open_model(), tokens(9, seed=1)
    with model.session(9 + NEW) as session:
        out = model.generate(prompt, session=session, max_new_tokens=NEW, do_sample=False)
        hold = session._payer._book.bought.hold.hold
    assert torch.equal(out, local.generate(prompt, max_new_tokens=NEW, do_sample=False))
    assert hold.weight == 0
    eventually(lambda: client.hold(hold.id).state != "open")
    assert sum(units_of(client, hold.id).values()) == session.spent.units > 0
    assert session.spent.ucr == 0


@pytest.mark.parametrize("mode", [{"num_beams": 3}, {"prompt_lookup_num_tokens": 4}, {"batch": 3}])
def test_whatever_generate_does_is_billed_and_signed(
    mode: dict[str, int], open_model: Open, client: LedgerClient, wallet_file: Path, tokens: Tokens,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    model, options = open_model(wallet=wallet_file), dict(mode)
    prompt = tokens(12, seed=2, batch=options.pop("batch", 1))
    before = client.purse(ALICE)
    with caplog.at_level(logging.WARNING, "nectar"):
        model.generate(prompt, max_new_tokens=NEW, do_sample=False, weight=1, budget=50, **options)
        newest = next(iter(client.holds_of(ALICE)))
        eventually(lambda: client.hold(newest.id).state != "open")
    assert caplog.records == []
    assert all(line.units and line.final for line in client.hold(newest.id).lines)
    assert before.debits_ucr < client.purse(ALICE).debits_ucr


def test_a_replacement_works_at_once_and_is_paid_under_the_same_hold(
    open_model: Open, hire: Hire, team: list[PaidNode], client: LedgerClient, wallet_file: Path, local: Any,
    tokens: Tokens,
) -> None:  # fmt: skip
    model, prompt = open_model(wallet=wallet_file), tokens(30, seed=3)
    doomed = hire("2:8", team[0])
    spare = team[1]
    route = [(team[0].peer, 0, 4), (doomed.peer, 4, 8)]
    with model.session(30 + 2 * NEW, weight=1, route=route) as session:
        out = model.generate(prompt, session=session, max_new_tokens=NEW, do_sample=False)
        session._keeper.route.chosen = {}
        doomed.stop()
        out = model.generate(out, session=session, max_new_tokens=NEW, do_sample=False)
        assert torch.equal(out, local.generate(prompt, max_new_tokens=2 * NEW, do_sample=False))
        assert [span.peer for span in session.route] == [team[0].peer, spare.peer]
        eventually(lambda: session._payer._book.bought.hold.hold.line(parse_peer_id(spare.peer)))
        id = session._payer._book.bought.hold.hold.id
    eventually(lambda: all(line.final for line in client.hold(id).lines if line.node != parse_peer_id(doomed.peer)))
    units = units_of(client, id)
    assert units[parse_peer_id(spare.peer)] > 0
    assert {node.peer: node.units for node in session.spent.nodes}[spare.peer] == units[parse_peer_id(spare.peer)]


def test_what_a_node_received_can_be_asked_for(open_model: Open, team: list[PaidNode], tokens: Tokens) -> None:
    model = open_model()
    with model.session(60) as session:
        model.generate(tokens(20, seed=4), session=session, max_new_tokens=5, do_sample=False)
        during = session.history(team[1].peer)
        assert during[0].hidden.shape[1] == 20
    for node in team:
        assert [step.position for step in session.history(node.peer)] == [0, 20, 21, 22, 23]


def test_an_empty_account_is_told_before_anything_is_served(open_model: Open, tmp_path: Path, tokens: Tokens) -> None:
    model = open_model(wallet=tmp_path / "new.key")
    with model.session(40, weight=8) as session:
        with pytest.raises(InsufficientFundsError, match="weight 0"):
            model.generate(tokens(5), session=session, max_new_tokens=3)
        assert session.spent.nodes == ()
    assert model.generate(tokens(5), max_new_tokens=3).shape[1] == 8


def test_without_a_ledger_everything_still_works(
    open_model: Open, wallet_file: Path, local: Any, tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    model, prompt = open_model(wallet=wallet_file, ledger="http://127.0.0.1:1"), tokens(7, seed=5)
    with caplog.at_level(logging.WARNING, "nectar"):
        out = model.generate(prompt, max_new_tokens=NEW, do_sample=False, weight=4)
    assert torch.equal(out, local.generate(prompt, max_new_tokens=NEW, do_sample=False))
    assert any("unmetered" in record.getMessage() for record in caplog.records)
