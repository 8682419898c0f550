"""What is marked `gpu` runs where there is a CUDA device. The small models are those of the node's tests."""

import pytest
import torch

from tests.node.conftest import anatomy_of, checkpoint_folder, load_span  # noqa: F401 - fixtures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device here"))
