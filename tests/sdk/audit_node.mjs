// Checks records as a browser does: WebCrypto, and nothing of ours.
import assert from "node:assert";

const base = process.argv[2].replace(/\/$/, "");
const facts = JSON.parse(process.argv[3]);
const utf8 = new TextEncoder();
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const unbase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer()));
const type = "application/vnd.batchin.audit.v1+json";
const key = await crypto.subtle.importKey("raw", unhex(facts.key), "Ed25519", true, ["verify"]);
const verify = (signature, bytes) => crypto.subtle.verify("Ed25519", key, signature, bytes);

async function rootOf(index, size, leaf, proof) {
  let [place, last, hash] = [BigInt(index), BigInt(size) - 1n, leaf];
  for (const sibling of proof) {
    assert(last > 0n);
    if (place % 2n === 1n || place === last) {
      hash = await sha256(Uint8Array.of(1), sibling, hash);
      while (place % 2n === 0n && place !== 0n) [place, last] = [place / 2n, last / 2n];
    } else {
      hash = await sha256(Uint8Array.of(1), hash, sibling);
    }
    [place, last] = [place / 2n, last / 2n];
  }
  assert.equal(last, 0n);
  return hash;
}

for (const id of facts.records) {
  const record = await (await fetch(`${base}/v1/audit/${id}`)).json();
  const payload = utf8.encode(record.signed_payload);
  const signed = utf8.encode(`DSSEv1 ${type.length} ${type} ${payload.length} ${record.signed_payload}`);
  assert(await verify(unhex(record.signature), signed));
  assert(!(await verify(unhex(record.signature), payload)));
  const [text, signatures] = record.log.checkpoint.split("\n\n");
  const [origin, size, root] = text.split("\n");
  assert.equal(origin, facts.origin);
  const line = signatures.split("\n").find((line) => line.startsWith(`\u2014 ${origin} `));
  assert(await verify(unbase64(line.split(" ")[2]).slice(4), utf8.encode(`${text}\n`)));
  const leaf = await sha256(Uint8Array.of(0), await sha256(payload));
  const proof = record.log.inclusion_proof.map(unbase64);
  assert.deepEqual(await rootOf(record.log.index, size, leaf, proof), unbase64(root));
}
