"""Every table of the core written anew from the log and its sealed parts, as if the ledger had run once more."""

from nectar_protocol.merkle import Frontier

from nectar_ledger.audit.replay import Replay
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.stored import StoredLog
from nectar_ledger.audit.tree import Tree
from nectar_ledger.audit.walk import Progress
from nectar_ledger.errors import DamagedError
from nectar_ledger.store.changes import Rows
from nectar_ledger.store.database import BROKEN_CONSTRAINT, Database
from nectar_ledger.store.scan import delete_rows
from nectar_ledger.store.schema import commands
from nectar_ledger.store.tables import TABLES
from nectar_ledger.store.versions import check_version


def rebuild(database: Database, progress: Progress = lambda entries: None, patience_s: float = 0) -> Frontier:
    """All or nothing, under the sequencer's lock. What the log was at.

    Raises DamagedError for a log that is not what its tiles and its head say, ReplayError for one that breaks a rule,
    LockedError while the ledger runs; nothing is then changed.
    """
    tables = {table.name: table for table in (*TABLES, commands)}
    replay, rows, report = Replay(), Rows(tables), Report()
    with database.hold(patience_s) as connection, connection.begin():
        check_version(connection)
        log = StoredLog(connection, report)
        tree = Tree(log.find_tile, (), report)
        for table in reversed(tables.values()):
            delete_rows(connection, table)
        for part in log.parts():
            tree.take(part.entries)
            replay.take(part)
            rows.add(replay.ledger.take_rows())
            try:
                rows.write(connection, database)
            except BROKEN_CONSTRAINT as error:
                why = str(error).partition("\n")[0]
                raise DamagedError(f"the log gives a row twice ({why}); see nectar ledger verify") from error
            progress(tree.frontier.size)
        tree.finish()
        log.check_rest(tree.frontier)
        if report.found:
            raise DamagedError(f"{report.findings[0]}: restore the log from a backup")
    return tree.frontier
