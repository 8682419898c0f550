"""Writes the vectors: `python tests/vectors/generate.py [FOLDER]`, by default over the committed ones.

Nothing here is random, so the same protocol gives the same files. Byte strings are lower-case hex; integers
of eight bytes are decimal strings, because JavaScript rounds numbers above 2^53; `error` is the class that
Python raises.
"""

import base64
import hashlib
import json
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from cases import NODE, RFC_8032_SEED, Json, flip, put, refused
from commands import command_vectors
from commitments import commitment_vectors
from entries import entry_vectors
from holds import hold_vectors
from nectar_protocol import base58
from nectar_protocol.address import Address, pack_addresses
from nectar_protocol.announcement import MAX_LIFE_MS, ROLE, Announcement, NodeState, Profile
from nectar_protocol.identity import PEER_ID_PREFIX, Identity
from nectar_protocol.manifest import FileEntry, Manifest, ModelID
from notes import checkpoint_vectors, log_proof_vectors, note_vectors
from receipts import receipt_vectors
from trees import merkle_vectors, tile_vectors
from units import metering_vectors
from verification import verification_vectors

RELAY = Identity.from_seed(bytes(range(32)))


def base58_vectors() -> Json:
    data = [b"", b"\0", bytes(3), b"\x01", b"\x39", b"\x3a", b"\xff", b"\0\0\xff", b"a", b"simply a long string"]
    valid = [*data, PEER_ID_PREFIX + NODE.public, b"\xff" * 93]
    bad = {
        "zero is not a digit": "12D0",
        "capital O is not a digit": "12DO",
        "capital I is not a digit": "12DI",
        "small L is not a digit": "12Dl",
        "no blanks around": " 12D3",
        "no line end": "12D3\n",
        "ASCII only": "12D\u0663",
        "129 characters": "1" * 129,
    }
    return {
        "valid": [{"data": data.hex(), "text": base58.encode(data)} for data in valid],
        "invalid": refused(bad, "text"),
    }


def identity_vectors() -> Json:
    seeds = {
        "RFC 8032, test 1": RFC_8032_SEED,
        "bytes 0 to 31": bytes(range(32)),
        "all zero": bytes(32),
        "all ones": b"\xff" * 32,
    }
    key_file, raw = NODE.to_key_file(), PEER_ID_PREFIX + NODE.public
    key_files = {
        "another key type (secp256k1)": put(key_file, 1, b"\x02"),
        "one byte wrong in the seed": flip(key_file, 4),
        "one byte wrong in the public key": flip(key_file, 67),
        "one byte short": key_file[:-1],
        "one byte long": key_file + b"\0",
        "libp2p's older form, public key twice": b"\x08\x01\x12\x60" + key_file[4:] + NODE.public,
        "empty": b"",
    }
    peer_ids = {
        "another key type in the multihash": base58.encode(put(raw, 3, b"\x02")),
        "another length in the multihash": base58.encode(put(raw, 1, b"\x25")),
        "a key of 31 bytes": base58.encode(raw[:-1]),
        "a key of 33 bytes": base58.encode(raw + b"\0"),
        "a leading zero byte too many": "1" + NODE.peer_id,
        "the SHA-256 multihash of an RSA key": base58.encode(b"\x12\x20" + hashlib.sha256(b"").digest()),
        "a character outside the alphabet": NODE.peer_id[:-1] + "0",
        "a line end": NODE.peer_id + "\n",
        "the CID form": "b" + base64.b32encode(b"\x01\x72" + raw).decode().lower().rstrip("="),
        "empty": "",
    }
    return {
        "valid": [
            {
                "name": name,
                "seed": seed.hex(),
                "public_key": identity.public.hex(),
                "key_file": identity.to_key_file().hex(),
                "peer_id": identity.peer_id,
            }
            for name, seed in seeds.items()
            if (identity := Identity.from_seed(seed))
        ],
        "invalid_key_files": refused(key_files, "key_file", "IdentityError"),
        "invalid_peer_ids": refused(peer_ids, "peer_id", "IdentityError"),
    }


def entry(name: str, content: bytes) -> FileEntry:
    return FileEntry(name, len(content), hashlib.sha256(content).digest())


def manifest_vectors() -> Json:
    config, weights = entry("config.json", b"{}"), entry("model.safetensors", b"weights")
    cases = {
        "one empty file": [entry("a", b"")],
        "two files": [config, weights],
        "given in another order, the same model": [weights, config],
        "names sort by their UTF-8 bytes, not by UTF-16 units": [entry("\U0001f41d", b""), entry("\uff5e", b"")],
        "a prefix first, a full stop before a slash": [entry("a/b", b""), entry("a.b", b""), entry("a", b"")],
        "a name of 512 bytes and the largest size": [replace(entry("é" * 256, b""), size=2**64 - 1)],
    }
    two = Manifest.of([config, weights]).pack()
    one, other = config.pack(), weights.pack()
    head = two[:4]
    bad = {
        "empty": b"",
        "no file": bytes(4),
        "one byte short": two[:-1],
        "one byte long": two + b"\0",
        "the count one too small": put(two, 3, b"\1"),
        "the count one too large": put(two, 3, b"\3"),
        "10,001 files": put(two, 0, (10_001).to_bytes(4, "big")),
        "not sorted": head + other + one,
        "a name twice": head + one + one,
        "a name length one too small": flip(two, 5),
        "an empty name": bytes([0, 0, 0, 1, 0, 0]) + one[-40:],
        "a name of 513 bytes": bytes([0, 0, 0, 1, 2, 1]) + b"a" * 513 + one[-40:],
        "a name that is not UTF-8": put(two, 6, b"\xff"),
        "a name with an overlong encoding": put(two, 6, b"\xc1\xa3"),
        "a name with a surrogate": put(two, 6, b"\xed\xa0\x80"),
        "a name with a backslash": put(two, 8, b"\\"),
        "a name with a zero byte": put(two, 8, b"\0"),
        "a name with a line feed": put(two, 8, b"\n"),
        "a name with a DEL": put(two, 8, b"\x7f"),
        "an absolute name": put(two, 6, b"/"),
        "a name that ends with a slash": put(two, 16, b"/"),
        "a name with an empty part": put(two, 8, b"//"),
        "a name with a part of one dot": put(two, 6, b"./"),
        "a name that climbs": put(two, 6, b"../"),
    }
    return {
        "valid": [
            {
                "name": name,
                "files": [{"name": f.name, "size": str(f.size), "sha256": f.sha256.hex()} for f in files],
                "packed": manifest.pack().hex(),
                "model_id": manifest.model_id.hex(),
            }
            for name, files in cases.items()
            if (manifest := Manifest.of(files))
        ],
        "invalid": refused(bad, "packed"),
    }


def address_vectors() -> Json:
    addresses = [
        Address(ip_address("192.0.2.1"), 31330),
        Address(ip_address("0.0.0.0"), 1),
        Address(ip_address("255.255.255.255"), 65535),
        Address(ip_address("2001:db8::1"), 31330),
        Address(ip_address("::"), 1),
        Address(ip_address("2001:db8:0:1:1:1:1:1"), 443),
        Address(ip_address("192.0.2.1"), 31330, RELAY.public),
        Address(ip_address("2001:db8::1"), 31330, RELAY.public),
    ]
    v4, relayed = addresses[0].pack(), addresses[6].pack()
    base, far = "/ip4/192.0.2.1/tcp/31330", f"/p2p/{RELAY.peer_id}/p2p-circuit"
    texts = {
        "empty": "",
        "no leading slash": base[1:],
        "something before the first slash": "x" + base,
        "a slash at the end": base + "/",
        "no port": "/ip4/192.0.2.1/tcp",
        "an empty port": "/ip4/192.0.2.1/tcp/",
        "port 0": "/ip4/192.0.2.1/tcp/0",
        "port 65536": "/ip4/192.0.2.1/tcp/65536",
        "a negative port": "/ip4/192.0.2.1/tcp/-1",
        "a port with a sign": "/ip4/192.0.2.1/tcp/+1",
        "a port with a leading zero": "/ip4/192.0.2.1/tcp/01",
        "a port with a blank": "/ip4/192.0.2.1/tcp/ 1",
        "a port with a line end": base + "\n",
        "a port with an underscore": "/ip4/192.0.2.1/tcp/1_0",
        "a port in other digits": "/ip4/192.0.2.1/tcp/\u0663",
        "a port in hexadecimal": "/ip4/192.0.2.1/tcp/0x1",
        "UDP": "/ip4/192.0.2.1/udp/31330",
        "QUIC": "/ip4/192.0.2.1/udp/31330/quic-v1",
        "a host name": "/dns4/example.org/tcp/31330",
        "IPv6 under ip4": "/ip4/2001:db8::1/tcp/31330",
        "IPv4 under ip6": "/ip6/192.0.2.1/tcp/31330",
        "an IPv4 with leading zeros": "/ip4/192.0.02.1/tcp/31330",
        "an IPv4 of three parts": "/ip4/192.0.1/tcp/31330",
        "an IPv6 with a zone": "/ip6/fe80::1%eth0/tcp/31330",
        "an IPv4 inside an IPv6": "/ip6/::ffff:192.0.2.1/tcp/31330",
        "257 characters": base + "/" * (257 - len(base)),
        "it names a peer": f"{base}/p2p/{NODE.peer_id}",
        "it names a peer behind a relay": f"{base}{far}/p2p/{NODE.peer_id}",
        "a relay that is not a peer ID": f"{base}/p2p/Qm/p2p-circuit",
        "a relay behind a relay": base + far + far,
        "a circuit without a relay": base + "/p2p-circuit",
        "a tail that is not understood": base + "/ws",
    }
    binaries = {
        "empty": b"",
        "kind 0x00": put(v4, 0, b"\x00"),
        "kind 0x05": flip(v4, 0),
        "kind 0x44": put(v4, 0, b"\x44"),
        "kind 0x80, a relay without a family": put(relayed, 0, b"\x80"),
        "one byte short": v4[:-1],
        "a relay's key one byte short": relayed[:-1],
        "one byte long": v4 + b"\0",
        "port 0": v4[:5] + bytes(2),
        "an IPv4 inside an IPv6": b"\x06" + bytes(10) + b"\xff\xff" + v4[1:],
    }
    lists = [(), (addresses[0],), tuple(addresses), (addresses[0], addresses[0])]
    bad_lists = {
        "no count": b"",
        "nine addresses": b"\x09" + v4 * 9,
        "255 addresses": b"\xff" + v4 * 255,
        "the count one too large": b"\x03" + v4 * 2,
        "the count one too small": b"\x01" + v4 * 2,
    }
    return {
        "valid": [{"text": str(address), "binary": address.pack().hex()} for address in addresses],
        "accepted_texts": [
            {"text": "/ip6/2001:DB8::1/tcp/31330", "canonical": "/ip6/2001:db8::1/tcp/31330"},
            {"text": "/ip6/2001:db8:0:0:0:0:0:1/tcp/31330", "canonical": "/ip6/2001:db8::1/tcp/31330"},
        ],
        "valid_lists": [
            {"texts": [str(address) for address in some], "binary": pack_addresses(some).hex()} for some in lists
        ],
        "invalid_texts": refused(texts, "text"),
        "invalid_binaries": refused(binaries, "binary"),
        "invalid_lists": refused(bad_lists, "binary"),
    }


# Offset of each field in an announcement's body.
FIELDS = {
    "magic": 0, "node": 8, "model": 40, "issued_ms": 72, "expires_ms": 80, "start": 88, "stop": 90,
    "profile": 92, "state": 93, "decode_us": 94, "prefill_us": 98, "address count": 102, "address": 103,
}  # fmt: skip


def announcement_vectors() -> Json:
    v4, v6 = Address(ip_address("192.0.2.1"), 31330), Address(ip_address("2001:db8::1"), 31330)
    plain = Announcement(
        node=NODE.public,
        model=Manifest.of([entry("config.json", b"{}"), entry("model.safetensors", b"weights")]).model_id,
        issued_ms=1_767_225_600_000,
        expires_ms=1_767_225_675_000,
        start=0,
        stop=12,
        profile=Profile.BF16,
        state=NodeState.SERVING,
        decode_us=8_400,
        prefill_us=310,
        addresses=(v4,),
    )
    least = replace(plain, model=ModelID(bytes(32)), issued_ms=0, expires_ms=1, stop=1, decode_us=0, prefill_us=0)
    most = replace(plain, model=ModelID(b"\xff" * 32), decode_us=2**32 - 1, prefill_us=2**32 - 1)
    cases = {
        "one address": plain,
        "no address, leaving": replace(plain, state=NodeState.LEAVING, addresses=()),
        "every minimum": replace(least, profile=Profile.F32, state=NodeState.JOINING, addresses=()),
        "every maximum": replace(
            replace(most, start=9_999, stop=10_000, profile=Profile.NF4, state=NodeState.PINNED),
            issued_ms=2**64 - 1 - MAX_LIFE_MS,
            expires_ms=2**64 - 1,
        ),
        "IPv6, directly and through a relay": replace(plain, addresses=(v6, replace(v6, relay=RELAY.public))),
        "eight addresses": replace(plain, addresses=(v4,) * 8),
        "300 bytes, the largest": replace(plain, addresses=(v6,) * 7),
    }
    signed = {name: announcement.signed(NODE) for name, announcement in cases.items()}
    body, packed = signed["one address"].body(), signed["one address"].pack()

    def resign(new: bytes, role: bytes = ROLE, identity: Identity = NODE) -> bytes:
        return new + identity.sign(role, new)

    def at(field: str, new: bytes) -> bytes:
        return resign(put(body, FIELDS[field], new))

    offsets = {f"the {field}": offset for field, offset in FIELDS.items() if field != "magic"}
    offsets |= {"R": len(body), "S": len(body) + 32}
    forged = {f"one byte wrong in {name}": flip(packed, offset) for name, offset in offsets.items()}
    forged |= {
        "one byte long": packed + b"\0",
        "one byte short": packed[:-1],
        "no signature": body + bytes(64),
        "signed by another key": resign(body, identity=RELAY),
        "signed in another role": resign(body, role=b"nectar/receipt/v1/server\n"),
        "signed without a role": resign(body, role=b""),
    }
    bad = {
        "empty": b"",
        "only a signature": packed[-64:],
        "301 bytes": packed + bytes(301 - len(packed)),
        "one byte wrong in the magic": flip(packed, 0),
        "the magic of a version 2, signed": at("magic", b"NECANN02"),
        "an empty span, signed": at("stop", b"\0\0"),
        "a reversed span, signed": at("start", b"\0\x0d"),
        "block 10,001, signed": at("stop", (10_001).to_bytes(2, "big")),
        "profile 5, signed": at("profile", b"\5"),
        "state 0, signed": at("state", b"\0"),
        "state 6, signed": at("state", b"\6"),
        "expires when issued, signed": at("expires_ms", body[72:80]),
        "expires before issued, signed": at("expires_ms", bytes(8)),
        "lives a millisecond too long, signed": at("expires_ms", (1_767_225_720_001).to_bytes(8, "big")),
        "nine addresses, signed": resign(body[:102] + b"\x09" + body[103:] * 9),
        "the address count one too large, signed": at("address count", b"\2"),
        "the address count one too small, signed": at("address count", b"\0"),
        "an address of kind 5, signed": at("address", b"\5"),
        "a byte after the last address, signed": resign(body + b"\0"),
        "cut after the public key, signed": resign(body[:40]),
    }
    return {
        "role": ROLE.hex(),
        "seed": RFC_8032_SEED.hex(),
        "valid": [
            {
                "name": name,
                "node": a.node.hex(),
                "model": a.model.hex(),
                "issued_ms": str(a.issued_ms),
                "expires_ms": str(a.expires_ms),
                "start": a.start,
                "stop": a.stop,
                "profile": int(a.profile),
                "state": int(a.state),
                "decode_us": a.decode_us,
                "prefill_us": a.prefill_us,
                "addresses": [str(address) for address in a.addresses],
                "body": a.body().hex(),
                "signature": a.signature.hex(),
                "packed": a.pack().hex(),
            }
            for name, a in signed.items()
        ],
        "invalid": refused(forged, "packed", "SignatureError") + refused(bad, "packed"),
    }


VECTORS = {
    "base58": base58_vectors,
    "identity": identity_vectors,
    "verification": verification_vectors,
    "manifest": manifest_vectors,
    "address": address_vectors,
    "announcement": announcement_vectors,
    "hold": hold_vectors,
    "receipt": receipt_vectors,
    "command": command_vectors,
    "metering": metering_vectors,
    "commitment": commitment_vectors,
    "entry": entry_vectors,
    "merkle": merkle_vectors,
    "tile": tile_vectors,
    "note": note_vectors,
    "checkpoint": checkpoint_vectors,
    "log_proof": log_proof_vectors,
}


def main(folder: Path) -> None:
    for name, vectors in VECTORS.items():
        (folder / f"{name}.json").write_text(json.dumps(vectors(), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
