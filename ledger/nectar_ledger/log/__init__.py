"""The log as others see it: its tiles and entries, proofs made of them, signed checkpoints."""
