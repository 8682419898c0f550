"""Settings of this folder: no deadline for property tests, since other work may share the machine."""

from hypothesis import settings

settings.register_profile("swarm", deadline=None, max_examples=100)
settings.load_profile("swarm")
