"""Whose keys count: the operator's by purpose, and nodes bound to their payees."""

from nectar_protocol.commands import BindPayee, ChangePayee, KeyPurpose, KeyState, SetKey
from nectar_protocol.identity import PublicKey

from nectar_ledger.core.node import Node
from nectar_ledger.core.parties import OperatorKey
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.state import State
from nectar_ledger.errors import InvariantError


def check_authority(state: State, key: PublicKey, purpose: KeyPurpose) -> None:
    """Raises Refused unless the key may sign for this purpose now."""
    if not state.is_active(key, purpose):
        raise Refused(Reason.NOT_AUTHORIZED, f"{key.hex()} is no active key for {purpose.name.lower()}")


def check_set_key(state: State, command: SetKey) -> None:
    """Raises Refused."""
    check_authority(state, command.operator, KeyPurpose.OPERATOR)
    if (command.key, command.purpose) == (command.operator, KeyPurpose.OPERATOR):
        raise Refused(Reason.NOT_AUTHORIZED, "an operator's key is revoked by another one, or the ledger had none left")


def is_set(state: State, command: SetKey) -> bool:
    """Nothing would change."""
    known = state.keys.get((command.key, command.purpose))
    return (known.state if known else KeyState.REVOKED) is command.state


def apply_set_key(state: State, command: SetKey) -> None:
    check_set_key(state, command)
    if is_set(state, command):
        raise InvariantError(f"entry {state.index} sets a key to what it is")
    put_key(state, command.key, command.purpose, command.state)


def put_key(state: State, key: PublicKey, purpose: KeyPurpose, new: KeyState) -> None:
    kept = OperatorKey(key, purpose, new, state.index)
    state.keys[key, purpose] = kept
    state.touch(kept)


def check_bind(state: State, command: BindPayee) -> None:
    """Raises Refused."""
    if command.node in state.nodes:
        raise Refused(Reason.ALREADY_BOUND, "the node has a payee: only that one's key can name another")


def apply_bind(state: State, command: BindPayee) -> None:
    check_bind(state, command)
    books = state.ledger
    node = Node(books.next_node, command.node, state.wallet(command.payee), state.index)
    books.next_node += 1
    state.nodes[command.node] = node
    state.touch(node)
    state.touch(books)


def check_change(state: State, command: ChangePayee) -> Node:
    """The node. Raises Refused."""
    node = state.nodes.get(command.node)
    if node is None:
        raise Refused(Reason.UNKNOWN_NODE, "the node has no payee yet: bind it first")
    if node.payee.owner != command.payee:
        raise Refused(Reason.NOT_AUTHORIZED, "the node is bound to another payee")
    return node


def apply_change(state: State, command: ChangePayee) -> None:
    node = check_change(state, command)
    node.payee, node.bound_index = state.wallet(command.successor), state.index
    state.touch(node)
