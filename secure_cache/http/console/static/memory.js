// What this browser remembers of a log between visits: its key, its newest checkpoint, and which keys
// of witnesses and entries the server gave. Another server cannot make it forget.
import { Unproved, fromBase64, refuse } from "./bytes.js";
import { parseRing } from "./envelope.js";
import { checkConsistency } from "./merkle.js";
import { openCheckpoint, parseLogKey } from "./note.js";

const isText = (value) => typeof value === "string";

export class Memory {
  /** @param {string} base the console's path: a host may serve several */
  constructor(base) {
    this.name = `secure-cache-log:${base}`;
  }

  /** @returns {{vkey, note, date, witnesses, keys} | "damaged" | null} null: nothing is remembered */
  recall() {
    let text;
    try {
      text = localStorage.getItem(this.name);
    } catch {
      return null;
    }
    if (text === null) return null;
    try {
      const seen = JSON.parse(text);
      const lists = [seen.witnesses ?? [], seen.keys ?? []];
      const whole = [seen.vkey, seen.note, seen.date].every(isText);
      if (!whole || !lists.every((list) => Array.isArray(list) && list.every(isText))) return "damaged";
      return { vkey: seen.vkey, note: seen.note, date: seen.date, witnesses: lists[0], keys: lists[1] };
    } catch {
      return "damaged";
    }
  }

  /** @returns {boolean} whether the browser keeps it */
  keep(seen) {
    try {
      localStorage.setItem(this.name, JSON.stringify(seen));
      return true;
    } catch {
      return false;
    }
  }

  forget() {
    localStorage.removeItem(this.name);
  }

  /** One tab at a time: two that compare and keep at once would each undo the other. */
  alone(work) {
    return navigator.locks ? navigator.locks.request(this.name, work) : work();
  }
}

/** The log has fewer entries than this browser has seen. */
export class Older extends Unproved {}

/**
 * Compares what was verified now with what was seen before.
 * @param seen from `recall`, not null
 * @param found from `verifyEntry`
 * @param {(old: bigint, size: bigint) => Promise<string[]>} ask for a consistency proof
 * @returns {Promise<bigint>} the size of then
 * @throws {Unproved} the log does not continue what it was; `Older` where it is only smaller
 */
export async function follow(seen, found, ask) {
  const before = await openCheckpoint(seen.note, await parseLogKey(seen.vkey));
  const { size, root } = found.checkpoint;
  if (before.size > size) {
    throw new Older(`the log had ${before.size} entries on ${seen.date}, and has fewer now: it was put back`);
  }
  const hashes = before.size === size ? [] : await ask(before.size, size);
  if (!Array.isArray(hashes)) refuse("the server gave no proof");
  await checkConsistency(before.size, before.root, size, root, hashes.map(fromBase64));
  return before.size;
}

/** What is to be remembered of the keys that a server gave: one line for each. */
export function keysOf(evidence) {
  const keys = parseRing(evidence.keys).keys;
  return {
    witnesses: [...new Set(evidence.witnesses)].sort(),
    keys: keys.map(({ keyid, status, notBefore, notAfter }) => `${keyid} ${status} ${notBefore} ${notAfter ?? ""}`.trim()),
  };
}

/** What is different, one sentence each: all of it can be right, and none of it should surprise. */
export function changes(seen, now) {
  const told = [];
  for (const line of now.witnesses.filter((item) => !seen.witnesses.includes(item))) {
    told.push(`The server names a witness key that it did not name before: ${line}.`);
  }
  for (const line of seen.witnesses.filter((item) => !now.witnesses.includes(item))) {
    told.push(`The server no longer names the witness key ${line}.`);
  }
  const before = new Map(seen.keys.map((line) => [line.split(" ")[0], line]));
  const after = new Map(now.keys.map((line) => [line.split(" ")[0], line]));
  for (const [keyid, line] of after) {
    if (!before.has(keyid)) told.push(`The ring has an entry key that it did not have: ${keyid}.`);
    else if (before.get(keyid) !== line) told.push(`The ring says something else of the entry key ${keyid}: ${line.split(" ").slice(1).join(" ")}.`);
  }
  for (const keyid of before.keys()) {
    if (!after.has(keyid)) told.push(`The ring has no longer the entry key ${keyid}.`);
  }
  return told;
}
