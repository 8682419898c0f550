"""Lighter imports, for a process that is ours alone: some 40 MB and a second or more less.

hivemind's package imports its training and mixture-of-experts parts, of which nothing is used here; Transformers
imports SciPy, where there is one, for the losses of image models. A library must not do this to its user's process.
"""

import gc
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager


def skip_unused_imports() -> None:
    """Call before anything imports hivemind or Transformers."""
    if "hivemind" not in sys.modules and (spec := importlib.util.find_spec("hivemind")) is not None:
        package = types.ModuleType("hivemind")
        package.__path__ = list(spec.submodule_search_locations or [])
        package.__spec__ = spec
        sys.modules["hivemind"] = package
    # Python's own way to say that a module is not to be had: imports fail, and find_spec finds nothing.
    sys.modules.setdefault("scipy", None)  # type: ignore[arg-type]  # typeshed knows of modules only


@contextmanager
def importing() -> Iterator[None]:
    """A block of imports. What they make stays: no garbage is looked for among it, within the block or later, which is
    a fifth of what importing PyTorch and Transformers takes."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
