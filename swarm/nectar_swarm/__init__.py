"""What a node and a client share: peers over libp2p, the directory of who serves what, the wire, and a model's anatomy.

Everything that arrives from a peer is checked here, once, against a bound; what is wrong becomes a typed error.
"""
