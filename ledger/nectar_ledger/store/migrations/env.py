"""What alembic runs: on the connection, and in the transaction, that `nectar_ledger.store.versions` gives it."""

from alembic import context
from nectar_ledger.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
