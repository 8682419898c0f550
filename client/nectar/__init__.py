"""Run language models through a swarm, as Transformers runs them on one machine.

    from nectar import AutoDistributedModelForCausalLM
    model = AutoDistributedModelForCausalLM.from_pretrained("Qwen/Qwen3-32B", initial_peers=["/ip4/…/p2p/12D3…"])
    model.generate(…)

Importing this package is cheap: PyTorch and Transformers load when a name that needs them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nectar.connection import Connection
    from nectar.errors import ClientError, InsufficientFundsError, NoRouteError, PaymentError, SessionError
    from nectar.model import AutoDistributedModelForCausalLM
    from nectar.session import Session
    from nectar.wallet import Wallet

__all__ = [
    "AutoDistributedModelForCausalLM",
    "ClientError",
    "Connection",
    "InsufficientFundsError",
    "NoRouteError",
    "PaymentError",
    "Session",
    "SessionError",
    "Wallet",
]
__version__ = "0.1.0"

_HOMES = {
    "AutoDistributedModelForCausalLM": "nectar.model",
    "ClientError": "nectar.errors",
    "Connection": "nectar.connection",
    "InsufficientFundsError": "nectar.errors",
    "NoRouteError": "nectar.errors",
    "PaymentError": "nectar.errors",
    "Session": "nectar.session",
    "SessionError": "nectar.errors",
    "Wallet": "nectar.wallet",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nectar' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
