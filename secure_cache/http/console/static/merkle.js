// RFC 6962 hashes and RFC 9162 proofs. Sizes and indexes are BigInts.
import { concat, equal, refuse, sha256 } from "./bytes.js";

const LONGEST_PATH = 126;

/** The hash of an entry. */
export const leafHash = (leaf) => sha256(concat(new Uint8Array([0]), leaf));

const nodeHash = (left, right) => sha256(concat(new Uint8Array([1]), left, right));

const checkPath = (path) => {
  if (path.length > LONGEST_PATH || path.some((hash) => hash.length !== 32)) refuse("the proof is not well formed");
};

/** One step up the right edge; gives the new positions. */
const climb = (at, last) => {
  while (!(at & 1n) && at !== 0n) {
    at >>= 1n;
    last >>= 1n;
  }
  return [at, last];
};

/**
 * RFC 9162, 2.1.3.2: that the entry with this hash is number `index` of the tree.
 * @param {Uint8Array[]} path
 * @throws {Unproved}
 */
export async function checkInclusion(index, size, hash, path, root) {
  checkPath(path);
  if (index < 0n || index >= size) refuse("the proof is for an entry beyond the end of the log");
  let at = index;
  let last = size - 1n;
  for (const step of path) {
    if (last === 0n) refuse("the proof has too many hashes");
    if (at & 1n || at === last) {
      hash = await nodeHash(step, hash);
      [at, last] = climb(at, last);
    } else {
      hash = await nodeHash(hash, step);
    }
    at >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) refuse("the proof has too few hashes");
  if (!equal(hash, root)) refuse("the entry's hash does not lead to the root of the checkpoint");
}

/**
 * RFC 9162, 2.1.4.2: that the tree of `size` continues that of `old`.
 * @param {Uint8Array[]} path
 * @throws {Unproved}
 */
export async function checkConsistency(old, oldRoot, size, root, path) {
  checkPath(path);
  if (old === size) {
    if (path.length) refuse("the proof has too many hashes");
    if (!equal(oldRoot, root)) refuse("there are two roots for one size");
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
  let [before, now] = [steps[0], steps[0]];
  for (const step of steps.slice(1)) {
    if (last === 0n) refuse("the proof has too many hashes");
    if (at & 1n || at === last) {
      before = await nodeHash(step, before);
      now = await nodeHash(step, now);
      [at, last] = climb(at, last);
    } else {
      now = await nodeHash(now, step);
    }
    at >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) refuse("the proof has too few hashes");
  if (!equal(before, oldRoot) || !equal(now, root)) refuse("the log does not continue what it was");
}
