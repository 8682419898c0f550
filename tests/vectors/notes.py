"""Signed notes, checkpoints and proofs of entries: examples that others published, and our own."""

from dataclasses import replace

from cases import Json, flip, refused
from nectar_protocol.checkpoint import Checkpoint, open_checkpoint
from nectar_protocol.identity import Identity
from nectar_protocol.logproof import LogProof
from nectar_protocol.merkle import EMPTY_ROOT, leaf_hash, tree_root
from nectar_protocol.note import Kind, Note, NoteKey, NoteSignature, cosign_text, sign_text
from nectar_protocol.proofs import leaves_reader, prove_inclusion
from nectar_protocol.textual import to_base64
from trees import ENTRIES_OF_CT, LEAVES

from examples import C2SP_NOTE, C2SP_VKEY, CT_CHECKPOINT, CT_VKEY, CT_WITNESSES, GO_NOTE, GO_VKEY

ORIGIN, WITNESS_NAME = "ledger.example.org/testnet", "witness.example.org/w1"
LOG, WITNESS = Identity.from_seed(bytes(range(32))), Identity.from_seed(bytes(range(32, 64)))
LOG_KEY = NoteKey(ORIGIN, Kind.NOTE, LOG.public)
WITNESS_KEY = NoteKey(WITNESS_NAME, Kind.COSIGNATURE, WITNESS.public)
KEYS = {"log": str(LOG_KEY), "vkeys": [str(WITNESS_KEY)]}
TIME_S = 1_767_225_600
TEXT = "First line\n\nthird line, è\n"


def signed_by(note: Note, keys: list[NoteKey]) -> list[Json]:
    """Who signed, with the time of a cosignature, or empty text."""
    signed = note.verify(keys).items()
    return [{"vkey": str(key), "time_s": "" if time_s is None else str(time_s)} for key, time_s in signed]


def changed(signature: NoteSignature, data: bytes) -> NoteSignature:
    return replace(signature, signature=data)


def note_vectors() -> Json:
    mine, theirs = sign_text(TEXT, ORIGIN, LOG), cosign_text(TEXT, WITNESS_NAME, WITNESS, TIME_S)
    unknown = NoteSignature("stranger", b"\0\0\0\1", b"any bytes")
    keys = [LOG_KEY, WITNESS_KEY]
    valid = {
        "the example of C2SP signed-note": (Note.unpack(C2SP_NOTE.encode()), [NoteKey.parse(C2SP_VKEY)]),
        "the example of Go's sumdb/note": (Note.unpack(GO_NOTE.encode()), [NoteKey.parse(GO_VKEY)]),
        "one signature": (Note(TEXT, (mine,)), keys),
        "a cosignature alone": (Note(TEXT, (theirs,)), keys),
        "both, and one of a stranger before": (Note(TEXT, (unknown, mine, theirs)), keys),
        "a known name with another ID": (Note(TEXT, (replace(unknown, name=ORIGIN), mine)), keys),
        "a known ID with another name": (Note(TEXT, (replace(unknown, key_id=mine.key_id), mine)), keys),
        "a text of one line feed": (Note("\n", (sign_text("\n", ORIGIN, LOG),)), keys),
        "the first and the last time": (
            Note(TEXT, tuple(cosign_text(TEXT, WITNESS_NAME, WITNESS, time_s) for time_s in (0, 2**63 - 1))), keys,
        ),
        "64 signatures": (Note(TEXT, (unknown,) * 63 + (mine,)), keys),
    }  # fmt: skip
    early = cosign_text(TEXT, WITNESS_NAME, WITNESS, TIME_S - 1)
    late = (2**63).to_bytes(8, "big") + WITNESS.sign(b"cosignature/v1\ntime 9223372036854775808\n", TEXT.encode())
    forged = {
        "no known key": (unknown,),
        "another text": (sign_text(TEXT + "\n", ORIGIN, LOG),),
        "one byte wrong in R": (changed(mine, flip(mine.signature, 0)),),
        "one byte wrong in S": (changed(mine, flip(mine.signature, 32)),),
        "one byte short": (changed(mine, mine.signature[:-1]),),
        "one byte long": (changed(mine, mine.signature + b"\0"),),
        "a good one and a bad one of known keys": (mine, changed(theirs, flip(theirs.signature, 8))),
        "a good one and a bad one of the same key": (mine, changed(mine, flip(mine.signature, 0))),
        "another time": (changed(theirs, early.signature[:8] + theirs.signature[8:]),),
        "a cosignature without time": (changed(theirs, theirs.signature[8:]),),
        "time 2^63": (changed(theirs, late),),
        "the text's signature as cosignature": (
            changed(theirs, theirs.signature[:8] + sign_text(TEXT, WITNESS_NAME, WITNESS).signature),
        ),
    }  # fmt: skip
    good = Note(TEXT, (mine,)).pack()
    head, line = TEXT.encode(), str(mine).encode()
    dash, name, encoded = line.rstrip(b"\n").split(b" ")
    bad = {
        "empty": b"",
        "text alone": head,
        "no empty line": head + line,
        "no signature": head + b"\n",
        "no text": b"\n" + line,
        "an empty line at the end": good + b"\n",
        "no line feed at the end": good[:-1],
        "a carriage return": good.replace(b"line\n", b"line\r\n"),
        "a tab in the text": good.replace(b"line,", b"line\t"),
        "a zero byte in the text": good.replace(b"line,", b"line\0"),
        "text that is not UTF-8": good.replace("è".encode(), b"\xe8"),
        "a hyphen for the dash": head + b"\n" + line.replace(dash, b"-"),
        "two spaces": head + b"\n" + line.replace(b" ", b"  "),
        "no name": head + b"\n" + b" ".join([dash, b"", encoded]) + b"\n",
        "a name with a plus": head + b"\n" + line.replace(name, b"a+b"),
        "a name with a no-break space": head + b"\n" + line.replace(name, "a\u00a0b".encode()),
        "a name of 256 bytes": head + b"\n" + line.replace(name, b"a" * 256),
        "no padding": head + b"\n" + line.replace(b"=", b""),
        "base64 for URLs": head + b"\n" + line.replace(b"+", b"-").replace(b"/", b"_").replace(b"org_", b"org/"),
        "bits after the end of base64": head + b"\n" + b" ".join([dash, name, b"AAAAAAB="]) + b"\n",
        "a key ID alone": head + b"\n" + b" ".join([dash, name, b"AAAAAA=="]) + b"\n",
        "65 signatures": head + b"\n" + line * 65,
    }
    ids = {
        "the ID of another kind": f"{ORIGIN}+{LOG_KEY.key_id.hex()}+{to_base64(bytes([4]) + LOG.public)}",
        "another name": str(LOG_KEY).replace("testnet", "mainnet"),
        "the ID in capitals": str(LOG_KEY).replace(LOG_KEY.key_id.hex(), LOG_KEY.key_id.hex().upper()),
        "an ID and no key": f"{ORIGIN}+{LOG_KEY.key_id.hex()}",
        "a name with a space": str(LOG_KEY).replace("ledger", "led ger"),
        "a line end": str(LOG_KEY) + "\n",
        "1,025 characters": "a" * 1025,
        "empty": "",
    }
    kinds = {
        "kind 2, ECDSA": f"{ORIGIN}+00000000+{to_base64(bytes([2]) + LOG.public)}",
        "kind 6, ML-DSA-44": f"{ORIGIN}+00000000+{to_base64(bytes([6]) + bytes(500))}",
        "a key of 31 bytes": f"{ORIGIN}+00000000+{to_base64(bytes([1]) + LOG.public[:-1])}",
        "no key": f"{ORIGIN}+00000000+",
    }
    return {
        "keys": [
            {"vkey": str(k), "name": k.name, "kind": int(k.kind), "key_id": k.key_id.hex(),
             "public_key": k.public.hex()}
            for k in (*keys, NoteKey.parse(C2SP_VKEY), NoteKey.parse(CT_WITNESSES[0]))
        ],
        "seeds": [{"vkey": str(LOG_KEY), "seed": bytes(LOG.key).hex()},
                  {"vkey": str(WITNESS_KEY), "seed": bytes(WITNESS.key).hex()}],
        "valid": [
            {
                "name": name,
                "text": note.text,
                "packed": note.pack().hex(),
                "vkeys": [str(key) for key in known],
                "signed": signed_by(note, known),
            }
            for name, (note, known) in valid.items()
        ],
        "invalid": refused(bad, "packed"),
        "invalid_signatures": [
            {"name": name, "packed": Note(TEXT, lines).pack().hex(), "vkeys": [str(key) for key in keys],
             "error": "SignatureError"}
            for name, lines in forged.items()
        ],
        "invalid_vkeys": refused(ids, "vkey") + refused(kinds, "vkey", "IdentityError"),
    }  # fmt: skip


def opened(note: Note, log: NoteKey, witnesses: list[NoteKey]) -> Json:
    witnessed = open_checkpoint(note, log, witnesses)
    checkpoint = witnessed.checkpoint
    return {
        "packed": note.pack().hex(),
        "log": str(log),
        "vkeys": [str(key) for key in witnesses],
        "origin": checkpoint.origin,
        "size": str(checkpoint.size),
        "root": checkpoint.root.hex(),
        "extensions": list(checkpoint.extensions),
        "witnesses": [{"vkey": str(key), "time_s": str(time_s)} for key, time_s in witnessed.witnesses.items()],
    }


def checkpoint_vectors() -> Json:
    plain = Checkpoint(ORIGIN, 8, tree_root(LEAVES))
    cosignature = cosign_text(plain.text, WITNESS_NAME, WITNESS, TIME_S)
    extended = replace(plain, extensions=("a line more", "and another"))
    empty, largest = Checkpoint(ORIGIN, 0, EMPTY_ROOT), replace(plain, size=2**63 - 1)
    witnesses = [NoteKey.parse(vkey) for vkey in CT_WITNESSES]
    valid = {
        "a public log and two of its witnesses": opened(
            Note.unpack(CT_CHECKPOINT.encode()), NoteKey.parse(CT_VKEY), witnesses
        ),
        "signed by its log": opened(plain.signed(LOG), LOG_KEY, [WITNESS_KEY]),
        "seen by a witness": opened(plain.signed(LOG, [cosignature]), LOG_KEY, [WITNESS_KEY]),
        "seen by a witness that is not asked for": opened(plain.signed(LOG, [cosignature]), LOG_KEY, []),
        "the empty log": opened(empty.signed(LOG), LOG_KEY, []),
        "the largest log": opened(largest.signed(LOG), LOG_KEY, []),
        "two extension lines": opened(extended.signed(LOG), LOG_KEY, []),
    }
    root = to_base64(plain.root)
    bad = {
        "empty": "",
        "no root": f"{ORIGIN}\n8\n",
        "no line feed at the end": f"{ORIGIN}\n8\n{root}",
        "no origin": f"\n8\n{root}\n",
        "an origin of 256 bytes": f"{'a' * 256}\n8\n{root}\n",
        "size 08": f"{ORIGIN}\n08\n{root}\n",
        "size +8": f"{ORIGIN}\n+8\n{root}\n",
        "size -8": f"{ORIGIN}\n-8\n{root}\n",
        "a size with a space": f"{ORIGIN}\n8 \n{root}\n",
        "a size in other digits": f"{ORIGIN}\n\u0668\n{root}\n",
        "size 2^63": f"{ORIGIN}\n{2**63}\n{root}\n",
        "no size": f"{ORIGIN}\n\n{root}\n",
        "a root of 31 bytes": f"{ORIGIN}\n8\n{to_base64(plain.root[:-1])}\n",
        "a root in hex": f"{ORIGIN}\n8\n{plain.root.hex()}\n",
        "another root for the empty tree": f"{ORIGIN}\n0\n{root}\n",
        "an empty extension line": f"{plain.text}\n",
        "17 extension lines": plain.text + "more\n" * 17,
        "a tab in an extension line": plain.text + "a\tb\n",
    }
    log_line = sign_text(plain.text, ORIGIN, LOG)
    other = Checkpoint("ledger.example.org/other", 8, plain.root)
    forged = {
        "another size": (Note(largest.text, (log_line,)), "SignatureError"),
        "another root": (Note(replace(plain, root=LEAVES[0]).text, (log_line,)), "SignatureError"),
        "signed by a witness alone": (Note(plain.text, (cosignature,)), "SignatureError"),
        "a witness saw another tree": (largest.signed(LOG, [cosignature]), "SignatureError"),
        "signed by no known key": (Note(plain.text, (sign_text(plain.text, ORIGIN, WITNESS),)), "SignatureError"),
        "of another origin": (Note(other.text, (sign_text(other.text, ORIGIN, LOG),)), "MalformedError"),
        "no checkpoint": (Note(TEXT, (sign_text(TEXT, ORIGIN, LOG),)), "MalformedError"),
    }
    return {
        "valid": [{"name": name} | fields for name, fields in valid.items()],
        "invalid_texts": refused(bad, "text"),
        "invalid": [
            {"name": name, "packed": note.pack().hex(), "error": error} | KEYS for name, (note, error) in forged.items()
        ],
    }


def log_proof_vectors() -> Json:
    checkpoint = Checkpoint(ORIGIN, 8, tree_root(LEAVES))
    note = checkpoint.signed(LOG, [cosign_text(checkpoint.text, WITNESS_NAME, WITNESS, TIME_S)])
    read = leaves_reader(LEAVES)
    hashes = tuple(prove_inclusion(read, 5, 8))
    plain = LogProof(5, hashes, note)
    alone = Checkpoint(ORIGIN, 1, leaf_hash(b"alone")).signed(LOG)
    valid = {
        "entry 5 of 8": (plain, ENTRIES_OF_CT[5]),
        "entry 0 of 8, with extra data": (
            LogProof(0, tuple(prove_inclusion(read, 0, 8)), note, b"extra"), ENTRIES_OF_CT[0],
        ),
        "the only entry, without hashes": (LogProof(0, (), alone), b"alone"),
    }  # fmt: skip
    packed = plain.pack()
    index_line, first = b"index 5\n", to_base64(hashes[0]).encode()
    bad = {
        "empty": b"",
        "the magic of a version 2": packed.replace(b"@v1", b"@v2"),
        "no index": packed.replace(index_line, b""),
        "an index with a leading zero": packed.replace(b"index 5", b"index 05"),
        "a negative index": packed.replace(b"index 5", b"index -5"),
        "index 2^63": packed.replace(b"index 5", b"index 9223372036854775808"),
        "extra data after the index": packed.replace(index_line, index_line + b"extra ZQ==\n"),
        "a line for extra data without any": packed.replace(index_line, b"extra \n" + index_line),
        "extra data twice": packed.replace(index_line, b"extra ZQ==\n" * 2 + index_line),
        "extra data without padding": packed.replace(index_line, b"extra ZQ\n" + index_line),
        "a hash of 31 bytes": packed.replace(first, to_base64(hashes[0][:-1]).encode()),
        "a hash in hex": packed.replace(first, hashes[0].hex().encode()),
        "65 hashes": packed.replace(first, b"\n".join([first] * 63)),
        "carriage returns": packed.replace(b"\n", b"\r\n"),
        "no checkpoint": packed.partition(b"\n\n")[0] + b"\n\n",
        "no empty line before the checkpoint": packed.replace(b"\n\n", b"\n", 1),
        "a letter beyond ASCII": packed.replace(b"index", "ìndex".encode()),
    }
    wrong = {
        "another entry": (plain, ENTRIES_OF_CT[4], "ProofError"),
        "another index": (replace(plain, index=4), ENTRIES_OF_CT[5], "ProofError"),
        "an index that the log does not have": (replace(plain, index=8), ENTRIES_OF_CT[5], "MalformedError"),
        "a hash too few": (replace(plain, hashes=hashes[:-1]), ENTRIES_OF_CT[5], "ProofError"),
        "a hash too many": (replace(plain, hashes=(*hashes, hashes[0])), ENTRIES_OF_CT[5], "ProofError"),
        "hashes in another order": (replace(plain, hashes=hashes[::-1]), ENTRIES_OF_CT[5], "ProofError"),
        "a checkpoint of another tree": (replace(plain, checkpoint=alone), ENTRIES_OF_CT[5], "MalformedError"),
        "a checkpoint that its log did not sign": (
            replace(plain, checkpoint=checkpoint.signed(WITNESS)), ENTRIES_OF_CT[5], "SignatureError",
        ),
    }  # fmt: skip
    return {
        "valid": [
            {"name": name, "entry": entry.hex(), "index": str(proof.index), "proof": [h.hex() for h in proof.hashes],
             "extra": proof.extra.hex(), "packed": proof.pack().hex()} | KEYS
            for name, (proof, entry) in valid.items()
        ],
        "invalid": refused(bad, "packed"),
        "invalid_proofs": [
            {"name": name, "entry": entry.hex(), "packed": proof.pack().hex(), "error": error} | KEYS
            for name, (proof, entry, error) in wrong.items()
        ],
    }  # fmt: skip
