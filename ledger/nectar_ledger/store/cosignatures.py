"""Who else has signed the log's checkpoints: witnesses, each once for a checkpoint."""

import sqlalchemy as sa
from nectar_protocol.errors import MalformedError
from nectar_protocol.note import Note, NoteSignature

from nectar_ledger.errors import DamagedError
from nectar_ledger.store.database import Database
from nectar_ledger.store.schema import checkpoints, cosignatures

# Of so many of the newest, a checkpoint that enough have cosigned is looked for.
MAX_LOOKED_AT = 1024


def put_cosignature(database: Database, size: int, cosignature: NoteSignature) -> None:
    """Of the checkpoint over `size`, which the database has; over an earlier one of the same witness."""
    with database.writing.begin() as connection:
        database.put(connection, cosignatures, [(size, cosignature.name, str(cosignature).rstrip("\n"))])


def read_cosignatures(connection: sa.Connection, size: int) -> tuple[NoteSignature, ...]:
    """Of the checkpoint over `size`, by the witnesses' names. Raises DamagedError."""
    statement = sa.select(cosignatures.c.line).where(cosignatures.c.size == size).order_by(cosignatures.c.name)
    try:
        return tuple(NoteSignature.parse(line) for line in connection.execute(statement).scalars())
    except MalformedError as error:
        raise DamagedError(f"a cosignature of the checkpoint over {size} cannot be read: delete it") from error


def find_cosigned(connection: sa.Connection, least: int) -> Note | None:
    """The newest checkpoint that at least so many have cosigned, without their lines. Raises DamagedError."""
    newest = sa.select(cosignatures.c.size).order_by(cosignatures.c.size.desc()).limit(MAX_LOOKED_AT).subquery()
    enough = sa.select(newest.c.size).group_by(newest.c.size).having(sa.func.count() >= least)
    size = sa.select(sa.func.max(enough.subquery().c.size)).scalar_subquery()
    data = connection.execute(sa.select(checkpoints.c.note).where(checkpoints.c.size == size)).scalar()
    try:
        return None if data is None else Note.unpack(data)
    except MalformedError as error:
        raise DamagedError("a checkpoint cannot be read: restore the database from a backup") from error
