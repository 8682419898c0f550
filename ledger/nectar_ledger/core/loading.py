"""The state from its tables: what is open, and who takes part."""

from collections.abc import Callable, Iterator
from typing import Any

from nectar_protocol.announcement import Profile
from nectar_protocol.commands import KeyPurpose, KeyState, Verdict, parse_command
from nectar_protocol.entry import SALT_SIZE, seal
from nectar_protocol.hold import Hold, Line, sorted_lines
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import Work

from nectar_ledger.core.accounts import Account, AccountKind
from nectar_ledger.core.books import Books
from nectar_ledger.core.hold import TOTALS, HoldLine, LiveHold
from nectar_ledger.core.machine import ReadRows
from nectar_ledger.core.node import Batch, Given, Node
from nectar_ledger.core.parties import OperatorKey, Purse
from nectar_ledger.core.rules import keep_model
from nectar_ledger.core.state import State

Rows = Callable[[str], Iterator[Any]]


def load(read: ReadRows, size: int, time_ms: int) -> State:
    """As it was after the log's first `size` entries, the last of them of `time_ms`."""
    state = State()
    state.index, state.time_ms = size - 1, time_ms
    rows: Rows = read
    for _, id, network, holds_key, log_key, *counters in rows("books"):
        state.books = Books(id, network, holds_key, log_key, *counters)
    for id, kind, owner, _, debits, credits, opened, closed in rows("accounts"):
        account = Account(id, AccountKind(kind), owner, opened, debits, credits, closed)
        state.accounts[id] = account
        if owner is not None:
            state.wallets[owner] = account
    for account_id, debits, credits, holds in rows("purses"):
        state.purses[account_id] = Purse(state.accounts[account_id], debits, credits, holds)
    for key, purpose, key_state, index in rows("keys"):
        kept = OperatorKey(key, KeyPurpose(purpose), KeyState(key_state), index)
        state.keys[key, kept.purpose] = kept
    for _, id, _, body in rows("policies"):
        state.policies[id] = state.policy = Policy.unpack(body)
    for *_, body in rows("models"):
        keep_model(state, ModelEntry.unpack(body))
    state.outages = [(down_ms, up_ms) for _, down_ms, up_ms in rows("outages")]
    nodes = _load_nodes(state, rows)
    _load_batches(state, rows, nodes)
    _load_holds(state, rows, nodes)
    return state


def _load_nodes(state: State, rows: Rows) -> dict[int, Node]:
    nodes = {}
    for id, key, payee, bound, free_units in rows("nodes"):
        nodes[id] = state.nodes[key] = Node(id, key, state.accounts[payee], bound, free_units)
    return nodes


def _load_batches(state: State, rows: Rows, nodes: dict[int, Node]) -> None:
    for account_id, node_id, model, policy, opened_ms, units, free_units, *_ in rows("batches"):
        node, account = nodes[node_id], state.accounts[account_id]
        batch = Batch(account, node, model, state.policies[policy], opened_ms, units, free_units)
        state.batches[account_id] = node.batches[model] = batch
    for index, batch_id, _, _, sealed in rows("verdicts"):
        verdict = parse_command(sealed[SALT_SIZE:]).command
        if isinstance(verdict, Verdict):
            state.batches[batch_id].verdicts.append(Given(index, sealed, verdict))
            state.seals[index] = seal(sealed)


def _load_holds(state: State, rows: Rows, nodes: dict[int, Node]) -> None:
    lines: dict[int, list[HoldLine]] = {}
    for hold_id, node_id, cap, seq, units, final, given_back, index, totals in rows("hold_lines"):
        line = HoldLine(hold_id, nodes[node_id], cap, seq, units, bool(final), bool(given_back), index, totals)
        if totals is not None:
            line.start, line.stop, profile, *work = TOTALS.unpack(totals)
            line.profile, line.work = Profile(profile), Work(*work)
        lines.setdefault(hold_id, []).append(line)
    for (
        account_id, id, purse, session, model, version, policy, weight, profiles, revision, expires_ms, _, revised, _,
    ) in rows("holds"):  # fmt: skip
        mine = lines[account_id]
        accepted = frozenset(profile for profile in Profile if profiles >> profile & 1)
        listed = sorted_lines(Line(line.node.key, line.cap_units) for line in mine)
        hold = Hold(state.ledger.id, id, session, model, policy, expires_ms, revision, weight, accepted, listed)
        live = LiveHold(
            hold, state.accounts[account_id], None if purse is None else state.purses[purse],
            state.models[model, version], state.policies[policy], {line.node.key: line for line in mine}, revised,
        )  # fmt: skip
        for line in mine:
            if line.totals is not None:
                line.meter = state.meter(live, line.start, line.stop, line.profile)
        state.holds[id] = live
        state.watch(live)
