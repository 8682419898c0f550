"""A ledger against its own log: everything that it says is computed again. What outsiders read to check it."""
