// Verifies one entry of the log, with nothing but WebCrypto. No part of what it is given is believed:
// C2SP tlog-proof, signed notes and tlog-cosignature, RFC 6962, DSSE. Runs in browsers and in Node.

const text = new TextEncoder();
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const ED25519 = 1;
const COSIGNATURE = 4;
const LATEST_SECONDS = 253402300799; // 9999-12-31
/** Where a statement of each type says its time. */
const TIMES = new Map([
  ["https://secure-cache.dev/attestations/cache-entry/v1", "storedAt"],
  ["https://secure-cache.dev/attestations/log-event/v1", "at"],
]);

/** A part that does not verify; the message is for people. */
export class Unproved extends Error {}

const refuse = (why) => {
  throw new Unproved(why);
};

export const fromBase64 = (value) => {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(value) || value.length % 4) refuse("not base64");
  const raw = atob(value);
  if (btoa(raw) !== value) refuse("not canonical base64");
  return Uint8Array.from(raw, (c) => c.charCodeAt(0));
};
export const toHex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
const equal = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
const concat = (...parts) => {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};
const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

/** RFC 6962: the hash of a leaf, and of a node. */
export const leafHash = (leaf) => sha256(concat(new Uint8Array([0]), leaf));
const nodeHash = (left, right) => sha256(concat(new Uint8Array([1]), left, right));

/** RFC 9162, 2.1.3.2: the root that a leaf and its path lead to. Sizes are BigInts. */
export async function rootOf(index, size, leaf, path) {
  if (index < 0n || index >= size) refuse("the proof is for an entry beyond the log");
  let at = index;
  let last = size - 1n;
  let hash = leaf;
  for (const step of path) {
    if (last === 0n) refuse("the proof is too long");
    if (at & 1n || at === last) {
      hash = await nodeHash(step, hash);
      while (!(at & 1n) && at !== 0n) {
        at >>= 1n;
        last >>= 1n;
      }
    } else {
      hash = await nodeHash(hash, step);
    }
    at >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) refuse("the proof is too short");
  return hash;
}

/** RFC 9162, 2.1.4.2: that the tree of `size` continues that of `old`. */
export async function checkConsistency(old, oldRoot, size, root, path) {
  if (path.length > 63 || path.some((hash) => hash.length !== 32)) refuse("the proof is not well formed");
  if (old === size) {
    if (path.length || !equal(oldRoot, root)) refuse("two roots for one size");
    return;
  }
  if (old <= 0n || old > size) refuse("the log is smaller than it was");
  const steps = (old & (old - 1n)) === 0n ? [oldRoot, ...path] : [...path];
  if (!steps.length) refuse("the proof is empty");
  let at = old - 1n;
  let last = size - 1n;
  while (at & 1n) {
    at >>= 1n;
    last >>= 1n;
  }
  let before = steps[0];
  let now = steps[0];
  for (const step of steps.slice(1)) {
    if (last === 0n) refuse("the proof is too long");
    if (at & 1n || at === last) {
      before = await nodeHash(step, before);
      now = await nodeHash(step, now);
      while (!(at & 1n) && at !== 0n) {
        at >>= 1n;
        last >>= 1n;
      }
    } else {
      now = await nodeHash(now, step);
    }
    at >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n || !equal(before, oldRoot) || !equal(now, root)) {
    refuse("the log does not continue what was seen before");
  }
}

/** A C2SP vkey: name, key id, and the raw Ed25519 key. */
export async function parseVkey(vkey) {
  const match = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(vkey);
  if (!match) refuse("not a verifier key");
  const raw = fromBase64(match[3]);
  const type = raw[0];
  const id = (await sha256(concat(text.encode(`${match[1]}\n`), raw))).slice(0, 4);
  if (toHex(id) !== match[2]) refuse("the verifier key has another key id");
  return { name: match[1], id, type, key: raw.slice(1), vkey };
}

const verifyEd25519 = async (key, signature, message) => {
  const imported = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, message);
};

/** A signed note: its text, and its signatures, which prove nothing yet. */
export function parseNote(note) {
  const at = note.lastIndexOf("\n\n");
  if (at < 0 || !note.endsWith("\n")) refuse("the checkpoint is no signed note");
  const signatures = note
    .slice(at + 2, -1)
    .split("\n")
    .map((line) => {
      const match = /^\u2014 (\S+) (\S+)$/.exec(line);
      if (!match) refuse("a signature line is not well formed");
      const raw = fromBase64(match[2]);
      return { name: match[1], id: raw.slice(0, 4), value: raw.slice(4) };
    });
  return { text: note.slice(0, at + 1), signatures };
}

/** Verifies a checkpoint by the log's key; gives origin, size (BigInt), root and all signatures. */
export async function openCheckpoint(note, verifier) {
  const { text: body, signatures } = parseNote(note);
  if (verifier.type !== ED25519) refuse("not the key of a log");
  const mine = signatures.filter((s) => s.name === verifier.name && equal(s.id, verifier.id));
  if (mine.length !== 1) refuse("the log's key has not signed the checkpoint");
  if (!(await verifyEd25519(verifier.key, mine[0].value, text.encode(body)))) {
    refuse("the log's signature does not verify");
  }
  const lines = body.split("\n");
  if (lines.length !== 4 || lines[0] !== verifier.name || !/^(0|[1-9][0-9]*)$/.test(lines[1])) {
    refuse("the checkpoint is not well formed");
  }
  const root = fromBase64(lines[2]);
  if (root.length !== 32) refuse("the root is not a hash");
  return { origin: lines[0], size: BigInt(lines[1]), root, body, signatures, note };
}

/** The witnesses among the given vkeys whose cosignature verifies, with their times. */
export async function cosigners(checkpoint, vkeys) {
  const found = [];
  for (const vkey of new Set(vkeys)) {
    const witness = await parseVkey(vkey);
    if (witness.type !== COSIGNATURE) continue;
    for (const s of checkpoint.signatures) {
      if (s.name !== witness.name || !equal(s.id, witness.id) || s.value.length !== 72) continue;
      const time = new DataView(s.value.buffer, s.value.byteOffset).getBigUint64(0);
      const message = text.encode(`cosignature/v1\ntime ${time}\n${checkpoint.body}`);
      if (await verifyEd25519(witness.key, s.value.slice(8), message)) {
        found.push({ name: witness.name, time: Number(time) });
      }
    }
  }
  return found;
}

/** A .tlog-proof file. */
export function parseProof(file) {
  const at = file.indexOf("\n\n");
  const lines = file.slice(0, at).split("\n");
  if (at < 0 || lines.shift() !== "c2sp.org/tlog-proof@v1") refuse("no proof of a known version");
  if (lines[0]?.startsWith("extra ")) lines.shift();
  const match = /^index (0|[1-9][0-9]*)$/.exec(lines.shift() ?? "");
  if (!match || lines.length > 63) refuse("the proof is not well formed");
  const hashes = lines.map(fromBase64);
  if (hashes.some((hash) => hash.length !== 32)) refuse("a hash of the proof is too short");
  return { index: BigInt(match[1]), hashes, note: file.slice(at + 2) };
}

const fromPem = (pem) => fromBase64(pem.replace(/-----[A-Z ]+-----/g, "").replace(/\s+/g, ""));

/** An ASN.1 ECDSA signature as WebCrypto wants it: two numbers of 32 bytes. */
export function rawEcdsa(der) {
  let at = 2;
  if (der[0] !== 0x30 || der[1] !== der.length - 2) refuse("the signature is not well formed");
  const numbers = [0, 1].map(() => {
    const length = der[at + 1];
    const odd = length > 1 && der[at + 2] === 0 && !(der[at + 3] & 0x80);
    if (der[at] !== 2 || !(length >= 1 && length <= 33) || at + 2 + length > der.length) {
      refuse("the signature is not well formed");
    }
    if (der[at + 2] & 0x80 || odd) refuse("the signature is not well formed");
    let value = der.slice(at + 2, at + 2 + length);
    at += 2 + length;
    while (value.length > 32 && value[0] === 0) value = value.slice(1);
    if (value.length > 32) refuse("the signature is not well formed");
    return concat(new Uint8Array(32 - value.length), value);
  });
  if (at !== der.length) refuse("the signature is not well formed");
  return concat(...numbers);
}

const seconds = (value) => {
  const form = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
  const at = typeof value === "string" && form.test(value) ? Date.parse(value) : Number.NaN;
  if (!Number.isFinite(at)) refuse("a time is not well formed");
  return at;
};

/** The one key of the ring with this id, if it may prove anything. */
function keyOf(ring, keyid) {
  const same = ring.keys.filter((item) => item.keyid === keyid);
  if (same.length !== 1) refuse("the entry is signed by a key that is not in the ring, or not once");
  const [key] = same;
  if (key.status === "revoked") refuse("the entry is signed by a key that was revoked");
  if (key.status !== "active" && key.status !== "retired") refuse("a key of the ring has no known status");
  if (key.status === "retired" && key.notAfter === undefined) refuse("a retired key of the ring has no end");
  if (key.algorithm !== "es256" && key.algorithm !== "ed25519") refuse("a key of the ring has no known algorithm");
  return key;
}

/** DSSE: the payload of an envelope, once a key of the ring has signed it in its time. */
export async function openEnvelope(leaf, ring) {
  let envelope;
  try {
    envelope = JSON.parse(utf8.decode(leaf));
  } catch {
    return refuse("the entry is no statement");
  }
  const signature = envelope?.signatures?.[0];
  if (!signature || envelope.signatures.length !== 1) refuse("the entry is no statement");
  if (envelope.payloadType !== "application/vnd.in-toto+json") refuse("the entry is no statement");
  const key = keyOf(ring, signature.keyid);
  const spki = fromPem(key.pem);
  if (toHex(await sha256(spki)) !== key.keyid) refuse("a key of the ring has another id");
  const payload = fromBase64(envelope.payload);
  const kind = text.encode(envelope.payloadType);
  const head = text.encode(`DSSEv1 ${kind.length} ${envelope.payloadType} ${payload.length} `);
  const message = concat(head, payload);
  const value = fromBase64(signature.sig);
  const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const algorithm = key.algorithm === "es256" ? ecdsa : { name: "Ed25519" };
  const imported = await crypto.subtle.importKey("spki", spki, algorithm, false, ["verify"]);
  const raw = key.algorithm === "es256" ? rawEcdsa(value) : value;
  if (!(await crypto.subtle.verify(algorithm, imported, raw, message))) {
    refuse("the entry's signature does not verify");
  }
  const statement = JSON.parse(utf8.decode(payload));
  const where = TIMES.get(statement?.predicateType);
  if (statement?._type !== "https://in-toto.io/Statement/v1" || !where) refuse("the statement is of an unknown type");
  const at = seconds(statement.predicate?.[where]);
  if (at < seconds(key.notBefore)) refuse("signed before the key was valid");
  if (key.notAfter !== undefined && at > seconds(key.notAfter)) refuse("signed after the key was retired");
  return { statement, keyid: key.keyid };
}

/**
 * Everything about one entry, step by step.
 * @param evidence {index, leaf, proof, vkeys, keys, witnesses}: as the server gives it
 * @param pinned the vkey that this browser has seen first, or null
 * @param step called with ("ok" | "failed" | "unchecked", sentence)
 * @returns {checkpoint, statement} when all of it verified, else null
 */
export async function verifyEntry(evidence, pinned, step) {
  try {
    const vkey = pinned ?? evidence.vkeys[0];
    if (!evidence.vkeys.includes(vkey)) refuse(`the server has another log key than before: ${vkey}`);
    const verifier = await parseVkey(vkey);
    const proof = parseProof(evidence.proof);
    const checkpoint = await openCheckpoint(proof.note, verifier);
    step("ok", `The log's key ${vkey} has signed the checkpoint of ${checkpoint.size} entries.`);
    const leaf = fromBase64(evidence.leaf);
    if (proof.index !== BigInt(evidence.index)) refuse("the proof is for another entry");
    const root = await rootOf(proof.index, checkpoint.size, await leafHash(leaf), proof.hashes);
    if (!equal(root, checkpoint.root)) refuse("the entry is not in the log: its proof leads elsewhere");
    step("ok", `The entry is number ${proof.index} of this log: ${proof.hashes.length} hashes lead to its root.`);
    const { statement, keyid } = await openEnvelope(leaf, JSON.parse(evidence.keys));
    step("ok", `The entry key ${keyid} has signed the statement, in its time.`);
    const signed = await cosigners(checkpoint, evidence.witnesses);
    for (const witness of signed) {
      const known = witness.time <= LATEST_SECONDS;
      const when = known ? new Date(witness.time * 1000).toISOString() : `second ${witness.time}`;
      step("ok", `The witness ${witness.name} has cosigned the checkpoint, at ${when}.`);
    }
    const others = checkpoint.signatures.length - 1 - signed.length;
    if (others > 0) step("unchecked", `${others} other signatures of the checkpoint were not checked.`);
    if (!signed.length) step("unchecked", "No witness whose key is known here has cosigned it.");
    return { checkpoint, statement, vkey, leaf };
  } catch (error) {
    step("failed", error instanceof Unproved ? `${error.message}.` : `It cannot be read: ${error.name}.`);
    return null;
  }
}
