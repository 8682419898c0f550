"""The core's tables: what the log amounts to. Their rows are those of `nectar_ledger.core`, column by column."""

import sqlalchemy as sa

from nectar_ledger.core.accounts import Code
from nectar_ledger.core.node import BatchState
from nectar_ledger.store.schema import ADDED_ONLY, BIGINT, LIVE, index_column, metadata


def number(name: str) -> sa.Column[int]:
    return sa.Column(name, BIGINT, nullable=False)


def optional_number(name: str) -> sa.Column[int]:
    return sa.Column(name, BIGINT)


def content(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


# One row: the ledger's ID and its counters.
books = sa.Table(
    "books", metadata, index_column("id"), content("ledger"), sa.Column("network", sa.Text, nullable=False),
    content("holds_key"), content("log_key"), number("next_account"), number("next_node"), number("epoch"),
    number("epoch_started_ms"), number("granted_ucr"),
)  # fmt: skip

accounts = sa.Table(
    "accounts", metadata, index_column("id"), number("kind"), sa.Column("owner", sa.LargeBinary), flag("floored"),
    number("debits"), number("credits"), number("opened_index"), optional_number("closed_index"),
    sa.CheckConstraint("NOT floored OR debits <= credits", name="accounts_floor"),
    sa.CheckConstraint("debits >= 0 AND credits >= 0", name="accounts_volumes"),
)  # fmt: skip
accounts.info[LIVE] = accounts.c.closed_index.is_(None)
_owned = accounts.c.owner.is_not(None)
sa.Index("accounts_owner", accounts.c.owner, unique=True, sqlite_where=_owned, postgresql_where=_owned)

# `id` is index << 8 | position in the entry; the volumes are those after it.
transfers = sa.Table(
    "transfers", metadata, index_column("id"), number("debit_id"), number("credit_id"), number("amount_ucr"),
    number("code"), number("debit_after"), number("credit_after"),
    sa.CheckConstraint("debit_id <> credit_id AND amount_ucr > 0", name="transfers_move"),
    info=dict(ADDED_ONLY),
)  # fmt: skip
# Statements are of wallets; what a batch has earned is in `settlements`.
_looked_at = transfers.c.code < sa.literal(int(Code.ESCROW), literal_execute=True)
for side in (transfers.c.debit_id, transfers.c.credit_id):
    sa.Index(f"transfers_{side.name}", side, transfers.c.id, sqlite_where=_looked_at, postgresql_where=_looked_at)

settlements = sa.Table(
    "settlements", metadata, index_column("idx"), number("hold_id"), number("node_id"), number("batch_id"),
    number("units"), number("paid_ucr"), number("fee_ucr"), info=dict(ADDED_ONLY),
)  # fmt: skip
sa.Index("settlements_batch", settlements.c.batch_id, settlements.c.idx)
sa.Index("settlements_hold", settlements.c.hold_id, settlements.c.idx)

# `purse_id` is private: nothing that is public may be made from it.
holds = sa.Table(
    "holds", metadata, index_column("account_id"), content("id"), optional_number("purse_id"), content("session"),
    content("model"), number("model_version"), content("policy"), number("weight"), number("profiles"),
    number("revision"), number("expires_ms"), number("opened_index"), number("revised_index"),
    optional_number("closed_index"),
)  # fmt: skip
holds.info[LIVE] = holds.c.closed_index.is_(None)
sa.Index("holds_id", holds.c.id, unique=True)
sa.Index("holds_purse", holds.c.purse_id, holds.c.account_id)
sa.Index("holds_open", holds.c.account_id, sqlite_where=holds.info[LIVE], postgresql_where=holds.info[LIVE])

# `totals` are bytes 144 to 216 of the newest receipt, which itself is in entry `receipt_index`.
hold_lines = sa.Table(
    "hold_lines", metadata, index_column("hold_id"), index_column("node_id"), number("cap_units"), number("seq"),
    number("units"), flag("final"), flag("given_back"), optional_number("receipt_index"),
    sa.Column("totals", sa.LargeBinary),
    sa.CheckConstraint("units <= cap_units", name="hold_lines_cap"),
)  # fmt: skip
hold_lines.info[LIVE] = hold_lines.c.hold_id.in_(sa.select(holds.c.account_id).where(holds.c.closed_index.is_(None)))

nodes = sa.Table(
    "nodes", metadata, index_column("id"), content("key"), number("payee_id"), number("bound_index"),
    number("free_units"),
)  # fmt: skip
sa.Index("nodes_key", nodes.c.key, unique=True)
sa.Index("nodes_payee", nodes.c.payee_id, nodes.c.id)

batches = sa.Table(
    "batches", metadata, index_column("account_id"), number("node_id"), content("model"), content("policy"),
    number("opened_ms"), number("units"), number("free_units"), number("state"), optional_number("closed_index"),
)  # fmt: skip
# Literal, as what planners compare with an index's condition.
batches.info[LIVE] = batches.c.state == sa.literal(int(BatchState.OPEN), literal_execute=True)
sa.Index("batches_node", batches.c.node_id, batches.c.account_id)
sa.Index("batches_open", batches.c.node_id, sqlite_where=batches.info[LIVE], postgresql_where=batches.info[LIVE])

# Private until their batches close.
verdicts = sa.Table(
    "verdicts", metadata, index_column("idx"), number("batch_id"), number("node_id"), number("outcome"),
    content("sealed"), info=dict(ADDED_ONLY),
)  # fmt: skip
verdicts.info[LIVE] = verdicts.c.batch_id.in_(sa.select(batches.c.account_id).where(batches.info[LIVE]))
sa.Index("verdicts_batch", verdicts.c.batch_id, verdicts.c.idx)

disputes = sa.Table(
    "disputes", metadata, index_column("idx"), content("hold"), number("node_id"), content("session"),
    content("evidence"), info=dict(ADDED_ONLY),
)  # fmt: skip

keys = sa.Table(
    "keys", metadata, sa.Column("key", sa.LargeBinary, primary_key=True), index_column("purpose"), number("state"),
    number("changed_index"),
)  # fmt: skip

policies = sa.Table(
    "policies", metadata, index_column("version"), content("id"), number("idx"), content("body"),
    info=dict(ADDED_ONLY),
)  # fmt: skip
sa.Index("policies_id", policies.c.id, unique=True)

models = sa.Table(
    "models", metadata, sa.Column("model", sa.LargeBinary, primary_key=True), index_column("version"), content("id"),
    number("idx"), content("body"), info=dict(ADDED_ONLY),
)  # fmt: skip
sa.Index("models_idx", models.c.idx, unique=True)

# Private, as `purse_lines`: an account's purse inside the pool, and each of its movements.
purses = sa.Table(
    "purses", metadata, index_column("account_id"), number("debits"), number("credits"), number("holds"),
    sa.CheckConstraint("debits <= credits", name="purses_floor"),
)  # fmt: skip

purse_lines = sa.Table(
    "purse_lines", metadata, index_column("account_id"), index_column("idx"), number("amount_ucr"), number("code"),
    number("balance_ucr"), info=dict(ADDED_ONLY),
)  # fmt: skip

epochs = sa.Table(
    "epochs", metadata, index_column("number"), number("idx"), number("started_ms"), number("ended_ms"),
    number("free_units"), number("emitted_ucr"), number("burned_ucr"), number("wallets_ucr"), number("pool_ucr"),
    number("holds_ucr"), number("batches_ucr"), info=dict(ADDED_ONLY),
)  # fmt: skip

outages = sa.Table(
    "outages", metadata, index_column("idx"), number("down_ms"), number("up_ms"), info=dict(ADDED_ONLY),
)  # fmt: skip

TABLES = (
    books, accounts, transfers, settlements, holds, hold_lines, nodes, batches, verdicts, disputes, keys, policies,
    models, purses, purse_lines, epochs, outages,
)  # fmt: skip
