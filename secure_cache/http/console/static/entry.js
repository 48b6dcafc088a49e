// The entry page: verifies what it shows, and that the log has only grown since the last visit.
import { Unproved, checkConsistency, fromBase64, leafHash, openCheckpoint, parseVkey, toHex, verifyEntry } from "./verify.js";

const place = document.getElementById("verification");
const summary = document.getElementById("verify-summary");
const steps = document.getElementById("verify-steps");
const words = { ok: "verified", failed: "failed", unchecked: "not checked" };
const { base, index, leaf } = place.dataset;

function step(kind, sentence) {
  const item = document.createElement("li");
  item.className = kind;
  item.dataset.word = words[kind];
  // Text, never markup: it holds what servers and strangers say.
  item.textContent = sentence;
  item.setAttribute("aria-label", `${words[kind]}: ${sentence}`);
  steps.append(item);
  return kind;
}

const ask = async (path) => {
  const answer = await fetch(`${base}/${path}`, { credentials: "same-origin", redirect: "error" });
  if (!answer.ok) throw new Unproved(`the server answered ${answer.status}`);
  return answer.json();
};

const memory = `secure-cache-log:${base}`;
const read = () => {
  try {
    return JSON.parse(localStorage.getItem(memory));
  } catch {
    return null;
  }
};

/** Compares with what this browser saw before, and remembers the newer one. */
async function follow(seen, found) {
  if (!seen) {
    step("unchecked", "This is the first visit: the log's key and checkpoint are remembered from now on.");
  } else {
    const before = await openCheckpoint(seen.note, await parseVkey(seen.vkey));
    if (before.size > found.checkpoint.size) {
      throw new Unproved(`the log had ${before.size} entries on ${seen.date}, and has fewer now: it was put back`);
    }
    const query = `consistency?old=${before.size}&new=${found.checkpoint.size}`;
    const path = before.size === found.checkpoint.size ? [] : (await ask(query)).hashes.map(fromBase64);
    await checkConsistency(before.size, before.root, found.checkpoint.size, found.checkpoint.root, path);
    step("ok", `Since ${seen.date}, when it had ${before.size} entries, the log was only appended to.`);
  }
  const date = new Date().toISOString().slice(0, 16).replace("T", " ");
  localStorage.setItem(memory, JSON.stringify({ vkey: found.vkey, note: found.checkpoint.note, date }));
}

async function run() {
  if (!globalThis.crypto?.subtle) {
    summary.textContent = "Not verified: a browser only verifies on pages that came over https.";
    return;
  }
  const kinds = [];
  const told = (kind, sentence) => kinds.push(step(kind, sentence));
  try {
    const seen = read();
    const evidence = await ask(`entries/${encodeURIComponent(index)}/evidence`);
    // The index is the page's own, as text: what the evidence calls itself proves nothing.
    const found = await verifyEntry({ ...evidence, index }, seen?.vkey ?? null, told);
    if (found) {
      if (toHex(await leafHash(found.leaf)) !== leaf) throw new Unproved("this page shows another entry than the log has");
      told("ok", "This page is about the very leaf that was verified.");
      await follow(seen, found);
    }
  } catch (error) {
    told("failed", error instanceof Unproved ? `${error.message}.` : `It could not be verified: ${error.name}.`);
  }
  const failed = kinds.includes("failed");
  place.dataset.result = failed ? "failed" : "ok";
  summary.textContent = failed
    ? "NOT verified. Keep the proof and the leaf, and ask who changed what."
    : "Verified: the entry is in the log, and is signed.";
}

await run();
