"""`nectar ledger`: what an operator of a ledger does, and anybody who checks one."""
