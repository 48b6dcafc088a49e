// C2SP: signed notes, verifier keys, checkpoints, cosignatures, and tlog-proof files.
import { bytesOf, concat, equal, fromBase64, numberOf, refuse, sha256, toHex, verifyEd25519 } from "./bytes.js";

const ED25519 = 0x01;
const COSIGNATURE_ED25519 = 0x04;
const COSIGNATURE_MLDSA44 = 0x06;
const LONGEST_NOTE = 65_536;
const MOST_SIGNATURES = 100;
const CONTROL = /[\0-\x09\x0b-\x1f]/;

/**
 * A verifier key, `name+key id+base64`. Its key id is computed again.
 * @returns {Promise<{name: string, id: Uint8Array, type: number, key: Uint8Array, vkey: string}>}
 * @throws {Unproved}
 */
export async function parseVkey(vkey) {
  const match = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})$/.exec(vkey);
  if (!match) refuse("that is no verifier key: name+hash+key");
  const [, name, id, rest] = match;
  const raw = fromBase64(rest);
  const found = (await sha256(concat(bytesOf(`${name}\n`), raw))).slice(0, 4);
  if (toHex(found) !== id) refuse("the verifier key is not the one that its key id names");
  const key = raw.slice(1);
  if (raw[0] !== COSIGNATURE_MLDSA44 && key.length !== 32) refuse("an Ed25519 key has 32 bytes");
  return { name, id: found, type: raw[0], key, vkey };
}

/** A verifier key of a log, and not of a witness. @throws {Unproved} */
export async function parseLogKey(vkey) {
  const key = await parseVkey(vkey);
  if (key.type !== ED25519) refuse("that is a verifier key, but not one of a log");
  return key;
}

/** A signed note: its text, and its signatures, which prove nothing yet. @throws {Unproved} */
export function parseNote(note) {
  const at = note.lastIndexOf("\n\n");
  if (at < 0 || !note.endsWith("\n") || note.length > LONGEST_NOTE) refuse("it is no signed note");
  const lines = note.slice(at + 2, -1).split("\n");
  const text = note.slice(0, at + 1);
  if (lines.length > MOST_SIGNATURES || CONTROL.test(text)) refuse("it is no signed note");
  return { text, signatures: lines.map(parseSignature) };
}

function parseSignature(line) {
  const match = /^\u2014 ([^\s+]+) (\S+)$/.exec(line);
  if (!match) refuse("one of its lines is no signature");
  const raw = fromBase64(match[2]);
  if (raw.length < 5) refuse("one of its lines is no signature");
  return { name: match[1], id: raw.slice(0, 4), value: raw.slice(4) };
}

const isBy = (key) => (signature) => signature.name === key.name && equal(signature.id, key.id);

/**
 * Verifies a checkpoint by the log's key.
 * @returns {Promise<{origin: string, size: bigint, root: Uint8Array, body: string, others: object[],
 *   note: string}>} `others`: the signatures that are not the log's
 * @throws {Unproved}
 */
export async function openCheckpoint(note, key) {
  const { text, signatures } = parseNote(note);
  const mine = signatures.filter(isBy(key));
  if (mine.length !== 1) refuse(`the key of ${key.name} has not signed it`);
  if (!(await verifyEd25519(key.key, mine[0].value, bytesOf(text)))) {
    refuse(`the signature of ${key.name} does not verify`);
  }
  const lines = text.split("\n");
  if (lines.length !== 4) refuse("it has other lines than origin, size and root");
  const [origin, size, root] = [lines[0], numberOf(lines[1]), fromBase64(lines[2])];
  if (origin !== key.name) refuse("it is a checkpoint of another log");
  if (root.length !== 32) refuse("its root is no hash");
  const others = signatures.filter((signature) => !isBy(key)(signature));
  return { origin, size, root, body: text, others, note };
}

/**
 * What each known witness has said of a checkpoint, and whose signatures nobody here knows.
 * @param {string[]} vkeys of the witnesses that this server asks
 * @returns {Promise<{name: string, state: "cosigned"|"wrong"|"absent"|"unsupported"|"unknown",
 *   time?: number}[]>} times in seconds since 1970, by the witness's clock
 */
export async function cosignatures(checkpoint, vkeys) {
  const keys = await Promise.all(vkeys.map(parseVkey));
  const known = await Promise.all(keys.map((key) => cosignature(checkpoint, key)));
  const strangers = checkpoint.others.filter((signature) => !keys.some((key) => isBy(key)(signature)));
  return [...known, ...strangers.map(({ name }) => ({ name, state: "unknown" }))];
}

async function cosignature(checkpoint, key) {
  const found = checkpoint.others.filter(isBy(key));
  if (!found.length) return { name: key.name, state: "absent" };
  if (key.type !== COSIGNATURE_ED25519) return { name: key.name, state: "unsupported" };
  const { value } = found[0];
  if (found.length > 1 || value.length !== 72) return { name: key.name, state: "wrong" };
  const time = new DataView(value.buffer, value.byteOffset).getBigUint64(0);
  const message = bytesOf(`cosignature/v1\ntime ${time}\n${checkpoint.body}`);
  const good = time <= 253_402_300_799n && (await verifyEd25519(key.key, value.slice(8), message));
  return good ? { name: key.name, state: "cosigned", time: Number(time) } : { name: key.name, state: "wrong" };
}

/** A .tlog-proof file. Nothing in it is verified. @throws {Unproved} */
export function parseProof(file) {
  const at = file.indexOf("\n\n");
  const lines = file.slice(0, at).split("\n");
  if (at < 0 || lines.shift() !== "c2sp.org/tlog-proof@v1") refuse("it is no tlog-proof of version 1");
  if (lines[0]?.startsWith("extra ")) fromBase64(lines.shift().slice(6));
  const match = /^index (.*)$/.exec(lines.shift() ?? "");
  if (!match || lines.length > 63) refuse("the proof is not well formed");
  const hashes = lines.map(fromBase64);
  if (hashes.some((hash) => hash.length !== 32)) refuse("a hash of the proof is none");
  return { index: numberOf(match[1]), hashes, note: file.slice(at + 2) };
}
