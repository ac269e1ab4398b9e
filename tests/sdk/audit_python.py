"""Checks the audit log with packages that are not ours: cryptography and scitt-cose."""

import hashlib
import json
import sys
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from scitt_cose.receipt import verify_receipt

base, facts = sys.argv[1].rstrip("/"), json.loads(sys.argv[2])
TYPE = b"application/vnd.batchin.audit.v1+json"


def get(path, accept="application/json"):
    request = urllib.request.Request(base + path, headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"].startswith(accept), answer.headers
        return answer.read()


def encoding(payload):
    return b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE, len(payload), payload)


pem = load_pem_public_key(facts["pem"].encode())
key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(facts["key"]))
assert pem.public_bytes_raw() == key.public_bytes_raw()
entries = []
for name in facts["records"]:
    record = json.loads(get(f"/v1/audit/{name}"))
    payload = record["signed_payload"].encode()
    key.verify(bytes.fromhex(record["signature"]), encoding(payload))
    try:
        key.verify(bytes.fromhex(record["signature"]), encoding(payload.replace(b"qwen3", b"qwen4")))
        raise SystemExit("a changed record is signed")
    except InvalidSignature:
        pass
    said = json.loads(payload)
    assert all(isinstance(value, str) for value in said.values())
    assert all(said[member] == record[member] for member in ("audit_id", "input_hash", "output_hash", "model_id", "created_at"))
    entries.append(hashlib.sha256(payload).digest())
    receipt = get(f"/v1/audit/{name}", "application/scitt-receipt+cose")
    found = verify_receipt(receipt, leaf_entry_hex=entries[-1].hex(), log_public_key_pem=facts["pem"])
    assert found.ok, found
    assert (found.leaf_index, found.issuer, found.subject) == (record["log"]["index"], facts["origin"], f"urn:uuid:{name}"), found
    other = verify_receipt(receipt, leaf_entry_hex=hashlib.sha256(b"other").hexdigest(), log_public_key_pem=facts["pem"])
    assert not other.ok
assert len(set(entries)) == len(entries)
