// Runs one script in a fresh browser and prints, as JSON, what it gave back and what happened.
//   node visit.mjs CHROMIUM PROFILE_FOLDER SCRIPT_FILE < INPUT_JSON
// The script's default export is an async function of {page, context, input, axe}; axe() resolves
// to axe-core's violations on the page as it stands.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [executablePath, profile, script] = process.argv.slice(2);
const input = JSON.parse(readFileSync(0, "utf8"));
const { default: visit } = await import(pathToFileURL(script));
const axeSource = readFileSync(
  createRequire(import.meta.url).resolve("axe-core/axe.min.js"),
  "utf8",
);

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  acceptDownloads: true,
  // The certificates of tests are their own.
  ignoreHTTPSErrors: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Whatever a page asks for, only loopback answers.
    "--host-resolver-rules=MAP cache.acme.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
  ],
});
// A busy machine is slow; a page that never comes is what the caller's own limit is for.
context.setDefaultTimeout(90_000);
const page = context.pages()[0] ?? (await context.newPage());
const seen = { console: [], errors: [], requests: [] };
context.on("console", (message) => {
  seen.console.push({ type: message.type(), text: message.text() });
});
context.on("weberror", (error) => seen.errors.push(String(error.error())));
context.on("request", (request) => {
  seen.requests.push({ method: request.method(), url: request.url() });
});

// Evaluated over the debugger, so a strict Content-Security-Policy does not stop it.
async function axe(options = {}) {
  await page.evaluate(axeSource);
  const found = await page.evaluate((o) => globalThis.axe.run(document, o), options);
  return found.violations.map(({ id, impact, help, nodes }) => ({
    id,
    impact,
    help,
    targets: nodes.map((node) => node.target.join(" ")),
  }));
}

try {
  const value = (await visit({ page, context, input, axe })) ?? null;
  process.stdout.write(JSON.stringify({ value, ...seen }));
} catch (error) {
  process.stderr.write(`${error.stack ?? error}\n${JSON.stringify(seen, null, 2)}\n`);
  process.exitCode = 1;
} finally {
  await context.close();
}
