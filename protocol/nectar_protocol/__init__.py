"""What is signed, counted and proved in Nectar: pure functions over bytes, without I/O and without a clock.

Everything that a node, a client, a ledger and a browser must agree on lives in this package, once.
It trusts nothing: every `unpack` either returns a whole, checked object or raises a `ProtocolError`.
"""
