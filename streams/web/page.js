// The live page: takes the stream of events, keeps what it says, draws the parts that changed.

import { driftAbove, errors, errorsOf, timeline } from "./charts.js";
import { STATES, causeText, count, date, element, facts, figure, minute, put, signed, stateWord, table } from "./elements.js";

const WINDOWS_MAX = 1500, TABLE_MAX = 400;
const SILENCE_MAX_MS = 30000, AGAIN_MS = 4000;

const known = { windows: new Map(), feed: null, model: null, steps: [], warnings: null, letters: null,
  reports: [] };
let span = 52;
let chosen = null; // the day of the window that was chosen; null: the newest
let shown = []; // the windows in the chart
let told = ""; // the newest state that was told

// -- the stream

let source = null, heardAt = 0;

function connect() {
  source?.close();
  heardAt = Date.now();
  source = new EventSource("events");
  source.addEventListener("state", (message) => {
    known.windows.clear();
    take(message);
  });
  source.addEventListener("change", take);
  source.addEventListener("beat", heard);
  source.addEventListener("error", () => {
    connection("lost", "connection lost, trying again");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN_MS);
  });
}

function heard() {
  heardAt = Date.now();
  connection("live", "live");
}

setInterval(() => {
  if (source.readyState !== EventSource.CLOSED && Date.now() - heardAt > SILENCE_MAX_MS) {
    connection("lost", "nothing heard, trying again");
    connect();
  }
}, 5000);

function connection(kind, words) {
  const place = document.getElementById("connection");
  if (place.textContent !== words) place.textContent = words;
  place.className = kind;
}

function take(message) {
  const news = JSON.parse(message.data);
  heard();
  for (const row of news.windows) known.windows.set(row.end, row);
  for (const day of [...known.windows.keys()].sort().slice(0, -WINDOWS_MAX)) known.windows.delete(day);
  for (const name of ["feed", "model", "steps", "warnings", "letters", "reports"]) {
    if (name in news) known[name] = news[name];
  }
  const changed = (...names) => names.some((name) => name in news);
  if (changed("feed")) drawFeed();
  if (news.windows.length || changed("model", "reports", "warnings")) drawWindows();
  if (news.windows.length || changed("model")) drawModel();
  if (news.windows.length || changed("model", "steps")) drawActions();
  if (changed("warnings")) drawWarnings();
  if (changed("letters")) drawLetters();
  if (changed("reports")) drawReports();
}

// -- the feed

function drawFeed() {
  const { feed } = known;
  const counters = feed.counters;
  const notice = document.getElementById("waiting");
  notice.hidden = !feed.waiting_for;
  notice.textContent = feed.waiting_for ? `waiting: ${feed.waiting_for}` : "";
  const marks = Object.entries(feed.watermarks);
  const times = marks.map(([, time]) => time).filter(Boolean).sort();
  const rate = feed.rate === null ? "measuring" : `${count(feed.rate)} lines/s`;
  put("tile-feed",
    element("div", { class: "big" }, feed.records ? rate : "no lines yet"),
    element("div", {}, feed.unread === null ? "no checkpoint yet" : `${count(feed.unread)} not in a checkpoint yet`),
    element("div", { class: "quiet-text" }, `complete up to ${minute(times[0])}`));
  const fates = counters && [
    ["on time", counters.on_time], ["late", counters.late], ["duplicate", counters.duplicate],
    ["control", counters.control], ["dead", counters.dead],
  ].map(([name, value]) => `${count(value)} ${name}`).join(" + ");
  put("feed-told", facts([
    ["in the topic", `${count(feed.records)} records`],
    ["accounted for", counters && `${count(counters.read)} read = ${fates}`],
    ["watermarks", element("ul", {}, marks.map(([partition, time]) =>
      element("li", {}, `partition ${partition}: ${minute(time)}`)))],
    ["no checkpoint", feed.unchecked.length ? `of partition ${feed.unchecked.join(", ")}: windows wait for it` : ""],
    ["unreadable", feed.unreadable ? `${count(feed.unreadable)} messages in the topics` : ""],
  ]));
}

// -- the windows

const rowsByTime = () => [...known.windows.values()].sort((a, b) => (a.end < b.end ? -1 : 1));

function drawWindows() {
  const rows = rowsByTime();
  const newest = rows.at(-1);
  drawState(newest);
  shown = rows.slice(-span);
  if (!newest) {
    put("timeline-told", "no window evaluated yet: the first closes after a week of event time");
    return;
  }
  const side = driftAbove(rows) ? "above its threshold (dashed)" : "below its threshold (dashed), here upwards";
  put("timeline-told", `${count(rows.length)} windows, each named by its end. The line is the acting detector's statistic;`
    + ` drift lies ${side}. A triangle: something was asked for.`);
  put("legend", STATES.map((state) =>
    element("li", {}, element("span", { class: `swatch ${state}`, "aria-hidden": "true" }), state)));
  drawChart();
  drawTable();
}

function drawState(newest) {
  const open = known.warnings?.open;
  const warned = open
    ? element("div", {}, element("a", { href: "#warnings" }, open === 1 ? "an early warning" : `${count(open)} early warnings`),
      " since the newest window")
    : null;
  if (!newest) {
    put("tile-state", element("div", { class: "big" }, "no window yet"), warned);
    return;
  }
  const { onset } = known.model ?? {};
  const cause = newest.verdict?.causes?.[0];
  put("tile-state",
    element("div", { class: "big" }, stateWord(newest.state)),
    element("div", {}, "week to ", date(newest.end), newest.partial ? " (cut short)" : "",
      ...(onset ? [", drift since ", date(onset)] : [])),
    cause ? element("div", { class: "quiet-text" }, causeText(cause)) : null, warned);
  const words = `${newest.end}: ${newest.state}`;
  if (told && told !== newest.state) put("announce", words);
  told = newest.state;
}

function drawChart() {
  const place = document.getElementById("timeline-chart");
  let at = chosen === null ? shown.length - 1 : shown.findIndex((row) => row.end === chosen);
  if (at < 0) [at, chosen] = [shown.length - 1, null];
  const row = shown[at];
  const width = Math.max(place.clientWidth, 240);
  place.replaceChildren(timeline(shown, width, at));
  place.setAttribute("aria-valuemax", shown.length - 1);
  place.setAttribute("aria-valuenow", at);
  place.setAttribute("aria-valuetext", row ? `week to ${row.end}, ${row.state}` : "");
  if (row) drawWindow(row);
}

function drawWindow(row) {
  const verdict = row.verdict;
  const others = Object.entries(row.others).map(([name, drift]) => `${name}: ${yesOrNo(drift)}`).join(", ");
  const heading = element("h3", {}, `Week to ${row.end}`, row.partial ? " (cut short: the input ended)" : "", ": ",
    stateWord(row.state));
  const newest = chosen === null ? null
    : element("button", { id: "to-newest", type: "button" }, "Go to the newest");
  newest?.addEventListener("click", () => choose(null));
  put("window", element("div", { class: "heading" }, heading, newest ?? ""), facts([
    ["drift", verdict ? yesOrNo(verdict.drift) + (verdict.reason ? `: ${verdict.reason}` : "") : "not judged yet"],
    ["statistic", verdict && verdict.statistic !== null
      ? `${figure(verdict.statistic)}, threshold ${figure(verdict.threshold)}` : ""],
    ["causes", verdict?.causes.length
      ? element("ul", {}, verdict.causes.map((cause) => element("li", {}, causeText(cause)))) : "", true],
    ["explained by", row.expected_events.join(", "), true],
    ["change dated", verdict?.onset ?? ""],
    ["buyers", `${count(row.customers)}, ${count(row.lines_week)} lines in the week`],
    ["other detectors", others],
    ["Evidently", evidently(row)],
    ["action", row.action === "none" && !row.action_reason ? "" : `${row.action}${row.action_reason ? `: ${row.action_reason}` : ""}`,
      true],
    ["model", row.model_version ?? "none serves"],
  ]));
}

const yesOrNo = (drift) => (drift === null ? "cannot tell" : drift ? "yes" : "no");

function evidently(row) {
  const found = row.comparison;
  if (found === null) return "not compared yet";
  if (found.status !== "compared") return found.status.replaceAll("_", " ");
  const words = `${yesOrNo(found.drift)}, ${found.drifted} of ${found.columns} columns drifted`;
  return known.reports.includes(row.end) ? element("span", {}, `${words}: `, reportLink(row.end, "report")) : words;
}

function reportLink(day, words) {
  // Names come from the server's own directory; they are days.
  const where = `reports/${encodeURIComponent(day)}.html`;
  return element("a", { href: where, target: "_blank", rel: "noopener", id: `${words}-${day}` }, words);
}

function drawTable() {
  const details = document.getElementById("table");
  if (!details.open) return;
  const heads = [["week to"], ["state"], ["drift"], ["statistic", true], ["threshold", true], ["strongest cause"], ["Evidently"],
    ["action"], ["buyers", true]];
  const rows = shown.slice(-TABLE_MAX).reverse().map((row) => [
    row.end, stateWord(row.state), row.verdict ? yesOrNo(row.verdict.drift) : "–", figure(row.verdict?.statistic),
    figure(row.verdict?.threshold), row.verdict?.causes[0] ? causeText(row.verdict.causes[0]) : "",
    row.comparison?.status === "compared" ? yesOrNo(row.comparison.drift) : "–",
    row.action === "none" ? "" : row.action, count(row.customers),
  ]);
  put(details.querySelector(".scroll"), table("The windows, newest first", heads, rows));
}

function choose(day) {
  chosen = day;
  drawChart();
}

function move(steps) {
  const at = chosen === null ? shown.length - 1 : shown.findIndex((row) => row.end === chosen);
  const to = Math.min(Math.max(at + steps, 0), shown.length - 1);
  choose(to === shown.length - 1 ? null : shown[to]?.end ?? null);
}

// -- the model

function drawModel() {
  const { model } = known;
  const rows = rowsByTime();
  const newest = rows.at(-1);
  if (!model) return;
  const horizons = Object.keys(newest?.performance ?? {}).sort((a, b) => a - b);
  const entries = horizons.length ? errorsOf(rows, horizons[0]).slice(-span) : [];
  put("tile-model",
    element("div", { class: "big" }, model.version ?? "none serves"),
    element("div", {}, model.version ? `since ${model.since}` : "the first is trained on the reference weeks"),
    element("div", { class: "quiet-text" }, errorWords(entries)));
  const { rival } = model;
  put("model-told", facts([
    ["champion", model.version && `${model.version}${model.estimator ? `, ${model.estimator}` : ""}, since ${model.since}`],
    ["rival", rival ? `${rival.version} (${rival.purpose}), beside it since ${rival.since}` : "none"],
    ["rival's error", rival && Object.entries(rival.performance).map(([days, found]) =>
      `${days} days: nMAE ${figure(found.rival_nmae)}, champion ${figure(found.champion_nmae)}`).join("; ")],
    ["asked for", model.pending.map((asked) =>
      `at ${asked.day} (${asked.about}), takes effect ${asked.effective_from}: no decision yet`).join("; ")],
    ["refused", model.refused],
  ]));
  drawErrors(newest, horizons, entries);
}

function errorWords(entries) {
  const last = entries.findLast((entry) => entry.measured !== null);
  const next = entries.findLast((entry) => entry.estimated !== null);
  const words = [];
  if (last) words.push(`error measured ${figure(last.measured)}`);
  if (next) words.push(`expected now ${figure(next.estimated)}`);
  return words.length ? words.join(", ") : "no labels yet";
}

function drawErrors(newest, horizons, entries) {
  const place = document.getElementById("error-chart");
  if (!entries.length) {
    put("error-told", "no labels have matured yet");
    put(place);
    put("error-table");
    return;
  }
  put("error-told", `in currency, over ${horizons[0]} days from each window's end: measured once its labels are known`
    + " (line), and what was expected of it before (dotted).");
  place.replaceChildren(errors(entries, Math.max(place.clientWidth, 240)));
  put("error-table", table("Performance by horizon", [["over"], ["labels"], ["nMAE", true], ["MAE", true], ["R2", true],
    ["Gini", true], ["bias", true], ["MAE expected now", true]],
  horizons.map((days) => {
    const found = newest.performance[days];
    return [`${days}\u00a0days`, found.status === "matured" ? `of ${found.of}` : "none yet: the card's", figure(found.nmae),
      figure(found.mae), figure(found.r2), figure(found.gini), found.bias === null ? "–" : signed(found.bias),
      figure(newest.estimates[days])];
  })));
}

// -- actions

function drawActions() {
  put("steps", known.steps.length ? known.steps.map(stepItem) : element("li", {}, "nothing was asked for or decided yet"));
  const last = known.steps.find((step) => step.kind !== "drift") ?? known.steps[0];
  put("tile-action", ...(last ? [
    element("div", { class: "big" }, last.kind === "decision" ? last.outcome : last.kind === "request" ? last.action : last.state),
    element("div", {}, last.day), element("div", { class: "quiet-text" }, last.reason)]
    : [element("div", { class: "big" }, "none yet")]));
}

function stepItem(step) {
  const kind = ["decision", "request"].includes(step.kind) ? step.kind : "";
  return element("li", { class: kind }, element("time", { datetime: step.day }, step.day), ...stepWords(step));
}

function stepWords(step) {
  if (step.kind === "decision") {
    const who = step.by_hand ? ", by hand" : "";
    return [element("strong", {}, step.outcome, step.version ? ` ${step.version}` : ""), who,
      element("div", {}, step.reason), step.gate ? element("div", { class: "quiet-text" }, gateWords(step.gate)) : ""];
  }
  const asks = step.kind === "request"
    ? [element("strong", {}, `asks for ${step.action}`), " from ", date(step.effective_from),
      step.decided ? "" : ", no decision yet"]
    : [element("strong", {}, `${step.about}: `, stateWord(step.state)), step.action === "none" ? "" : `, ${step.action}`];
  return [...asks, step.reason ? element("div", {}, step.reason) : "", step.causes.length
    ? element("div", { class: "quiet-text" }, step.causes.slice(0, 2).map(causeText).join("; ")) : ""];
}

function gateWords(gate) {
  const words = [];
  if (gate.probability_better !== null) {
    words.push(`P(better) ${figure(gate.probability_better)}, asked for ${figure(gate.probability_required)}`);
  }
  if (gate.challenger_nmae !== null) {
    words.push(`nMAE ${figure(gate.challenger_nmae)} against ${figure(gate.champion_nmae)} of ${gate.rival ?? "the champion"}`);
  }
  if (gate.customers !== null) words.push(`${count(gate.customers)} customers held out`);
  return words.join("; ");
}

// -- early warnings

function drawWarnings() {
  const { warnings } = known;
  const change = (found) => `${found.signal} ${signed(100 * found.change)}% since ${found.onset}`;
  put("warnings-told", warnings.newest.length
    ? table("Early warnings, newest first", [["day"], ["what changed"], ["its window"]], warnings.newest.map((warning) => [
      date(warning.day), `${warning.findings.map(change).join("; ")} (partition ${warning.partition})`,
      warning.state ? stateWord(warning.state) : "still open"]))
    : element("p", {}, "none"));
}

// -- dead letters and reports

function drawLetters() {
  const { letters } = known;
  if (!letters.read) {
    put("letters-told", element("p", {}, "none"));
    return;
  }
  const rows = letters.kinds.map((kind) => [kind.kind, count(kind.count), kind.latest]);
  put("letters-told", element("p", { class: "quiet-text" }, `${count(letters.read)} of the newest, by reason`),
    table("Dead letters by reason", [["reason"], ["lines", true], ["the latest"]], rows));
}

function drawReports() {
  put("reports-told", known.reports.length
    ? element("ul", { class: "days" }, known.reports.toReversed().map((day) => element("li", {}, reportLink(day, day))))
    : element("p", {}, "none on this machine"));
}

// -- the person in front

document.getElementById("timeline-chart").addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 };
  if (!(event.key in steps) || !shown.length) return;
  event.preventDefault();
  move(steps[event.key]);
});

document.getElementById("timeline-chart").addEventListener("click", (event) => {
  if (!shown.length) return;
  const box = event.currentTarget.getBoundingClientRect();
  const share = (event.clientX - box.left - 46) / (box.width - 58);
  const at = Math.min(Math.max(Math.floor(share * shown.length), 0), shown.length - 1);
  choose(at === shown.length - 1 ? null : shown[at].end);
});

for (const input of document.querySelectorAll("input[name=span]")) {
  input.addEventListener("change", () => {
    span = Number(input.value);
    drawWindows();
    drawModel();
  });
}
document.getElementById("table").addEventListener("toggle", drawTable);

let width = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth === width) return;
  width = document.body.clientWidth;
  if (known.windows.size) drawWindows();
  drawModel();
}).observe(document.body);

// The token has done its work: it must not stay in the address, where it is seen and copied.
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname);

connect();
