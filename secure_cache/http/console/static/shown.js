// Whether the page shows what was verified: every fact that it marks is compared with the statement.
import { refuse, toBase64 } from "./bytes.js";
import { canonical } from "./envelope.js";

/**
 * Whether `shown` is `value` as this console writes it: a character that is not seen, or turns the
 * line around, may stand as \\uXXXX. Which those are is not asked, since Unicode grows.
 */
export function says(shown, value) {
  let at = 0;
  for (const character of value) {
    const written = `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`;
    const found = [character, written].find((form) => shown.startsWith(form, at));
    if (found === undefined) return false;
    at += found.length;
  }
  return at === shown.length;
}

/** RFC 6901, in own members only. @returns undefined where there is nothing */
const member = (value, pointer) =>
  pointer
    .split("/")
    .slice(1)
    .map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce((found, name) => (found !== null && typeof found === "object" && Object.hasOwn(found, name) ? found[name] : undefined), value);

const about = (statement) => statement.predicate.event ?? statement.predicate;

/** Facts that stand in a statement in parts. */
const PUT_TOGETHER = {
  event: ({ statement }) => (statement.predicate.event ? statement.predicate.event.type : "stored"),
  keyid: ({ keyid }) => keyid,
  namespace: ({ statement }) => {
    const { project, namespace } = about(statement);
    return `${project}:${namespace?.kind}/${namespace?.id}`;
  },
};

const textOf = (value) => (typeof value === "string" || value === undefined ? value : canonical(value));

/**
 * Compares all that `page` marks: `data-says` with a JSON pointer or a name of ours, and the whole
 * statement. What the checkpoint says is put in from the verified one.
 * @param {ParentNode} page
 * @param found what `verifyEntry` gave
 * @returns {number} how many facts
 * @throws {Unproved} names the first that is another
 */
export function checkShown(page, found) {
  const marked = [...page.querySelectorAll("[data-says]")];
  for (const place of marked) {
    const name = place.dataset.says;
    const value = name.startsWith("/") ? member(found.statement, name) : PUT_TOGETHER[name](found);
    const shown = (place.querySelector(".whole") ?? place).textContent;
    if (value === undefined || !says(shown, textOf(value))) {
      refuse(`this page shows another "${name}" than the statement that was verified`);
    }
  }
  for (const place of page.querySelectorAll("[data-statement]")) {
    if (canonical(JSON.parse(place.textContent)) !== canonical(found.statement)) {
      refuse("this page shows another statement than the one that was verified");
    }
  }
  const { size, root } = found.checkpoint;
  const verified = { size: String(size), root: toBase64(root) };
  for (const place of page.querySelectorAll("[data-verified]")) place.textContent = verified[place.dataset.verified];
  return marked.length;
}
