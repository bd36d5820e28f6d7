// Elements and words. Whatever comes from a topic becomes a text node or an attribute's value, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const STATES = ["warming", "reference", "quiet", "suspected", "confirmed", "resolved"];

export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// Put nodes into a container; the focus stays on what has the same id.
export function put(id, ...children) {
  const container = typeof id === "string" ? document.getElementById(id) : id;
  const focused = container.contains(document.activeElement) ? document.activeElement.id : "";
  container.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  if (focused) document.getElementById(focused)?.focus();
}

export function count(value) {
  return value === null || value === undefined ? "–" : new Intl.NumberFormat("en").format(Math.round(value));
}

export function figure(value, digits = 3) {
  if (typeof value !== "number") return "–";
  if (value !== 0 && Math.abs(value) < 1e-4) return value.toExponential(0);
  return new Intl.NumberFormat("en", { maximumSignificantDigits: digits }).format(value);
}

export function signed(value) {
  return (value > 0 ? "+" : "") + figure(value).replace("-", "−");
}

// A day that no line breaks.
export function date(day) {
  return element("span", { class: "day" }, day);
}

export function minute(time) {
  return time ? time.slice(0, 16).replace("T", " ") + " UTC" : "not known yet";
}

// A class only for words that we know: any other state of a topic's message is shown as it is called.
export function stateWord(state) {
  return element("span", { class: STATES.includes(state) ? `state ${state}` : "state" }, state);
}

export function causeText(cause) {
  const where = cause.segment ? `, ${cause.segment}` : "";
  const weeks = cause.scale_weeks === 1 ? "1 week" : `${cause.scale_weeks} weeks`;
  return `${cause.feature} ${signed(cause.effect)} ${cause.unit} (${weeks}${where})`;
}

export function facts(pairs) {
  const list = element("dl", { class: "facts" });
  for (const [term, told, whole] of pairs) {
    if (told === null || told === undefined || told === "") continue;
    list.append(element("dt", {}, term), element("dd", whole ? { class: "whole" } : {}, told));
  }
  return list;
}

export function table(caption, heads, rows) {
  const cell = (kind, text, number) => element(kind, number ? { class: "number" } : {}, text);
  return element(
    "table",
    {},
    element("caption", { class: "hidden" }, caption),
    element("thead", {}, element("tr", {}, heads.map(([text, number]) => {
      const head = cell("th", text, number);
      head.setAttribute("scope", "col");
      return head;
    }))),
    element("tbody", {}, rows.map((row) =>
      element("tr", {}, row.map((text, i) => cell("td", text, heads[i][1]))))),
  );
}
