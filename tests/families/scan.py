"""Which of Transformers' causal language models can be served, and why not: python -m tests.families.scan [MODEL_TYPE…]

Each is looked at in its default configuration, without weights. Some defaults are no model at all (a size is None, all
blocks are recurrent); such types are served in the configurations that people publish.
"""

import sys
import warnings
from collections.abc import Iterable

from nectar_swarm.anatomy import examine
from nectar_swarm.errors import UnsupportedModelError
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging


def refusals(chosen: Iterable[str] = ()) -> dict[str, str | None]:
    """Of each model type the reason why it is refused; None where it is accepted."""
    kinds = {kind.model_type: kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING.keys()}  # noqa: SIM118 - a lazy mapping
    reasons: dict[str, str | None] = {}
    for name in sorted(chosen or kinds):
        try:
            examine(kinds[name]())
            reasons[name] = None
        except UnsupportedModelError as error:
            reasons[name] = " ".join(str(error).split())
        except Exception as error:  # of its configuration
            reasons[name] = f"{name} has no default configuration: {' '.join(str(error).split())}"
    return reasons


def main() -> None:
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    reasons = refusals(sys.argv[1:])
    for name, reason in reasons.items():
        print(f"{name:28} {'accepted' if reason is None else reason}")
    print(f"{sum(reason is None for reason in reasons.values())} of {len(reasons)} accepted")


if __name__ == "__main__":
    main()
