"""The error tree of the protocol package."""


class ProtocolError(ValueError):
    """Bytes or values that do not follow Nectar's protocol."""


class MalformedError(ProtocolError):
    """A field is out of its range, or the bytes do not have the object's shape."""


class SignatureError(ProtocolError):
    """The signature is not the named key's signature of this object in this role."""


class IdentityError(ProtocolError):
    """The bytes do not hold an Ed25519 key, or the text is not the peer ID of one."""


class ProofError(ProtocolError):
    """A Merkle proof does not lead from what it should prove to the root."""


class ConflictError(ProtocolError):
    """Two objects, each sound, contradict each other: a total that falls, units that nobody else computes."""
