// The address of a search: what is asked, filtered and open, as the query string of the page.
//
// `q` and `like` are cues, in order; `part`, `weight` and `trust` belong to the cue before them. Files have no address.

const ID = /^[0-9a-f]{32}$/;
const KINDS = ["text", "image", "audio", "video"];
const CUES = 16;

export const SORTS = ["best", "newest", "oldest", "added"];
export const SIZES = [12, 24, 48, 96];
export const CLAMPED = 10;

export const nothing = () => ({ cues: [], has: [], where: [], k: 24, sort: "best", from: "", open: "" });

// What an address says. What it says wrongly is as if it were not said.
export function parse(search) {
  const asked = nothing();
  let cue = null;
  const add = (one) => {
    cue = { weight: 1, trust: CLAMPED, ...one };
    if (asked.cues.length < CUES) asked.cues.push(cue);
  };
  for (const [name, value] of new URLSearchParams(search)) {
    const number = value.trim() === "" ? NaN : Number(value);
    if (name === "q" && value.trim()) add({ modality: "text", text: value.trim() });
    else if (name === "like" && ID.test(value)) add({ modality: "record", id: value });
    else if (name === "part" && cue?.id && Number.isInteger(number) && number >= 0) cue.part = number;
    else if (name === "weight" && cue && Math.abs(number) <= 100) cue.weight = number;
    else if (name === "trust" && cue && Number.isInteger(number) && number >= 0 && number <= CLAMPED) cue.trust = number;
    else if (name === "has" && KINDS.includes(value) && !asked.has.includes(value)) asked.has.push(value);
    else if (name === "where" && value.trim() && !asked.where.includes(value.trim())) asked.where.push(value.trim());
    else if (name === "k" && SIZES.includes(number)) asked.k = number;
    else if (name === "sort" && SORTS.includes(value)) asked.sort = value;
    else if (name === "from" && /^\d{4}-\d{2}$/.test(value)) asked.from = value;
    else if (name === "open" && ID.test(value)) asked.open = value;
  }
  return asked;
}

// The query string of a search; of nothing it is empty.
export function format({ cues, has, where, k, sort, from, open }) {
  const usual = nothing();
  const said = new URLSearchParams();
  for (const cue of cues) {
    if (cue.modality === "text") said.append("q", cue.text);
    else if (cue.modality === "record") said.append("like", cue.id);
    else continue;
    if (cue.part !== undefined) said.append("part", cue.part);
    if (cue.weight !== 1) said.append("weight", cue.weight);
    if (cue.trust !== CLAMPED) said.append("trust", cue.trust);
  }
  for (const kind of has) said.append("has", kind);
  for (const condition of where) said.append("where", condition);
  if (k !== usual.k) said.append("k", k);
  if (sort !== usual.sort) said.append("sort", sort);
  if (from) said.append("from", from);
  if (open) said.append("open", open);
  const text = said.toString();
  return text ? `?${text}` : "";
}

// Cues with files, by the key that their entry of the history has: Back brings them again until a reload.
const kept = new Map();

const same = (one, other) =>
  one?.length === other.length &&
  other.every((cue, at) => ["modality", "text", "id", "part", "file", "weight", "trust"].every((key) => one[at][key] === cue[key]));

function keep(cues) {
  if (!cues.some((cue) => cue.file)) return "";
  const before = history.state?.key;
  if (before && same(kept.get(before), cues)) return before;
  const key = `${performance.timeOrigin}-${kept.size}`;
  kept.set(key, cues.map((cue) => ({ ...cue })));
  return key;
}

// Goes to the address of `asked`: a new entry of the history, or with `replace` the present one.
export function go(asked, { replace = false, viewer = false } = {}) {
  const search = format(asked);
  const key = keep(asked.cues);
  if (!replace && search === location.search && key === (history.state?.key ?? "")) return;
  const names = asked.cues.filter((cue) => cue.file).map((cue) => cue.label);
  history[replace ? "replaceState" : "pushState"]({ viewer, names, key }, "", `${location.pathname}${search}`);
}

// What the present entry of the history asks, and the names of the files that a reload has lost.
export function here() {
  const asked = parse(location.search);
  const { key = "", names = [] } = history.state ?? {};
  const whole = kept.get(key);
  if (whole) asked.cues = whole.map((cue) => ({ ...cue }));
  return { asked, lost: whole ? [] : names };
}

// Two entries of the history with one such key show the same list.
export const listKey = () => `${format({ ...parse(location.search), open: "" })} ${history.state?.key ?? ""}`;
