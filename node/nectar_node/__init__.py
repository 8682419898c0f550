"""A node: loads a span of a model's blocks and serves it to the sessions of strangers.

It trusts its operator and nobody else: what peers send has been parsed by `nectar_swarm`, and is checked here against
the session it belongs to.
"""
