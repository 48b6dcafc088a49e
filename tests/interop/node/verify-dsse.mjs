// Reads {"bundle": <sigstore bundle v0.3>, "key": <SPKI PEM>, "keyid": <hint>} from stdin and lets
// sigstore-js verify it. Prints {"ok":true} or {"ok":false,"code":...} with its own error code.
import { readFileSync } from "node:fs";
import { createPublicKey } from "node:crypto";
import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, Verifier } from "@sigstore/verify";

const { bundle, key, keyid } = JSON.parse(readFileSync(0, "utf8"));
const trust = {
  certificateAuthorities: [],
  timestampAuthorities: [],
  tlogs: [],
  ctlogs: [],
  publicKey(hint) {
    if (hint !== keyid) {
      throw new Error(`unknown key ${hint}`);
    }
    return { publicKey: createPublicKey(key), validFor: () => true };
  },
};
const verifier = new Verifier(trust, {
  tlogThreshold: 0,
  ctlogThreshold: 0,
  timestampThreshold: 0,
});
try {
  verifier.verify(toSignedEntity(bundleFromJSON(bundle)));
  console.log(JSON.stringify({ ok: true }));
} catch (error) {
  console.log(JSON.stringify({ ok: false, code: error.code ?? error.name, why: error.message }));
}
