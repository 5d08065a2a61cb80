// The page of stylegate review. One picture, one key; the next pictures are decoded before they are asked for.
// An answer is put into the browser's storage first, then sent, and forgotten there once the server says it is stored.
// Text from outside (prompts, file names, traits) is only ever set as textContent.

const AHEAD = 6;            // pictures decoded ahead
const BATCH = 100;          // answers in one request
const LONGEST_GAP_S = 20;   // a longer pause does not count as pace
const SMALL = 200;          // pixels: pictures below this are shown as pixels in a grid
const LATE_MS = 1300;       // presses that still belong to a stream after its last picture
const READ_MS = 15000;      // that a problem stands there
const RETRY_MS = 1500;      // until a server that is away is asked again
const AWAY = "The server cannot be reached. Go on: your answers wait in this browser. If the server was ended, run stylegate review again.";
const byId = id => document.getElementById(id);
const make = (tag, text, kind) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};
const uuid = () => crypto.randomUUID ? crypto.randomUUID() : "10000000-1000-4000-8000-100000000000".replace(/[018]/g,
  c => (c ^ (crypto.getRandomValues(new Uint8Array(1))[0] & (15 >> (c / 4)))).toString(16));  // plain http elsewhere

const review = { who: "", told: null, queue: [], mode: "one", changes: 0, zoomed: false, started: false };
const done = [];            // what Z takes back: {answers: [...]} or {skipped: sha256}
const gaps = [];            // seconds between the last answers
let lastAnswer = 0, shownAt = 0;

// ---- answers that are not saved yet -------------------------------------------------------------------------------

const outbox = new Map();   // id -> answer, in the order given
let sending = false, online = true, pause = 500, number = 0;
const prefix = () => `stylegate.review.${review.told.review}.`;
const stored = new Map();   // id -> its name in localStorage

function keep(answer) {
  outbox.set(answer.id, answer);
  const name = `${prefix()}${Date.now()}.${String(number++).padStart(6, "0")}.${answer.id}`;
  try {
    localStorage.setItem(name, JSON.stringify(answer));
    stored.set(answer.id, name);
  } catch { /* no room, or not allowed: the answer stays in this page alone, and is counted as not saved */ }
}

function forget(id) {
  outbox.delete(id);
  try {
    if (stored.has(id)) localStorage.removeItem(stored.get(id));
  } catch { /* as above */ }
  stored.delete(id);
}

function findUnsaved() {  // of a page that was closed, or of a server that was away
  try {
    for (const name of Object.keys(localStorage).filter(name => name.startsWith(prefix())).sort()) {
      const answer = JSON.parse(localStorage.getItem(name));
      if (!answer || outbox.has(answer.id)) continue;
      outbox.set(answer.id, answer);
      stored.set(answer.id, name);
    }
  } catch { /* as above */ }
}

async function send() {
  if (sending) return;
  sending = true;
  try {
    while (outbox.size) {
      const answers = [...outbox.values()].slice(0, BATCH);
      const body = JSON.stringify({ review: review.told.review, since: review.changes, answers });
      const reply = await fetch("/api/save", { method: "POST", body, headers: { "content-type": "application/json" }, signal: AbortSignal.timeout(15000) });
      const said = await reply.json().catch(() => ({}));
      if (!reply.ok) throw new Error(said.problem || `the server answers ${reply.status}`, { cause: "server" });
      online = true;
      pause = 500;
      said.saved.forEach(forget);
      for (const { id, why } of said.refused) {
        problem(`An answer was not taken: ${why}.`);
        forget(id);
      }
      hear(said);
      showSaved();
    }
  } catch (error) {
    online = false;
    problem(error.cause === "server" ? `Not saved: ${error.message}` : AWAY, "unsaved");
    setTimeout(send, pause);
    pause = Math.min(2 * pause, 5000);
  } finally {
    sending = false;
    showSaved();
  }
}

function hear({ changes, changed, ended }) {  // what this and other pages saved meanwhile
  review.changes = changes;
  const endsNow = ended && !review.ended;
  review.ended = ended;
  if (endsNow) {
    review.queue = [];
    pending = null;
    return showEnd();
  }
  const mine = new Set(done.flatMap(step => (step.answers || []).map(answer => answer.sha256)));
  const busy = new Set(review.mode === "grid" ? shownCells : [review.queue[0]]);
  for (const [sha256, decided] of Object.entries(changed)) {
    const place = review.queue.indexOf(sha256);
    if (decided && place >= 0 && !busy.has(sha256)) review.queue.splice(place, 1);
    if (!decided && place < 0 && !mine.has(sha256) && !busy.has(sha256)) review.queue.push(sha256);
  }
  showProgress();
}

function showSaved() {
  const count = outbox.size, box = byId("saved");
  box.className = `saved${count ? " waiting" : ""}${count && !online ? " offline" : ""}`;
  byId("saved-text").textContent = count ? `${count} not saved yet` : "Saved";
  if (!count && online && byId("problem").dataset.until === "unsaved") byId("problem").hidden = true;
}

let problemTimer = 0;
function problem(text, until = "read") {  // until: "read" (for a while), "unsaved" (until all is saved), "ever"
  const box = byId("problem");
  if (box.dataset.until === "ever") return;
  if (box.textContent !== text || box.hidden) box.textContent = text;
  box.dataset.until = until;
  box.hidden = false;
  clearTimeout(problemTimer);
  if (until === "read") problemTimer = setTimeout(() => { box.hidden = true; }, READ_MS);
}

// ---- pictures -----------------------------------------------------------------------------------------------------

const pictures = new Map();  // sha256 -> {image, state}: decoded, or on the way

function fetched(sha256) {
  let found = pictures.get(sha256);
  if (!found) {
    const image = new Image();
    image.decoding = "sync";
    const load = () => {
      image.src = `/picture/${sha256}`;
      return image.decode().then(() => "ready");
    };
    found = { image, state: "waiting" };
    // Tried twice before it is called gone: the server may have come back between the first time and the question.
    found.ready = load().catch(async () => await isReachable() ? load().catch(() => "gone") : "away")
      .then(state => { found.state = state; });
    pictures.set(sha256, found);
  }
  return found;
}

const isReachable = () => fetch("/icon.svg", { cache: "no-store" }).then(() => true, () => false);

let back = null;
const whenBack = () => back ||= (async () => {
  do await wait(RETRY_MS); while (!(await isReachable()));
  back = null;
})();

function ahead(list, from = 0, count = AHEAD) {  // the ones to come; what is far away is let go
  const wanted = list.slice(from, from + count + 1);
  wanted.forEach(fetched);
  const near = new Set([...wanted, ...list.slice(0, 2), ...done.slice(-2).flatMap(step => (step.answers || []).map(a => a.sha256))]);
  for (const sha256 of pictures.keys()) if (!near.has(sha256)) pictures.delete(sha256);
}

function fit(image, place) {  // the largest size that fits; pixel art by whole numbers of the screen's pixels
  const dots = devicePixelRatio || 1, room = 2 * 36;
  const width = place.clientWidth - room, height = place.clientHeight - room;
  const scale = Math.min(width / image.naturalWidth, height / image.naturalHeight) * dots;
  const whole = review.zoomed && place.id === "stage" ? 1 : scale >= 1 ? Math.floor(scale) : scale;
  image.classList.toggle("pixels", whole > 1);
  image.style.width = `${image.naturalWidth * whole / dots}px`;
  image.style.height = `${image.naturalHeight * whole / dots}px`;
}

function put(place, sha256, description) {
  const found = fetched(sha256);
  if (found.state === "gone" || found.state === "away") pictures.delete(sha256);  // tried again the next time
  if (found.state === "away") {
    place.replaceChildren(make("p", "The server cannot be reached. This picture is shown as soon as it is back.", "gone"));
    whenBack().then(() => { if (place.dataset.now === sha256 && place.dataset.state === "away") put(place, sha256, description); });
  } else if (found.state === "gone") {
    place.replaceChildren(make("p", "This picture cannot be shown: its file is gone or has changed since the gate. Skip it, and run the gate again.", "gone"));
  } else if (found.state === "ready") {
    found.image.alt = description;
    fit(found.image, place);
    place.replaceChildren(found.image);
  } else {
    place.replaceChildren(make("span", undefined, "waiting"));
    found.ready.then(() => { if (place.isConnected && place.dataset.now === sha256) put(place, sha256, description); });
  }
  place.dataset.now = sha256;
  place.dataset.state = found.state;
}

const about = sha256 => review.told.pictures[sha256] || { file: "", prompt: "", traits: {}, opinions: [] };
const opinion = ({ verdict, why }) => ({ accept: "accepted", reject: "rejected", unsure: "to be retouched" }[verdict] || verdict) + (why ? `: ${why}` : "");
function inWords(sha256) {
  const { prompt, traits } = about(sha256);
  const planned = Object.entries(traits).map(([name, value]) => `${name} ${value}`).join(", ");
  return planned ? `planned: ${planned}` : prompt ? `prompt: ${prompt}` : "";
}

// ---- one picture at a time ----------------------------------------------------------------------------------------

function showOne(announce = true) {
  review.zoomed = false;
  setPressed("zoom", false);
  byId("stage").classList.remove("zoomed");
  const sha256 = review.queue[0];
  if (!sha256) return showEnd();
  const { file, prompt, traits, opinions } = about(sha256), words = [inWords(sha256), ...opinions.map(opinion)].filter(Boolean).join("; ");
  put(byId("stage"), sha256, `The picture to decide about${words ? `; ${words}` : ""}`);
  const list = byId("traits");
  list.replaceChildren(...Object.entries(traits).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  byId("opinions").replaceChildren(...opinions.map(said => make("li", opinion(said), { accept: "accept", reject: "reject" }[said.verdict] || "review")));
  byId("said").hidden = !opinions.length;
  byId("planned").hidden = !prompt && !list.children.length;
  byId("prompt").textContent = prompt;
  byId("file").textContent = file;
  for (const button of document.querySelectorAll("#one [data-do=trait]")) button.disabled = !list.children.length;
  showProgress();
  shownAt = performance.now();
  if (announce) say(`Picture ${review.told.total - review.queue.length + 1} of ${review.told.total}. ${words}`);
  requestAnimationFrame(() => setTimeout(() => ahead(review.queue)));
}

let pending = null;  // the answer of an audit or a calibration that is to be confirmed before the next picture is shown

const isShown = sha256 => pictures.get(sha256)?.state === "ready";  // nobody decides about what was not seen

const WORDS = { accept: "Accept", reject: "Reject", unsure: "Unsure, which counts as a reject" };
function decide(verdict, more = {}) {
  if (review.queue.length && !isShown(review.queue[0])) return tell("Not shown yet: look at the picture first, or skip it");
  if (review.settled && review.queue.length && pending?.verdict !== verdict) {
    pending = { verdict, more };
    return tell(`${WORDS[verdict]}? The same key again, or Enter, keeps it`, verdict, true);
  }
  if (pending) ({ more } = pending);
  pending = null;
  const sha256 = review.queue.shift();
  if (!sha256) return;
  const seconds = Math.min(86400, Math.round(performance.now() - shownAt) / 1000);
  answer([{ sha256, verdict, why: "", seconds, ...more }], { accept: "Accepted", reject: "Rejected", unsure: "Kept for retouching" }[verdict], verdict);
  showOne();
}

function answer(list, shown, verdict) {  // keep and send the labels of one step
  const answers = list.map(said => ({ id: uuid(), kind: "label", who: review.who, asked: about(said.sha256).asked, ...said }));
  const now = performance.now();
  if (lastAnswer) gaps.push(Math.min((now - lastAnswer) / 1000, LONGEST_GAP_S) / list.length);
  if (gaps.length > 30) gaps.shift();
  lastAnswer = now;
  done.push({ answers });
  answers.forEach(keep);
  const why = list.length === 1 && list[0].why ? `: ${list[0].why}` : "";
  tell(shown + why, verdict);
  showStrip();
  showSaved();
  send();
}

function skip() {
  if (review.queue.length < 2) return tell("Nothing else is left");
  const sha256 = review.queue.shift();
  review.queue.push(sha256);
  done.push({ skipped: sha256 });
  tell("Skipped: it comes again at the end");
  showOne();
}

function undo() {
  if (review.settled) {
    tell(pending ? "Not kept" : "Labels of an audit or a calibration stay: look again before you confirm");
    pending = null;
    return;
  }
  const step = done.pop();
  if (!step) return tell("There is nothing to undo");
  const back = step.skipped ? [step.skipped] : step.answers.map(answer => answer.sha256);
  review.queue = [...back, ...review.queue.filter(sha256 => !back.includes(sha256))];
  for (const { id, sha256, asked } of step.answers || []) {
    keep({ id: uuid(), kind: "undo", who: review.who, sha256, asked: about(sha256).asked, undoes: id });
  }
  lastAnswer = 0;
  tell(step.skipped ? "Not skipped" : back.length > 1 ? `Undone: ${back.length} pictures` : "Undone");
  showStrip();
  showSaved();
  send();
  if (review.mode === "end") setMode("one"); else if (review.mode === "grid") showGrid(); else showOne();
}

function chooseReason() {
  if (!review.queue.length) return;
  choose("Why is it a reject?", review.told.reasons, "R again gives no reason, Esc goes back.",
    n => decide("reject", { reason: review.told.reasons[n], why: review.told.reasons[n] }), { r: () => decide("reject") });
}

function chooseTrait() {
  const sha256 = review.queue[0], traits = Object.entries(about(sha256).traits);
  if (!traits.length) return tell("No traits are planned for this picture");
  choose("Which trait is wrong?", traits.map(([name, value]) => `${name}: ${value}`), "Esc goes back.", n => {
    const [name, planned] = traits[n];
    const others = (review.told.traits[name] || []).filter(value => value !== planned);
    const values = [...others.slice(0, 30), "nothing of it", "something else"];
    choose(`${name}: ${planned} is planned. What does it show?`, values, "Esc goes back.",
      m => decide("reject", {
        reason: "wrong trait", shown_traits: { [name]: values[m] }, why: `wrong trait: ${name} shows ${values[m]}, not ${planned}`,
      }));
  });
}

function choose(title, options, foot, take, more = {}) {  // a small menu, by number or pointer
  const dialog = byId("choose");
  byId("choose-title").textContent = title;
  byId("choose-foot").textContent = foot;
  byId("choices").replaceChildren(...options.map((text, n) => {
    const button = make("button");
    button.type = "button";
    if (n < 9) button.append(make("kbd", String(n + 1)));
    button.append(make("span", text));
    button.addEventListener("click", () => pick(() => take(n)));
    return button;
  }));
  const pick = act => {
    dialog.onkeydown = null;
    dialog.close();
    act();
  };
  dialog.onkeydown = event => {
    const n = Number(event.key) - 1;
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.key >= "1" && event.key <= "9" && n < options.length) { event.preventDefault(); pick(() => take(n)); }
    else if (more[event.key.toLowerCase()]) { event.preventDefault(); pick(more[event.key.toLowerCase()]); }
    event.stopPropagation();
  };
  if (!dialog.open) dialog.showModal();
}

function zoom() {
  const stage = byId("stage"), image = stage.querySelector("img");
  if (!image) return;
  review.zoomed = !review.zoomed;
  stage.classList.toggle("zoomed", review.zoomed);
  fit(image, stage);
  stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
  setPressed("zoom", review.zoomed);
  tell(review.zoomed ? "One pixel of the picture on one of the screen" : "The whole picture");
}

// ---- many at once -------------------------------------------------------------------------------------------------

let shownCells = [], marks = new Map();  // marks: sha256 -> the reason of a reject, "" for none

function gridSize() {
  const width = innerWidth - 40, height = Math.max(200, innerHeight - 230);
  const columns = Math.max(2, Math.min(8, Math.round(width / 215))), side = width / columns;
  return { columns, rows: Math.max(1, Math.min(5, Math.round(height / side))) };
}

function showGrid() {
  if (!review.queue.length) return showEnd();
  const { columns, rows } = gridSize(), cells = byId("cells");
  shownCells = review.queue.slice(0, columns * rows);
  marks = new Map([...marks].filter(([sha256]) => shownCells.includes(sha256) || review.queue.includes(sha256)));
  cells.style.setProperty("--columns", columns);
  cells.style.setProperty("--rows", rows);
  cells.replaceChildren(...shownCells.map((sha256, n) => {
    if (["gone", "away"].includes(pictures.get(sha256)?.state)) pictures.delete(sha256);  // tried again
    const button = make("button"), found = fetched(sha256), { image } = found;
    button.type = "button";
    button.dataset.sha256 = sha256;
    image.alt = "";
    image.removeAttribute("style");
    found.ready.then(() => {
      image.classList.toggle("pixels", image.naturalWidth < SMALL);
      if (found.state !== "ready") image.alt = "cannot be shown now";
      if (found.state === "away") whenBack().then(() => { if (button.isConnected && review.mode === "grid") showGrid(); });
      showSweep();
    });
    button.append(image);
    button.addEventListener("click", () => mark(sha256));
    cellState(button, n);
    return button;
  }));
  showSweep();
  ahead(review.queue, 0, 2 * shownCells.length);
  showProgress();
  cells.firstElementChild.focus({ preventScroll: true });
  say(`${shownCells.length} pictures. The arrow keys move. Mark the rejects with R, or 1 to 9 for a reason; then A accepts the rest.`);
}

function cellState(button, n) {
  const { sha256 } = button.dataset, marked = marks.has(sha256), why = marks.get(sha256);
  button.setAttribute("aria-pressed", marked);
  button.setAttribute("aria-label", `picture ${n + 1} of ${shownCells.length}${marked ? `, reject${why ? `: ${why}` : ""}` : ""}; ${inWords(sha256)}`);
  button.querySelector("span")?.remove();
  if (marked) button.append(make("span", why || "reject"));
}

function mark(sha256, why) {
  if (marks.has(sha256) && why === undefined) marks.delete(sha256); else marks.set(sha256, why || "");
  const n = shownCells.indexOf(sha256);
  cellState(byId("cells").children[n], n);
  showSweep();
}

function showSweep() {
  const shown = shownCells.filter(isShown), bad = shown.filter(sha256 => marks.has(sha256)).length, good = shown.length - bad;
  byId("sweep").textContent = bad ? `Accept ${good}, reject ${bad}` : `Accept all ${good}`;
}

function sweep() {
  if (!shownCells.length) return;
  const list = shownCells.filter(isShown).map(sha256 => {
    const why = marks.get(sha256) || "";
    return marks.has(sha256) ? { sha256, verdict: "reject", why, reason: why } : { sha256, verdict: "accept", why };
  });
  if (!list.length) return tell("No picture is shown: look at them one by one");
  const gone = new Set(list.map(({ sha256 }) => sha256));
  review.queue = review.queue.filter(sha256 => !gone.has(sha256) && !shownCells.includes(sha256))
    .concat(shownCells.filter(sha256 => !gone.has(sha256)));  // what was not shown comes at the end
  shownCells = [];
  const bad = list.filter(({ verdict }) => verdict === "reject").length;
  answer(list, `${list.length - bad} accepted${bad ? `, ${bad} rejected` : ""}`, bad ? "reject" : "accept");
  for (const sha256 of gone) marks.delete(sha256);
  showGrid();
}

function moveInGrid(key) {
  const cells = [...byId("cells").children], columns = gridSize().columns;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const now = Math.max(0, cells.indexOf(document.activeElement));
  cells[Math.min(cells.length - 1, Math.max(0, now + step))]?.focus();
}

const focusedCell = () => document.activeElement?.closest?.("#cells button")?.dataset.sha256;

// ---- in quick succession ------------------------------------------------------------------------------------------

const stream = { running: false, order: [], passes: [], presses: [], result: null };

function showStream() {
  byId("flow").replaceChildren();
  Object.assign(stream, { running: false, order: [], passes: [], result: null });
  byId("stream-title").textContent = "Let them pass";
  byId("stream-text").textContent = "Pictures pass by themselves. Press the space bar, or tap, the moment that something is wrong; nothing else. Known rejects are hidden among them. Esc stops. Afterwards you decide, the suspects first: nothing is decided here.";
  byId("stream-start").lastChild.textContent = "Start";
  byId("stream-decide").hidden = true;
  byId("stream-card").hidden = false;
  byId("stream-start").focus();
}

const wait = ms => new Promise(resolve => setTimeout(resolve, ms));
const frame = () => new Promise(requestAnimationFrame);

async function runStream() {
  if (stream.running) return;
  stream.running = true;
  byId("stream-card").hidden = true;
  const flow = byId("flow"), each = Number(byId("speed").value);
  try {
    if (!stream.order.length) {
      const reply = await fetch(`/api/stream?who=${encodeURIComponent(review.who)}`);
      if (!reply.ok) throw new Error((await reply.json()).problem);
      stream.order = (await reply.json()).order;
    }
  } catch (error) {
    problem(`The stream cannot begin: ${error.message}`);
    return showStream();
  }
  if (!stream.order.length) return showEnd();
  const order = stream.passes.length ? shuffled(stream.order) : stream.order;
  ahead(order);
  for (const count of [3, 2, 1]) {
    flow.replaceChildren(make("span", String(count), "number"));
    await wait(550);
  }
  await fetched(order[0]).ready;
  stream.presses = [];
  const shown = [];
  let due = await frame();
  for (const [n, sha256] of order.entries()) {
    if (!stream.running) return;
    const found = fetched(sha256);
    if (found.state === "waiting") await found.ready;
    let now = await frame();
    while (now < due - 4) now = await frame();
    if (found.state === "ready") {
      put(flow, sha256, "a passing picture");
      shown.push({ sha256, at_ms: now });
    }
    due = Math.max(due, now - each) + each;
    setTimeout(() => ahead(order, n + 1));
  }
  await wait(each);
  flow.replaceChildren();
  await wait(LATE_MS - Math.min(each, 1000));
  stream.running = false;
  if (!shown.length) return showStream();
  stream.passes.push({ shown, presses_ms: stream.presses });
  await decode();
}

async function decode() {
  try {
    const reply = await fetch("/api/stream", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ who: review.who, passes: stream.passes.slice(-10) }) });
    const said = await reply.json();
    if (!reply.ok) throw new Error(said.problem);
    stream.result = said;
    const suspects = said.suspects.length;
    byId("stream-title").textContent = suspects ? `${suspects} of ${said.order.length} may be rejects` : "No suspects";
    byId("stream-text").textContent = (said.known ? `You saw ${said.seen} of the ${said.known} known rejects that were hidden among them. ` : "")
      + `You press about ${said.delay_ms} ms after a picture appears. One more pass in another order makes this surer.`;
    byId("stream-start").lastChild.textContent = "One more pass";
    byId("stream-decide").hidden = false;
    byId("stream-card").hidden = false;
    say(byId("stream-title").textContent);
    byId("stream-decide").focus();
  } catch (error) {
    problem(`The presses could not be read: ${error.message}`);
    showStream();
  }
}

function decideStream() {
  if (!stream.result) return;
  const open = new Set(review.queue), first = stream.result.order.filter(sha256 => open.has(sha256)), those = new Set(first);
  review.queue = [...first, ...review.queue.filter(sha256 => !those.has(sha256))];
  marks = new Map(stream.result.suspects.filter(sha256 => open.has(sha256)).map(sha256 => [sha256, ""]));
  setMode("grid");
}

function press(time) {
  if (!stream.running) return;
  stream.presses.push(time);
  byId("flow").classList.add("hit");
  setTimeout(() => byId("flow").classList.remove("hit"), 120);
}

function shuffled(list) {
  const found = [...list];
  for (let n = found.length - 1; n > 0; n--) {
    const m = Math.floor(Math.random() * (n + 1));
    [found[n], found[m]] = [found[m], found[n]];
  }
  return found;
}

// ---- what is around it --------------------------------------------------------------------------------------------

function showProgress() {
  const { total, purpose } = review.told, left = review.queue.length, decided = total - left;
  const count = byId("count"), open = purpose === "audit";  // an audit ends when the promise is proven
  if (open && !left) return;
  count.replaceChildren(make("b", decided.toLocaleString("en")), open ? " labelled" : ` of ${total.toLocaleString("en")}`);
  byId("progress").max = total || 1;
  byId("progress").value = decided;
  byId("progress").setAttribute("aria-valuetext", `${decided} of ${total}`);
  const each = gaps.length >= 3 ? gaps.reduce((a, b) => a + b) / gaps.length : 0;
  byId("pace").textContent = each && !open && left ? `${Math.round(60 / each)} a minute · ${duration(left * each)} left` : "";
  document.title = `${left ? open ? "audit" : `${left} left` : "done"} · ${review.told.title}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(5, 5 * Math.round(seconds / 5))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function showStrip() {
  const last = done.filter(step => step.answers).flatMap(step => step.answers).slice(-6).reverse();
  byId("recent").hidden = !last.length;
  byId("strip").replaceChildren(...last.map(({ sha256, verdict, why }) => {
    const item = make("li"), image = new Image();
    image.src = `/picture/${sha256}`;
    image.decoding = "async";
    image.className = { accept: "accept", reject: "reject", unsure: "review" }[verdict];
    image.alt = `${verdict}${why ? `: ${why}` : ""}`;
    image.title = image.alt;
    item.append(image);
    return item;
  }));
}

function showEnd() {
  setMode("end", true);
  const { told } = review;
  byId("end-title").textContent = { audit: review.ended ? "The labels prove the promise" : "Every picture is labelled", calibrate: "The sample is labelled", rejected: "The sample is labelled" }[told.purpose] || "Every picture is decided";
  byId("end-text").textContent = review.settled ? "No further picture is asked about." : `${told.total.toLocaleString("en")} pictures of ${told.title}. What you kept for retouching stays in review.`;
  byId("next").textContent = told.next;
  showProgress();
  say(byId("end-title").textContent);
}

function selectCommand() {  // where the browser lets no page copy: over plain http from another machine
  getSelection().selectAllChildren(byId("next"));
  tell("Selected: copy it with the keys of your system");
}

let toldTimer = 0;
function tell(text, verdict = "", stays = false) {  // what just happened, shortly
  const box = byId("told");
  box.textContent = text;
  box.className = `on ${{ accept: "accept", reject: "reject", unsure: "review" }[verdict] || ""}`;
  clearTimeout(toldTimer);
  if (!stays) toldTimer = setTimeout(() => box.classList.remove("on"), 1100);
  say(text);
}

let spoken = [];
function say(text) {  // for screen readers; sentences of one step together
  spoken.push(text);
  if (spoken.length === 1) setTimeout(() => { byId("live").textContent = spoken.join(". "); spoken = []; }, 60);
}

function setMode(mode, ended = false) {
  stream.running = false;
  review.mode = mode;
  for (const main of document.querySelectorAll("main.mode")) main.hidden = main.id !== mode;
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  document.body.className = `${mode}-on`;
  board(false);
  if (ended) return byId("end").focus();
  if (mode === "one") { showOne(); byId("stage").focus({ preventScroll: true }); }
  if (mode === "grid") showGrid();
  if (mode === "stream") review.queue.length ? showStream() : showEnd();
}

function setPressed(name, on) {
  for (const button of document.querySelectorAll(`[data-do=${name}]`)) button.setAttribute("aria-pressed", on);
}

function board(on) {
  byId("board").hidden = !on;
  setPressed("board", on);
}

function fillBoard() {
  byId("references").replaceChildren(...review.told.board.map((sha256, n) => {
    const image = new Image();
    image.src = `/picture/${sha256}`;
    image.alt = `reference ${n + 1}`;
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < SMALL));
    return image;
  }));
  for (const button of document.querySelectorAll("[data-do=board]")) button.hidden = !review.told.board.length;
}

// ---- keys and pointers --------------------------------------------------------------------------------------------

const acts = {
  accept: () => review.mode === "grid" ? sweep() : decide("accept"),
  reject: () => review.mode === "grid" ? focusedCell() && mark(focusedCell()) : pending?.verdict === "reject" ? decide("reject") : chooseReason(),
  retouch: () => decide("unsure", review.settled ? {} : { why: "retouch" }),
  trait: chooseTrait,
  skip,
  undo,
  zoom,
  board: () => board(byId("board").hidden),
  help: () => byId("help").showModal(),
  grid: () => setMode(review.mode === "grid" ? "one" : "grid"),
};
const KEYS = {
  one: { a: "accept", r: "reject", e: "retouch", t: "trait", s: "skip", z: "undo", f: "zoom", g: "grid", b: "board", "?": "help" },
  grid: { a: "accept", r: "reject", z: "undo", g: "grid", b: "board", "?": "help" },
  stream: { "?": "help", g: "grid" },
  end: { z: "undo", "?": "help" },
};

function onKey(event) {
  if (!review.started || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const at = document.activeElement, onButton = at?.tagName === "BUTTON" && !at.closest("#cells");
  if (at?.tagName === "INPUT" && at.type !== "range") return;
  if (review.mode === "stream") {
    if (event.key === " " && stream.running) { event.preventDefault(); if (!event.repeat) press(event.timeStamp); return; }
    if (event.key === "Escape" && stream.running) { stream.running = false; showStream(); return; }
    if (event.key.toLowerCase() === "d" && stream.result && !stream.running) return decideStream();
    if (event.key === "Enter" && !stream.running && !onButton) return runStream();
    if (stream.running) return;
  }
  if (event.key === " " && review.mode === "one" && !onButton) { event.preventDefault(); board(true); return; }
  if (event.key === "Escape") { if (pending) undo(); return board(false); }
  if (event.key === "Enter" && pending && !onButton) { event.preventDefault(); return decide(pending.verdict); }
  if (review.mode === "grid" && event.key.startsWith("Arrow")) { event.preventDefault(); return moveInGrid(event.key); }
  if (event.repeat || !byId("shortcuts").checked) return;
  if (review.mode === "grid" && event.key >= "1" && event.key <= "9" && focusedCell()) return mark(focusedCell(), review.told.reasons[event.key - 1]);
  const act = KEYS[review.mode][event.key.toLowerCase()];
  if (review.settled && ["skip", "trait", "grid"].includes(act)) return;
  if (!act || (!byId("board").hidden && !["board", "accept", "undo"].includes(act))) return;
  event.preventDefault();
  acts[act]();
}

addEventListener("keydown", onKey);
addEventListener("keyup", event => { if (event.key === " " && review.mode === "one" && !byId("board").hidden) { event.preventDefault(); board(false); } });
document.addEventListener("click", event => {
  const button = event.target.closest?.("[data-do]");
  if (!button || !review.started || event.detail > 1) return;  // the second click of a double click decides nothing
  if (button.dataset.do === "reject" && review.mode === "grid") return tell("Click on the pictures to mark them");
  acts[button.dataset.do]();
  if (event.detail) button.blur();  // after a pointer the space bar shows the references again
});
for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", event => { if (review.started) { setMode(button.dataset.mode); if (event.detail) button.blur(); } });
byId("stage").addEventListener("click", event => { if (event.target.tagName === "IMG") zoom(); });
byId("board").addEventListener("click", () => board(false));
byId("flow").addEventListener("pointerdown", event => press(event.timeStamp));
byId("stream-start").addEventListener("click", runStream);
byId("stream-decide").addEventListener("click", decideStream);
byId("me").addEventListener("click", () => {  // another person goes on at this screen
  if (outbox.size) return tell("Some answers are not saved yet");
  sessionStorage.removeItem("stylegate.who");
  location.reload();
});
byId("speed").addEventListener("input", () => { byId("speed-text").textContent = `${byId("speed").value} ms`; });
byId("copy").addEventListener("click", () => navigator.clipboard ? navigator.clipboard.writeText(byId("next").textContent).then(() => tell("Copied"), selectCommand) : selectCommand());
addEventListener("resize", () => {
  for (const place of [byId("stage"), byId("flow")]) { const image = place.querySelector("img"); if (image) fit(image, place); }
  if (review.started && review.mode === "grid") showGrid();
});
addEventListener("beforeunload", event => { if (outbox.size) event.preventDefault(); });
addEventListener("online", send);

// ---- the beginning ------------------------------------------------------------------------------------------------

async function open(who) {
  for (let pause = 500; ; pause = Math.min(2 * pause, 5000)) {
    try {
      const reply = await fetch(`/api/review?who=${encodeURIComponent(who)}`);
      const said = await reply.json().catch(() => ({}));
      if (reply.ok) return said;
      return problem(said.problem || `the server answers ${reply.status}`, "ever");
    } catch {
      problem("The server cannot be reached; trying again. If it was ended, run stylegate review again.", "unsaved");
      await new Promise(resolve => setTimeout(resolve, pause));
    }
  }
}

async function begin(who) {
  const told = await open(who);
  if (!told) return;
  byId("problem").hidden = true;
  review.who = who;
  review.told = told;
  review.changes = told.changes;
  findUnsaved();
  const waiting = new Set([...outbox.values()].filter(answer => answer.kind === "label").map(answer => answer.sha256));
  review.queue = told.order.filter(sha256 => !waiting.has(sha256));
  review.ended = told.ended;
  review.settled = told.purpose !== "review";
  document.documentElement.classList.toggle("settled", review.settled);
  if (review.settled) byId("unsure").textContent = "Unsure";
  done.push(...told.history.map(answer => ({ answers: [answer] })));
  byId("title").textContent = told.title;
  byId("me").textContent = who;
  byId("me").hidden = false;
  byId("guideline").textContent = told.guideline || "What you would not export under this brand's name. The policy has no guideline of its own.";
  fillBoard();
  review.started = true;
  showStrip();
  showSaved();
  send();
  setMode("one");
}

const remembered = sessionStorage.getItem("stylegate.who");
if (remembered) begin(remembered);
else {
  try { byId("who").value = localStorage.getItem("stylegate.who") || ""; } catch { /* not allowed */ }
  byId("hello").addEventListener("cancel", event => event.preventDefault());
  byId("hello").addEventListener("close", () => {
    const who = byId("who").value.trim();
    if (!who) return byId("hello").showModal();
    sessionStorage.setItem("stylegate.who", who);
    try { localStorage.setItem("stylegate.who", who); } catch { /* not allowed */ }
    begin(who);
  });
  byId("hello").showModal();
}
