"""The error tree of the node package."""


class NodeError(Exception):
    """Something its operator can act on keeps this node from serving."""


class DeviceError(NodeError):
    """The device asked for is not to be had on this machine."""


class ProfileError(NodeError):
    """The weights cannot be kept in the format asked for, and be right."""


class SpanError(NodeError):
    """These blocks cannot be loaded or do not compute what they should."""


class PlacementError(NodeError):
    """No span of blocks fits what was asked for."""


class StepError(NodeError):
    """A step does not fit its session; the message goes back to whoever sent it."""


class GapError(StepError):
    """Steps before this one are missing: the session must be replayed here."""


class RecordError(StepError):
    """What this session sent or received cannot be read back here: it must go on elsewhere."""


class FullError(StepError):
    """There is no room for more of this session here now; another node may have some."""


class PaymentError(NodeError):
    """What was shown or signed does not pay for a session here; the message goes to whoever sent it."""


class TillError(NodeError):
    """The file that keeps what this node has earned cannot be used."""
