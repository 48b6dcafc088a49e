// The entry page: verifies what it shows, and that the log has only grown since the last visit.
import { Unproved, refuse, toHex } from "./bytes.js";
import { leafHash } from "./merkle.js";
import { Memory, Older, changes, follow, keysOf } from "./memory.js";
import { openCheckpoint, parseLogKey } from "./note.js";
import { checkShown } from "./shown.js";
import { sentenceOf, verifyEntry } from "./verify.js";

const TRIES = 3;
const PAUSE_MILLISECONDS = 1000;
const LONGEST_MILLISECONDS = 30_000;
const WORDS = { ok: "verified", failed: "failed", unchecked: "not checked", changed: "changed", unasked: "not checked" };

const place = document.getElementById("verification");
const summary = document.getElementById("verify-summary");
const list = document.getElementById("verify-steps");
const { base, index, leaf } = place.dataset;
const memory = new Memory(base);

/** The server gave no answer to judge: that is no alarm, and no good news. */
class Unasked extends Unproved {}

const ask = async (path) => {
  const signal = AbortSignal.timeout(LONGEST_MILLISECONDS);
  let answer;
  try {
    answer = await fetch(`${base}/${path}`, { credentials: "same-origin", redirect: "error", signal });
  } catch {
    throw new Unasked("the server could not be asked: it is away, or you are no longer signed in");
  }
  if (!answer.ok) throw new Unasked(`the server answered ${answer.status}`);
  return answer.json();
};
const askConsistency = async (old, size) => (await ask(`consistency?old=${old}&new=${size}`)).hashes;

function show(steps) {
  const items = steps.map(([kind, sentence]) => {
    const item = document.createElement("li");
    item.className = kind;
    item.dataset.word = WORDS[kind];
    // Text, never markup: it holds what servers and strangers say.
    item.textContent = sentence;
    item.setAttribute("aria-label", `${WORDS[kind]}: ${sentence}`);
    return item;
  });
  list.replaceChildren(...items);
}

/** What is remembered, if it still is a checkpoint of its own key. */
async function recall() {
  const seen = memory.recall();
  if (seen === null || seen === "damaged") return seen;
  try {
    await openCheckpoint(seen.note, await parseLogKey(seen.vkey));
    return seen;
  } catch {
    return "damaged";
  }
}

/** Compares with what this browser saw before, and remembers the newer one. */
async function continueFrom(seen, found, evidence, told) {
  const now = keysOf(evidence);
  if (seen === null) {
    told("unchecked", "This is the first visit: the log's key and checkpoint are remembered from now on.");
  } else if (seen === "damaged") {
    told("changed", "What this browser remembered of the log cannot be read. It begins anew, as at a first visit.");
  } else {
    const size = await follow(seen, found, askConsistency);
    told("ok", `Since ${seen.date}, when it had ${size} entries, the log was only appended to.`);
    for (const sentence of changes(seen, now)) told("changed", sentence);
  }
  const date = new Date().toISOString().slice(0, 16).replace("T", " ");
  const kept = memory.keep({ vkey: found.vkey, note: found.checkpoint.note, date, ...now });
  if (!kept) told("unchecked", "This browser keeps nothing for this page, so the next visit is a first one again.");
}

/** One look at the server. @throws {Older} it answered with less than was seen before */
async function look(told) {
  const seen = await recall();
  // The index is the page's own, as text: what the evidence calls itself proves nothing.
  const evidence = { ...(await ask(`entries/${encodeURIComponent(index)}/evidence`)), index };
  const found = await verifyEntry(evidence, seen?.vkey ?? null, told);
  if (!found) return;
  if (toHex(await leafHash(found.leaf)) !== leaf) refuse("this page shows another entry than the log has");
  const facts = checkShown(document, found);
  told("ok", `This page is about the very leaf that was verified: ${facts} facts and the whole statement are compared.`);
  await continueFrom(seen, found, evidence, told);
}

async function verify() {
  for (let left = TRIES; ; left -= 1) {
    const steps = [];
    try {
      await look((kind, sentence) => steps.push([kind, sentence]));
      return steps;
    } catch (error) {
      if (error instanceof Unasked) return [...steps, ["unasked", sentenceOf(error)]];
      // Another tab, or another replica, may have been a moment ahead of this answer.
      if (!(error instanceof Older) || left === 1) return [...steps, ["failed", sentenceOf(error)]];
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLISECONDS));
    }
  }
}

function showMemory() {
  const seen = memory.recall();
  const box = document.getElementById("memory");
  const facts = document.getElementById("memory-facts");
  box.hidden = seen === null;
  if (seen === null) return;
  const pairs =
    seen === "damaged"
      ? [["state", "it cannot be read"]]
      : [
          ["log key", seen.vkey],
          ["checkpoint", `${seen.note.split("\n")[1]} entries, seen on ${seen.date}`],
          ...seen.witnesses.map((vkey) => ["witness key", vkey]),
          ...seen.keys.map((line) => ["entry key", line]),
        ];
  facts.replaceChildren(
    ...pairs.map(([name, value]) => {
      const [row, term, text] = ["div", "dt", "dd"].map((kind) => document.createElement(kind));
      term.textContent = name;
      text.textContent = value;
      row.append(term, text);
      return row;
    }),
  );
}

document.getElementById("forget").addEventListener("click", () => {
  memory.forget();
  summary.textContent = "Forgotten. The next visit to an entry is a first visit.";
  summary.focus();
  showMemory();
});

async function run() {
  if (!globalThis.crypto?.subtle) {
    summary.textContent = "Not verified: a browser only verifies on pages that came over https.";
    return;
  }
  const steps = await memory.alone(verify);
  const has = (kind) => steps.some(([found]) => found === kind);
  show(steps);
  showMemory();
  const result = has("failed") ? "failed" : has("unasked") ? "unknown" : "ok";
  summary.textContent = {
    failed: "NOT verified. Keep the proof and the leaf, and ask who changed what.",
    unknown: "Not verified: the server did not say all that it takes.",
    ok: `Verified: the entry is in the log, and is signed.${has("changed") ? " Something has changed since the last visit." : ""}`,
  }[result];
  place.dataset.result = result;
}

await run();
