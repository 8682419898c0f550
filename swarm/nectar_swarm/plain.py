"""Attributes of configurations and modules that cost no more than attributes do.

Transformers looks for a configuration's synonyms and its settings of single layers in Python and at every access, for a
microsecond or more; PyTorch finds a module's children and weights by a fallback in Python. A model reads hundreds of
them for every token.
"""

from typing import Any

from torch import nn
from transformers import PretrainedConfig


def read_plainly(config: PretrainedConfig) -> None:
    """From now on the interpreter looks up the attributes of this configuration, and of its text model's, by itself.

    Their values stay the same. One with settings of single layers is left as it is: it must go on refusing to say
    what differs between layers.
    """
    for part in {id(part): part for part in (config, config.get_text_config(decoder=True))}.values():
        if not part.is_heterogeneous:
            part.__class__ = _plain(type(part))


def read_modules_plainly(model: nn.Module) -> None:
    """Put children and weights where the interpreter looks first, in a model whose parts are not taken out again."""
    for module in model.modules():
        for parts in (module._modules, module._parameters, module._buffers):
            vars(module).update(parts)


def _plain(kind: type[PretrainedConfig]) -> Any:
    synonyms = {name: _synonym(target) for name, target in kind.attribute_map.items()}
    names = {"__getattribute__": object.__getattribute__, "__module__": kind.__module__, **synonyms}
    return type(kind.__name__, (kind,), names)


def _synonym(target: str) -> property:
    return property(lambda config: getattr(config, target))
