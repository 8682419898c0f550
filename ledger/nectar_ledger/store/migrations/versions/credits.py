"""What the log amounts to: the tables of the core."""

import sqlalchemy as sa
from alembic import op

revision = "credits"
down_revision = "log"

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Codes of transfers between accounts that people look at.
LOOKED_AT = sa.text("code < 16")
OPEN_HOLD, OPEN_BATCH = sa.text("closed_index IS NULL"), sa.text("state = 1")
OWNED = sa.text("owner IS NOT NULL")


def index_column(name: str) -> sa.Column[int]:
    return sa.Column(name, BIGINT, primary_key=True, autoincrement=False)


def number(name: str) -> sa.Column[int]:
    return sa.Column(name, BIGINT, nullable=False)


def upgrade() -> None:
    op.create_table(
        "accounts",
        index_column("id"),
        number("kind"),
        sa.Column("owner", sa.LargeBinary, nullable=True),
        sa.Column("floored", sa.Boolean, nullable=False),
        number("debits"),
        number("credits"),
        number("opened_index"),
        sa.Column("closed_index", BIGINT, nullable=True),
        sa.CheckConstraint("NOT floored OR debits <= credits", name="accounts_floor"),
        sa.CheckConstraint("debits >= 0 AND credits >= 0", name="accounts_volumes"),
    )
    op.create_index("accounts_owner", "accounts", ["owner"], unique=True, sqlite_where=OWNED, postgresql_where=OWNED)
    op.create_table(
        "batches",
        index_column("account_id"),
        number("node_id"),
        sa.Column("model", sa.LargeBinary, nullable=False),
        sa.Column("policy", sa.LargeBinary, nullable=False),
        number("opened_ms"),
        number("units"),
        number("free_units"),
        number("state"),
        sa.Column("closed_index", BIGINT, nullable=True),
    )
    op.create_index("batches_node", "batches", ["node_id", "account_id"])
    op.create_index("batches_open", "batches", ["node_id"], sqlite_where=OPEN_BATCH, postgresql_where=OPEN_BATCH)
    op.create_table(
        "books",
        index_column("id"),
        sa.Column("ledger", sa.LargeBinary, nullable=False),
        sa.Column("network", sa.Text, nullable=False),
        sa.Column("holds_key", sa.LargeBinary, nullable=False),
        sa.Column("log_key", sa.LargeBinary, nullable=False),
        number("next_account"),
        number("next_node"),
        number("epoch"),
        number("epoch_started_ms"),
        number("granted_ucr"),
    )
    op.create_table(
        "disputes",
        index_column("idx"),
        sa.Column("hold", sa.LargeBinary, nullable=False),
        number("node_id"),
        sa.Column("session", sa.LargeBinary, nullable=False),
        sa.Column("evidence", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "epochs",
        index_column("number"),
        number("idx"),
        number("started_ms"),
        number("ended_ms"),
        number("free_units"),
        number("emitted_ucr"),
        number("burned_ucr"),
        number("wallets_ucr"),
        number("pool_ucr"),
        number("holds_ucr"),
        number("batches_ucr"),
    )
    op.create_table(
        "hold_lines",
        index_column("hold_id"),
        index_column("node_id"),
        number("cap_units"),
        number("seq"),
        number("units"),
        sa.Column("final", sa.Boolean, nullable=False),
        sa.Column("given_back", sa.Boolean, nullable=False),
        sa.Column("receipt_index", BIGINT, nullable=True),
        sa.Column("totals", sa.LargeBinary, nullable=True),
        sa.CheckConstraint("units <= cap_units", name="hold_lines_cap"),
    )
    op.create_table(
        "holds",
        index_column("account_id"),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("purse_id", BIGINT, nullable=True),
        sa.Column("session", sa.LargeBinary, nullable=False),
        sa.Column("model", sa.LargeBinary, nullable=False),
        number("model_version"),
        sa.Column("policy", sa.LargeBinary, nullable=False),
        number("weight"),
        number("profiles"),
        number("revision"),
        number("expires_ms"),
        number("opened_index"),
        number("revised_index"),
        sa.Column("closed_index", BIGINT, nullable=True),
    )
    op.create_index("holds_id", "holds", ["id"], unique=True)
    op.create_index("holds_open", "holds", ["account_id"], sqlite_where=OPEN_HOLD, postgresql_where=OPEN_HOLD)
    op.create_index("holds_purse", "holds", ["purse_id", "account_id"])
    op.create_table(
        "keys",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        index_column("purpose"),
        number("state"),
        number("changed_index"),
    )
    op.create_table(
        "models",
        sa.Column("model", sa.LargeBinary, primary_key=True),
        index_column("version"),
        sa.Column("id", sa.LargeBinary, nullable=False),
        number("idx"),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("models_idx", "models", ["idx"], unique=True)
    op.create_table(
        "nodes",
        index_column("id"),
        sa.Column("key", sa.LargeBinary, nullable=False),
        number("payee_id"),
        number("bound_index"),
        number("free_units"),
    )
    op.create_index("nodes_key", "nodes", ["key"], unique=True)
    op.create_index("nodes_payee", "nodes", ["payee_id", "id"])
    op.create_table(
        "outages",
        index_column("idx"),
        number("down_ms"),
        number("up_ms"),
    )
    op.create_table(
        "policies",
        index_column("version"),
        sa.Column("id", sa.LargeBinary, nullable=False),
        number("idx"),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("policies_id", "policies", ["id"], unique=True)
    op.create_table(
        "purse_lines",
        index_column("account_id"),
        index_column("idx"),
        number("amount_ucr"),
        number("code"),
        number("balance_ucr"),
    )
    op.create_table(
        "purses",
        index_column("account_id"),
        number("debits"),
        number("credits"),
        number("holds"),
        sa.CheckConstraint("debits <= credits", name="purses_floor"),
    )
    op.create_table(
        "settlements",
        index_column("idx"),
        number("hold_id"),
        number("node_id"),
        number("batch_id"),
        number("units"),
        number("paid_ucr"),
        number("fee_ucr"),
    )
    op.create_index("settlements_batch", "settlements", ["batch_id", "idx"])
    op.create_index("settlements_hold", "settlements", ["hold_id", "idx"])
    op.create_table(
        "transfers",
        index_column("id"),
        number("debit_id"),
        number("credit_id"),
        number("amount_ucr"),
        number("code"),
        number("debit_after"),
        number("credit_after"),
        sa.CheckConstraint("debit_id <> credit_id AND amount_ucr > 0", name="transfers_move"),
    )
    op.create_index(
        "transfers_credit_id", "transfers", ["credit_id", "id"], sqlite_where=LOOKED_AT, postgresql_where=LOOKED_AT
    )
    op.create_index(
        "transfers_debit_id", "transfers", ["debit_id", "id"], sqlite_where=LOOKED_AT, postgresql_where=LOOKED_AT
    )
    op.create_table(
        "verdicts",
        index_column("idx"),
        number("batch_id"),
        number("node_id"),
        number("outcome"),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_index("verdicts_batch", "verdicts", ["batch_id", "idx"])
