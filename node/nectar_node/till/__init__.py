"""What a node earns: who may open a session under a hold, what it has had done, and the receipts that both signed.

Trusted are the ledger's signature on holds, and nothing that a client says: a node never computes more than a window
that no receipt covers yet.
"""
