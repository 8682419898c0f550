"""The ledger: turns what was signed into credits, and every change into an entry of a log that anybody can verify."""
