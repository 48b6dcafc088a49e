// Bytes, their spellings, and SHA-256. What is not in its one spelling is refused.

/** A part that does not verify. The message is for people, and ends a sentence that says what failed. */
export class Unproved extends Error {}

/** @returns {never} */
export const refuse = (why) => {
  throw new Unproved(why);
};

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const bytesOf = (text) => encoder.encode(text);

/** UTF-8 and nothing else. @param {Uint8Array} bytes */
export const textOf = (bytes) => {
  try {
    return decoder.decode(bytes);
  } catch {
    return refuse("it is not UTF-8");
  }
};

/** Standard base64 with padding, RFC 4648 section 4, without bits in the padding. */
export const fromBase64 = (value) => {
  if (typeof value !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(value) || value.length % 4) {
    refuse("a part of it is not base64");
  }
  const raw = atob(value);
  if (btoa(raw) !== value) refuse("a part of it is not in its one spelling as base64");
  return Uint8Array.from(raw, (c) => c.charCodeAt(0));
};

export const toBase64 = (bytes) => btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));

export const toHex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

export const equal = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);

export const concat = (...parts) => {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};

/** @param {Uint8Array} bytes @returns {Promise<Uint8Array>} 32 bytes */
export const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

/** Ed25519 over raw keys. @returns {Promise<boolean>} */
export const verifyEd25519 = async (key, signature, message) => {
  const imported = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, message);
};

/** A decimal number below 2^63 without decoration, as a BigInt. */
export const numberOf = (text) => {
  if (!/^(0|[1-9][0-9]{0,18})$/.test(text) || BigInt(text) >= 1n << 63n) refuse("a number in it is none");
  return BigInt(text);
};
