// Pictures, sounds and videos of records, and the title of a record.

import { keyed, mediaUrl } from "./api.js";
import { button, el, icon, shorten } from "./dom.js";

const NAMES = { text: "note", image: "picture", audio: "sound", video: "video" };
const ORDER = ["video", "image", "audio", "text"];

// With a key, pictures are fetched when they come near the viewport.
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      mediaUrl(target.dataset.path).then(
        (url) => {
          target.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
          target.src = url;
        },
        () => target.dispatchEvent(new Event("error")),
      );
    }
  },
  { rootMargin: "400px" },
);

export function titleOf(record) {
  const { title, name } = record.metadata ?? {};
  const named = (typeof title === "string" && title.trim()) || wordsOf(record) || name;
  const kind = NAMES[coverOf(record)?.modality] ?? "memory";
  return named ? shorten(String(named), 90) : `A ${kind}, ${record.id.slice(0, 6)}`;
}

// The part shown for the record: video before image before audio.
export function coverOf(record) {
  const parts = record.parts ?? [];
  return ORDER.map((kind) => parts.find((part) => part.modality === kind)).find(Boolean) ?? null;
}

export const wordsOf = (record) => record.parts?.find((part) => part.modality === "text" && part.text)?.text ?? "";

// Each file once: a long video has one part per window.
export function mediaOf(record) {
  const seen = new Set();
  return (record.parts ?? []).filter((part) => {
    const same = part.modality === "text" ? `text ${part.text}` : part.digest;
    // the sound of a video plays with the video
    const ofFilm = part.modality === "audio" && record.parts.some((one) => one.modality === "video" && one.digest === part.digest);
    if (seen.has(same) || ofFilm) return false;
    return seen.add(same);
  });
}

const sized = (preview, size) => `${preview}${preview.includes("?") ? "&" : "?"}size=${size}`;

export function picture(part, name, { size = 512, eager = false } = {}) {
  const image = el("img", { alt: name, loading: eager ? "eager" : "lazy", decoding: "async", class: "picture" });
  image.addEventListener("error", () => image.replaceWith(absent("The picture cannot be shown: its file is gone.")));
  image.addEventListener("load", () => image.classList.add("there"));
  show(image, part.preview ? sized(part.preview, size) : part.media);
  return image;
}

// Loads the picture of a part, so that it is there when it is shown.
export function preload(part, size) {
  const path = part.preview && part.modality !== "text" ? sized(part.preview, size) : null;
  if (!path) return;
  if (keyed()) mediaUrl(path).then((url) => URL.revokeObjectURL(url), () => {});
  else new Image().src = path;
}

export function player(part, name) {
  const film = part.modality === "video";
  if (!part.media) return absent(`The ${film ? "video" : "sound"} cannot be played: its file is gone.`);
  const node = el(film ? "video" : "audio", { controls: true, preload: film ? "none" : "metadata", "aria-label": name });
  if (film) {
    node.playsInline = true;
    if (part.preview && !keyed()) node.poster = sized(part.preview, 512);
  }
  const moment = part.start ? `#t=${part.start.toFixed(2)}` : "";
  if (!keyed()) {
    node.src = part.media + moment;
    return node;
  }
  const load = button(part.modality, `Load the ${film ? "video" : "sound"}`, async () => {
    load.disabled = true;
    try {
      node.src = (await mediaUrl(part.media)) + moment;
      box.replaceWith(node);
      node.focus();
    } catch (error) {
      load.replaceWith(absent(error.message));
    }
  });
  const box = el("div", {}, film && part.preview ? picture(part, name) : null, load);
  return box;
}

export const absent = (text) => el("p", { class: "absent" }, icon("alert"), el("span", {}, text));

function show(image, path) {
  if (!path) queueMicrotask(() => image.dispatchEvent(new Event("error")));
  else if (keyed()) {
    image.dataset.path = path;
    near.observe(image);
  } else image.src = path;
}
