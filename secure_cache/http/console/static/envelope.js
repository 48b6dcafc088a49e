// DSSE envelopes and the statements in them: one signature, one spelling, a key of the ring in its time.
import { bytesOf, concat, equal, fromBase64, refuse, sha256, textOf, toHex } from "./bytes.js";

const IN_TOTO = "application/vnd.in-toto+json";
const STATEMENT = "https://in-toto.io/Statement/v1";
/** Where a statement of each type says its time. */
const TIMES = {
  "https://secure-cache.dev/attestations/cache-entry/v1": "storedAt",
  "https://secure-cache.dev/attestations/log-event/v1": "at",
};
const ALGORITHMS = { ed25519: { name: "Ed25519" }, es256: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } };
const P256_HALF_ORDER = 0x7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8n;

/** RFC 8785: the one spelling of a JSON value. ECMAScript's own numbers and strings are its rule. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
}

/** JSON in its one spelling: no member twice, no blanks. @throws {Unproved} */
function parseCanonical(bytes, what) {
  let value;
  try {
    value = JSON.parse(textOf(bytes));
  } catch {
    refuse(`${what} is not JSON`);
  }
  if (!equal(bytesOf(canonical(value)), bytes)) refuse(`${what} is not in its one spelling`);
  return value;
}

const isObjectWith = (value, ...names) =>
  value !== null && typeof value === "object" && Object.keys(value).sort().join() === names.sort().join();

/** An envelope that is well formed; nothing in it is proved. @throws {Unproved} */
export function parseEnvelope(leaf) {
  const envelope = parseCanonical(leaf, "the entry");
  const signatures = envelope?.signatures;
  if (!isObjectWith(envelope, "payload", "payloadType", "signatures") || envelope.payloadType !== IN_TOTO) {
    refuse("the entry is no signed statement");
  }
  if (!Array.isArray(signatures) || signatures.length !== 1 || !isObjectWith(signatures[0], "keyid", "sig")) {
    refuse("the entry has not exactly one signature");
  }
  const [{ keyid, sig }] = signatures;
  return { payload: fromBase64(envelope.payload), keyid, signature: fromBase64(sig) };
}

/** The key ring's document. @throws {Unproved} */
export function parseRing(text) {
  const ring = parseCanonical(bytesOf(text), "the key ring");
  if (!isObjectWith(ring, "keys", "v") || ring.v !== 1 || !Array.isArray(ring.keys)) refuse("it is no key ring");
  return ring;
}

/**
 * The key that an envelope names, if it is one that counts. Its id is computed again.
 * @returns {Promise<{keyid: string, algorithm: string, spki: Uint8Array, notBefore: string,
 *   notAfter?: string, status: string}>}
 * @throws {Unproved}
 */
export async function keyOf(ring, keyid) {
  const found = ring.keys.filter((item) => item.keyid === keyid);
  if (found.length !== 1) refuse(`the key ring has no key ${keyid}`);
  const [key] = found;
  if (key.status === "revoked") refuse(`the key ${keyid} is revoked, and what it signed proves nothing`);
  if (key.status !== "active" && key.status !== "retired") refuse(`the key ${keyid} has no known status`);
  if (key.status === "retired" && key.notAfter === undefined) refuse(`the retired key ${keyid} has no end`);
  const pem = /^-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END PUBLIC KEY-----\n$/.exec(key.pem);
  if (!pem || !Object.hasOwn(ALGORITHMS, key.algorithm)) refuse(`the key ${keyid} is not well formed`);
  const spki = fromBase64(pem[1].replaceAll("\n", ""));
  if (toHex(await sha256(spki)) !== keyid) refuse(`the key ring has another key under the id ${keyid}`);
  return { ...key, spki };
}

/** What is signed: DSSE's pre-authentication encoding. */
const preAuthentication = (payload) =>
  concat(bytesOf(`DSSEv1 ${IN_TOTO.length} ${IN_TOTO} ${payload.length} `), payload);

/**
 * The statement in an envelope, once `key` has signed it, in its time.
 * @throws {Unproved}
 */
export async function openEnvelope({ payload, signature }, key) {
  const algorithm = ALGORITHMS[key.algorithm];
  const imported = await crypto.subtle.importKey("spki", key.spki, algorithm, false, ["verify"]);
  const raw = key.algorithm === "es256" ? rawEcdsa(signature) : signature;
  if (!(await crypto.subtle.verify(algorithm, imported, raw, preAuthentication(payload)))) {
    refuse(`the signature is not one by the key ${key.keyid} over this statement`);
  }
  const { statement, time } = parseStatement(payload);
  const at = secondsOf(time);
  if (at < secondsOf(key.notBefore)) refuse(`signed before the key ${key.keyid} was valid`);
  if (key.notAfter !== undefined && at > secondsOf(key.notAfter)) refuse(`signed after the key ${key.keyid} was retired`);
  return statement;
}

/** A statement of one of our types, and when it says that it was made. Proves nothing by itself. */
export function parseStatement(payload) {
  const statement = parseCanonical(payload, "the statement");
  if (statement?._type !== STATEMENT || !Object.hasOwn(TIMES, statement.predicateType)) {
    refuse("it is a statement of a type that this page does not know");
  }
  return { statement, time: statement.predicate?.[TIMES[statement.predicateType]] };
}

/** RFC 3339 as this project writes it. @throws {Unproved} */
function secondsOf(text) {
  const found = typeof text === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(found) ? refuse("a time in it is none") : found / 1000;
}

/**
 * An ASN.1 ECDSA signature as WebCrypto wants it, two numbers of 32 bytes; with the smaller of the
 * two `s`, because anybody can turn one valid signature into the other.
 * @throws {Unproved}
 */
export function rawEcdsa(der) {
  const numbers = [];
  let at = 2;
  while (numbers.length < 2 && der[at] === 2 && der[at + 1] <= 33) {
    numbers.push(der.slice(at + 2, at + 2 + der[at + 1]));
    at += 2 + der[at + 1];
  }
  if (numbers.length !== 2) refuse("the signature is not well formed");
  const raw = concat(...numbers.map(padded));
  if (!equal(derOf(raw), der)) refuse("the signature is not in its one spelling");
  if (BigInt(`0x${toHex(raw.slice(32))}`) > P256_HALF_ORDER) refuse("the signature is not in its one spelling");
  return raw;
}

const padded = (number) => {
  const digits = number.slice(number.findIndex((byte) => byte !== 0));
  return digits.length > 32 ? refuse("the signature is not well formed") : concat(new Uint8Array(32 - digits.length), digits);
};

const derOf = (raw) => {
  const numbers = [raw.slice(0, 32), raw.slice(32)].map((number) => {
    const first = Math.min(number.findIndex((byte) => byte !== 0) >>> 0, 31);
    const digits = number.slice(first);
    const signed = digits[0] & 0x80 ? concat(new Uint8Array([0]), digits) : digits;
    return concat(new Uint8Array([2, signed.length]), signed);
  });
  const body = concat(...numbers);
  return concat(new Uint8Array([0x30, body.length]), body);
};
