"""A whole swarm on one machine, and the small model that it runs."""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
