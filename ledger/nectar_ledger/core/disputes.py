"""A session that discloses itself against a node. The ledger records it; who re-executes it gives a verdict."""

from nectar_protocol.commands import Dispute

from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.state import State


def check_dispute(state: State, command: Dispute) -> None:
    """Raises Refused. The hold may be closed and forgotten here: whoever judges finds it in the log."""
    if command.node not in state.nodes:
        raise Refused(Reason.UNKNOWN_NODE, "no node of this key is bound to a payee")
    live = state.holds.get(command.hold)
    if live is not None and live.hold.session != command.session:
        raise Refused(Reason.NOT_AUTHORIZED, "a dispute is opened by the session's key")


def apply_dispute(state: State, command: Dispute) -> None:
    check_dispute(state, command)
    node = state.nodes[command.node]
    state.add("disputes", (state.index, command.hold, node.id, command.session, command.evidence))
