"""The tables of the log. They are the same on SQLite and PostgreSQL; the core's stand beside them.

The core's (`tables`) are in `metadata` too, with all integers BIGINT. A table of which rows are only ever added has
`info=ADDED_ONLY`; rows of others are written whole, over the row with the same primary key. Where `info` has LIVE, it
says which rows the core still needs in memory. Migrations create them (`migrations/`), and a test compares the two.
"""

import sqlalchemy as sa

# An INTEGER of SQLite has 64 bits too, and is its row ID where it is the primary key.
BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ADDED_ONLY = {"added_only": True}
LIVE = "live"

metadata = sa.MetaData()


def index_column(name: str) -> sa.Column[int]:
    """A primary key that is given, not counted by the database."""
    return sa.Column(name, BIGINT, primary_key=True, autoincrement=False)


log_entries = sa.Table(
    "log_entries",
    metadata,
    index_column("idx"),
    sa.Column("entry", sa.LargeBinary, nullable=False),
    info=ADDED_ONLY,
)

# Sealed parts: what the leaf has only the hash of. They stay with the ledger and with whom they are about.
log_sealed = sa.Table(
    "log_sealed",
    metadata,
    index_column("idx"),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    info=ADDED_ONLY,
)

log_tiles = sa.Table(
    "log_tiles",
    metadata,
    index_column("level"),
    index_column("n"),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
)

# One row. `frontier` is a packed merkle.Frontier, `time_ms` the time of the last entry.
log_head = sa.Table(
    "log_head",
    metadata,
    index_column("id"),
    sa.Column("size", BIGINT, nullable=False),
    sa.Column("frontier", sa.LargeBinary, nullable=False),
    sa.Column("time_ms", BIGINT, nullable=False),
    sa.CheckConstraint("id = 1", name="log_head_one_row"),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    index_column("size"),
    sa.Column("note", sa.LargeBinary, nullable=False),
    sa.Column("signed_ms", BIGINT, nullable=False),
)

cosignatures = sa.Table(
    "cosignatures",
    metadata,
    sa.Column("size", BIGINT, sa.ForeignKey("checkpoints.size"), primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("line", sa.Text, nullable=False),
)

# What was answered to a command, for when it is sent again.
commands = sa.Table(
    "commands",
    metadata,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("body_hash", sa.LargeBinary, nullable=False),
    sa.Column("log_index", BIGINT, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=False),
    info=ADDED_ONLY,
)
