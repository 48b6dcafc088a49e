// Verifies one entry of the log, with nothing but WebCrypto. No part of what it is given is believed:
// C2SP tlog-proof, signed notes and tlog-cosignature, RFC 6962, DSSE. Runs in browsers and in Node.
import { Unproved, fromBase64, refuse } from "./bytes.js";
import { keyOf, openEnvelope, parseEnvelope, parseRing } from "./envelope.js";
import { checkInclusion, leafHash } from "./merkle.js";
import { cosignatures, openCheckpoint, parseLogKey, parseProof } from "./note.js";

/**
 * Everything about one entry, step by step.
 * @param evidence {index, leaf, proof, vkeys, keys, witnesses}: as the server gives it
 * @param pinned the vkey that this browser has seen first, or null
 * @param step called with ("ok" | "failed" | "unchecked", sentence)
 * @returns {Promise<{checkpoint, statement, vkey, leaf: Uint8Array, keyid: string} | null>} null
 *   unless all of it verified
 */
export async function verifyEntry(evidence, pinned, step) {
  try {
    const vkey = pinned ?? evidence.vkeys[0];
    if (!evidence.vkeys.includes(vkey)) refuse(`the server has another log key than before: ${vkey}`);
    const proof = parseProof(evidence.proof);
    const checkpoint = await openCheckpoint(proof.note, await parseLogKey(vkey));
    step("ok", `The log's key ${vkey} has signed the checkpoint of ${checkpoint.size} entries.`);
    const leaf = fromBase64(evidence.leaf);
    if (proof.index !== BigInt(evidence.index)) refuse("the proof is for another entry");
    await checkInclusion(proof.index, checkpoint.size, await leafHash(leaf), proof.hashes, checkpoint.root);
    step("ok", `The entry is number ${proof.index} of this log: ${proof.hashes.length} hashes lead to its root.`);
    const envelope = parseEnvelope(leaf);
    const key = await keyOf(parseRing(evidence.keys), envelope.keyid);
    const statement = await openEnvelope(envelope, key);
    step("ok", `The entry key ${key.keyid} has signed the statement, in its time.`);
    sayWitnesses(await cosignatures(checkpoint, [...new Set(evidence.witnesses)]), step);
    return { checkpoint, statement, vkey, leaf, keyid: key.keyid };
  } catch (error) {
    step("failed", sentenceOf(error));
    return null;
  }
}

/** For people: what did not verify, or that it could not be read at all. */
export const sentenceOf = (error) => {
  const why = error instanceof Unproved ? error.message : `it cannot be read (${error.name})`;
  return `${why[0].toUpperCase()}${why.slice(1)}.`;
};

function sayWitnesses(found, step) {
  const of = (state) => found.filter((witness) => witness.state === state);
  for (const { name, time } of of("cosigned")) {
    step("ok", `The witness ${name} has cosigned the checkpoint, at ${new Date(time * 1000).toISOString()}.`);
  }
  for (const { name } of of("wrong")) step("failed", `The cosignature of the witness ${name} does not verify.`);
  for (const { name } of of("unsupported")) step("unchecked", `This browser cannot check signatures like the witness ${name}'s.`);
  for (const { name } of of("unknown")) step("unchecked", `There is a signature in the name of ${name}, whose key this server does not give.`);
  if (!of("cosigned").length) step("unchecked", "No witness whose key is known here has cosigned it.");
}
