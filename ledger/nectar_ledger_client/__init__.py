"""A client of a ledger: reads it, sends it what was signed, and checks what it answers."""
