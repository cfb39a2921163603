// Drawings to like, and what is recommended for it. Talks to /api of this site alone; likes and
// settings stay in the browser.

const SAID = { meta: "tags, artist, popularity" };
const VARIETY = 0.35; // of 0, the best alone, to 1
const LITTLE = 0.3; // a cosine
const STEP = 12;
const RETRIES = 3;

const $ = (id) => document.getElementById(id);
const likes = new Map(); // illust_id -> drawing, the latest last; {} until the site has told it
let site = null;
let settings = { balance: 0, variety: false, single: false };
let shown = { kind: "wall", query: "", page: 0, pages: 0 };
let length = STEP;
let byKeyboard = false;

// Building blocks ------------------------------------------------------------------------------

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

async function ask(address, body, signal) {
  const how = body && {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  for (let tried = 1; ; tried++) {
    const answer = await fetch(address, { ...how, signal });
    const busy = answer.status === 429 || answer.status === 503;
    if (busy && tried < RETRIES) {
      await new Promise((done) => setTimeout(done, 1000 * (answer.headers.get("retry-after") || 1)));
      signal?.throwIfAborted();
      continue;
    }
    const told = await answer.json();
    if (answer.ok) return told;
    throw Object.assign(new Error(told.error), told);
  }
}

function say(text) {
  $("said").textContent = text;
}

// A signal that ends what was asked for with the one before.
function newest() {
  let running = null;
  return () => {
    running?.abort();
    running = new AbortController();
    return running.signal;
  };
}
const ofWall = newest();
const ofPicks = newest();

let hiding;
function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => ($("trouble").hidden = true), 8000);
}

function failed(error) {
  if (error.name === "AbortError") return;
  trouble(error instanceof TypeError ? "The gallery does not answer. Is it still running?" : error.message);
}

const count = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;
const titled = (drawing) => drawing.title || `untitled, ${drawing.illust_id}`;
const described = (drawing) => titled(drawing) + (drawing.artist ? `, by ${drawing.artist}` : "");

function picture(drawing, alt) {
  if (!drawing.picture) return element("span", { class: "no-picture" }, alt || "no picture");
  return element("img", { src: drawing.picture, alt, loading: "lazy", decoding: "async" });
}

// Drawings -------------------------------------------------------------------------------------

function likeButton(drawing) {
  const tags = drawing.tags.slice(0, 3).join(", ");
  return element(
    "button",
    {
      type: "button",
      class: "like",
      title: described(drawing),
      "data-id": drawing.illust_id,
      "aria-pressed": likes.has(drawing.illust_id),
      click: () => toggle(drawing),
    },
    picture(drawing, `Like ${described(drawing)}${tags ? `; ${tags}` : ""}`),
  );
}

function card(drawing, ...more) {
  const act = (by, label) => {
    const click = () => showSimilar(drawing, by).catch(failed);
    return element("button", { type: "button", class: `m-${by}`, "aria-label": label, click }, by);
  };
  return element(
    "li",
    { class: "card" },
    likeButton(drawing),
    element(
      "div",
      { class: "name" },
      element("span", { class: "title" }, titled(drawing)),
      "probability" in drawing
        ? element("span", { class: "score" }, `${Math.round(100 * drawing.probability)} %`)
        : null,
      element("span", { class: "artist" }, drawing.artist && `by ${drawing.artist}`),
    ),
    ...more,
    element(
      "div",
      { class: "acts", role: "group", "aria-label": `More like ${titled(drawing)}` },
      "more",
      act("style", `More in the style of ${titled(drawing)}`),
      act("content", `More of the content of ${titled(drawing)}`),
    ),
  );
}

async function showWall(query, page = 0) {
  const parameters = new URLSearchParams({ page, q: query });
  const found = await ask(`/api/drawings?${parameters}`, null, ofWall());
  if (page === 0) {
    shown = { kind: "wall", query, page, pages: found.pages };
    $("wall").replaceChildren();
    const all = `All ${count(found.total, "drawing")}`;
    heading(query ? `${count(found.total, "drawing")} with “${query}”` : all, Boolean(query));
  }
  shown.page = page;
  $("wall").append(...found.drawings.map((drawing) => card(drawing)));
  $("wall-empty").hidden = found.total > 0;
  $("more").hidden = page + 1 >= found.pages;
}

let loading = false;
async function more() {
  if (loading || $("more").hidden) return;
  loading = true;
  const before = $("wall").children.length;
  const pressed = document.activeElement === $("more");
  try {
    await showWall(shown.query, shown.page + 1);
    if (pressed) $("wall").children[before]?.querySelector("button").focus();
    say(`${count($("wall").children.length - before, "more drawing")}.`);
  } catch (error) {
    failed(error);
  }
  loading = false;
}

async function showSimilar(drawing, by) {
  const of = by === "style" ? "In the style of" : "With the content of";
  const found = await ask(`/api/similar/${encodeURIComponent(drawing.illust_id)}?by=${by}&k=60`, null, ofWall());
  shown = { kind: "similar", query: "", page: 0, pages: 1 };
  $("query").value = "";
  $("wall").replaceChildren(card(found.drawing), ...found.nearest.map((each) => card(each)));
  $("wall-empty").hidden = found.nearest.length > 0;
  $("more").hidden = true;
  heading(`${of} “${titled(drawing)}”`, true);
  part("wall");
  scrollTo(0, Math.min(scrollY, $("wall-part").getBoundingClientRect().top + scrollY));
  $("wall-heading").focus({ preventScroll: true });
}

function heading(text, back) {
  $("wall-heading").textContent = text;
  $("back").hidden = !back;
  say(text);
}

// What is liked --------------------------------------------------------------------------------

function toggle(drawing) {
  const id = drawing.illust_id;
  if (likes.has(id)) likes.delete(id);
  else if (likes.size >= site.limits.likes) {
    trouble(`${site.limits.likes} drawings are the most that can be liked. Unlike one first.`);
    return;
  } else likes.set(id, drawing);
  length = STEP;
  changed();
}

function changed() {
  keep();
  for (const button of document.querySelectorAll(".like"))
    button.setAttribute("aria-pressed", likes.has(button.dataset.id));
  showLiked();
  recommend();
}

function showLiked() {
  const at = [...$("liked").querySelectorAll("button")].indexOf(document.activeElement);
  const known = [...likes.values()].filter((drawing) => drawing.illust_id).reverse();
  $("liked").replaceChildren(
    ...known.map((drawing) => {
      const said = `Unlike ${described(drawing)}`;
      const unlike = { type: "button", title: said, "aria-label": said, click: () => toggle(drawing) };
      return element("li", {}, element("button", unlike, picture(drawing, "")));
    }),
  );
  // Who unlikes one after the other with the keyboard stays in the list.
  const left = [...$("liked").querySelectorAll("button")];
  if (at >= 0) (left[Math.min(at, left.length - 1)] ?? $("picks-heading")).focus();
  $("clear").hidden = likes.size === 0;
  $("count").hidden = likes.size === 0;
  $("count").textContent = likes.size;
  $("many").textContent = likes.size ? `${likes.size} liked` : "";
}

// The key has the catalogue, so that ids of another run's drawings do not come up.
const key = () => `gallery ${site.catalogue}`;

function keep() {
  try {
    localStorage.setItem(key(), JSON.stringify({ likes: [...likes.keys()], settings }));
  } catch {
    // A browser that keeps nothing: likes last until the page is left.
  }
}

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(key())) ?? {};
    for (const id of kept.likes ?? []) likes.set(id, {});
    settings = { ...settings, ...kept.settings };
  } catch {
    // Nothing, or not ours.
  }
  $("balance").value = settings.balance;
  $("variety").checked = settings.variety;
  $("single").checked = settings.single;
}

// Recommendations ------------------------------------------------------------------------------

async function recommend() {
  const signal = ofPicks();
  $("hint").hidden = likes.size > 0;
  $("why").hidden = likes.size === 0 || site.modalities.length === 0;
  if (likes.size === 0) {
    $("picks").replaceChildren();
    $("more-picks").hidden = true;
    say("Nothing is liked.");
    return;
  }
  $("picks").setAttribute("aria-busy", "true");
  try {
    const told = await ask("/api/recommendations", wanted(), signal);
    for (const drawing of told.liked) likes.set(drawing.illust_id, drawing);
    showLiked();
    showPicks(told);
  } catch (error) {
    if (error.unknown) {
      error.unknown.forEach((id) => likes.delete(id));
      trouble(`${count(error.unknown.length, "liked drawing")} left the catalogue.`);
      return changed();
    }
    failed(error);
  }
  if (!signal.aborted) $("picks").removeAttribute("aria-busy");
}

const wanted = () => ({
  likes: [...likes.keys()],
  balance: settings.balance,
  diversity: settings.variety ? VARIETY : 0,
  per_artist: settings.single ? 1 : 0,
  k: Math.min(length, site.limits.k),
});

function showPicks(told) {
  const cards = [...$("picks").children];
  const at = cards.findIndex((each) => each.contains(document.activeElement));
  $("picks").replaceChildren(...told.recommended.map((pick) => card(pick, bar(pick), because(pick))));
  // Whoever likes a recommendation with the keyboard is taken to the one that is there instead.
  if (at >= 0)
    ($("picks").children[at]?.querySelector("button") ?? $("picks-heading")).focus({ preventScroll: true });
  $("more-picks").hidden = length >= site.limits.k || told.recommended.length < length;
  const first = told.recommended[0];
  say(
    `${count(told.recommended.length, "recommendation")} for ${count(likes.size, "liked drawing")}.` +
      (first ? ` First: ${described(first)}.` : ""),
  );
}

function bar(pick) {
  const weights = Object.entries(pick.weights);
  if (weights.length === 0) return null;
  const said = weights.map(([name, weight]) => `${SAID[name] ?? name} ${Math.round(100 * weight)} %`);
  const made = element("div", { class: "bar", role: "img", "aria-label": `Weights: ${said.join("; ")}`, title: said.join("\n") });
  weights.forEach(([name, weight]) => {
    const segment = element("span", { class: `m-${name}` }, weight > 0.14 ? `${Math.round(100 * weight)}` : "");
    segment.style.flexGrow = weight;
    made.append(segment);
  });
  return made;
}

function because(pick) {
  const why = pick.because;
  if (!why) return element("p", { class: "because" });
  const much = why.cosine < LITTLE ? "a little like" : "like";
  const words = element("span", {}, `${much} ${titled(why)}, in `, element("b", { class: `m-${why.by}` }, why.by));
  return element("p", { class: "because", title: `cosine ${why.cosine.toFixed(2)}` }, picture(why, ""), words);
}

// The page -------------------------------------------------------------------------------------

const scrolled = { wall: 0, picks: 0 };
function part(name) {
  const before = document.body.dataset.shown;
  if (before === name) return;
  scrolled[before] = scrollY;
  document.body.dataset.shown = name;
  for (const tab of document.querySelectorAll(".tabs button"))
    tab.setAttribute("aria-current", tab.dataset.part === name);
  if (matchMedia("(max-width: 60rem)").matches) scrollTo({ top: scrolled[name], behavior: "instant" });
}

function after(milliseconds, act) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  };
}

function balanceSaid() {
  const share = Math.round(100 * Math.abs(settings.balance));
  const towards = settings.balance < 0 ? "content" : "style";
  $("balance").setAttribute("aria-valuetext", share ? `${share} % towards ${towards}` : "as the ranker has it");
}

function listen() {
  addEventListener("keydown", () => (byKeyboard = true));
  addEventListener("pointerdown", () => (byKeyboard = false));
  addEventListener("wheel", () => (byKeyboard = false), { passive: true });
  const search = () => showWall($("query").value.trim()).catch(failed);
  $("query").addEventListener("input", after(250, search));
  $("back").addEventListener("click", () => {
    $("query").value = "";
    showWall("").catch(failed);
    $("wall-heading").focus({ preventScroll: true });
  });
  $("more").addEventListener("click", more);
  // Pages come by themselves, but not to somebody who steps through them towards what is below.
  const near = (entries) => entries.some((entry) => entry.isIntersecting) && !byKeyboard && more();
  new IntersectionObserver(near, { rootMargin: "500px" }).observe($("more"));
  const soon = after(120, recommend);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("controls").addEventListener("input", () => {
    settings = {
      balance: Number($("balance").value),
      variety: $("variety").checked,
      single: $("single").checked,
    };
    balanceSaid();
    keep();
    soon();
  });
  $("clear").addEventListener("click", () => {
    likes.clear();
    changed();
    $("picks-heading").focus({ preventScroll: true });
  });
  $("more-picks").addEventListener("click", () => {
    length = Math.min(length + STEP, site.limits.k);
    recommend();
  });
  for (const tab of document.querySelectorAll(".tabs button"))
    tab.addEventListener("click", () => part(tab.dataset.part));
  for (const link of document.querySelectorAll(".skip"))
    link.addEventListener("click", () => part(link.hash === "#picks-heading" ? "picks" : "wall"));
}

async function start() {
  document.body.dataset.shown = "wall";
  site = await ask("/api/site");
  document.title = `Gallery of ${site.name}`;
  $("simulated").hidden = !site.simulated;
  $("legend").replaceChildren(
    ...site.modalities.map((name) =>
      element("li", {}, element("span", { class: `key m-${name}` }), SAID[name] ?? name),
    ),
    element("li", {}, "%: probability of a bookmark"),
  );
  restore();
  balanceSaid();
  listen();
  await showWall("");
  if (likes.size) changed();
}

start().catch(failed);
