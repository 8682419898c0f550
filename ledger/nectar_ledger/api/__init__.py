"""The ledger's HTTP API. Whoever calls is a stranger: what is not signed is not believed, and everything is bounded."""
