"""The log: entries, their sealed parts, tiles, head, checkpoints, cosignatures, answered commands."""

import sqlalchemy as sa
from alembic import op
from nectar_protocol.merkle import Frontier

revision = "log"
down_revision = None

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "log_entries",
        sa.Column("idx", BIGINT, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_sealed",
        sa.Column("idx", BIGINT, primary_key=True, autoincrement=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "log_tiles",
        sa.Column("level", BIGINT, primary_key=True, autoincrement=False),
        sa.Column("n", BIGINT, primary_key=True, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
    )
    head = op.create_table(
        "log_head",
        sa.Column("id", BIGINT, primary_key=True, autoincrement=False),
        sa.Column("size", BIGINT, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("time_ms", BIGINT, nullable=False),
        sa.CheckConstraint("id = 1", name="log_head_one_row"),
    )
    op.bulk_insert(head, [{"id": 1, "size": 0, "frontier": Frontier().pack(), "time_ms": 0}])
    op.create_table(
        "checkpoints",
        sa.Column("size", BIGINT, primary_key=True, autoincrement=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
        sa.Column("signed_ms", BIGINT, nullable=False),
    )
    op.create_table(
        "cosignatures",
        sa.Column("size", BIGINT, sa.ForeignKey("checkpoints.size"), primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("line", sa.Text, nullable=False),
    )
    op.create_table(
        "commands",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("body_hash", sa.LargeBinary, nullable=False),
        sa.Column("log_index", BIGINT, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
    )
