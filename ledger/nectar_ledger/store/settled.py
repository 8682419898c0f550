"""Up to which receipt a line is settled, as it is committed: for holds that the core has forgotten."""

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from nectar_ledger.store.tables import hold_lines, holds, nodes


@dataclass(frozen=True)
class LineSettled:
    """`seq`: of the newest receipt that counts, 0 for none."""

    seq: int
    is_closed: bool


def read_settled(
    connection: sa.Connection, wanted: Collection[bytes], servers: Collection[bytes]
) -> dict[tuple[bytes, bytes], LineSettled]:
    """The lines that these nodes have in these holds, by hold and node; at most 1,000 of each at once."""
    statement = (
        sa.select(holds.c.id, nodes.c.key, hold_lines.c.seq, holds.c.closed_index)
        .join_from(holds, hold_lines, holds.c.account_id == hold_lines.c.hold_id)
        .join(nodes, nodes.c.id == hold_lines.c.node_id)
        .where(holds.c.id.in_(wanted), nodes.c.key.in_(servers))
    )
    return {
        (hold, node): LineSettled(seq, closed_index is not None)
        for hold, node, seq, closed_index in connection.execute(statement)
    }
