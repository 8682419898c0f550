"""The genesis, and the policies and model entries that count after it."""

from nectar_protocol.commands import KeyPurpose, KeyState, PublishModel, PublishPolicy
from nectar_protocol.entries import Genesis
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.policy import Policy

from nectar_ledger.core.accounts import AccountKind
from nectar_ledger.core.books import Books
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.registry import check_authority, put_key
from nectar_ledger.core.state import BURNED, EMISSION, POOL, State
from nectar_ledger.errors import InvariantError


def check_begin(state: State) -> None:
    """Raises Refused."""
    if state.books is not None:
        raise Refused(Reason.CONFLICT, "this ledger has its genesis")


def apply_genesis(state: State, genesis: Genesis, ledger: bytes) -> None:
    check_begin(state)
    state.books = Books(ledger, genesis.network, genesis.holds, genesis.log, epoch_started_ms=state.time_ms)
    kinds = {EMISSION: AccountKind.EMISSION, BURNED: AccountKind.BURNED, POOL: AccountKind.POOL}
    for id, kind in kinds.items():
        if state.open_account(kind).id != id:
            raise InvariantError("the ledger's own accounts are its first")
    keys = {
        KeyPurpose.OPERATOR: genesis.operator,
        KeyPurpose.POLICY: genesis.publisher,
        KeyPurpose.HOLDS: genesis.holds,
        KeyPurpose.LOG: genesis.log,
    }
    for purpose, key in keys.items():
        put_key(state, key, purpose, KeyState.ACTIVE)
    _put_policy(state, genesis.policy)


def check_policy(state: State, command: PublishPolicy) -> None:
    """Raises Refused."""
    check_authority(state, command.publisher, KeyPurpose.POLICY)
    due = state.rules.version + 1
    if command.policy.version != due:
        raise Refused(Reason.WRONG_VERSION, f"the next version of the policy is {due}, not {command.policy.version}")


def apply_policy(state: State, command: PublishPolicy) -> None:
    check_policy(state, command)
    _put_policy(state, command.policy)


def _put_policy(state: State, policy: Policy) -> None:
    state.policies[policy.id] = state.policy = policy
    state.add("policies", (policy.version, policy.id, state.index, policy.pack()))


def check_model(state: State, command: PublishModel) -> None:
    """Raises Refused."""
    check_authority(state, command.publisher, KeyPurpose.POLICY)
    newest = state.newest_models.get(command.entry.model)
    due = 1 if newest is None else newest.version + 1
    if command.entry.version != due:
        raise Refused(Reason.WRONG_VERSION, f"the next version of this entry is {due}, not {command.entry.version}")


def apply_model(state: State, command: PublishModel) -> None:
    check_model(state, command)
    entry = command.entry
    keep_model(state, entry)
    state.add("models", (entry.model, entry.version, entry.id, state.index, entry.pack()))


def keep_model(state: State, entry: ModelEntry) -> None:
    """As the newest of its model."""
    state.models[entry.model, entry.version] = state.newest_models[entry.model] = entry
