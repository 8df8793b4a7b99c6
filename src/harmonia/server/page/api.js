// The client of the server's API. Every failure becomes an ApiError with the server's message.

const ROOT = "/v1/memory";
const KEY = "harmonia-key";
// Up to this many bytes media are sent inside the JSON, above it as parts of a form.
const INLINE = 1_000_000;

export class ApiError extends Error {
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let key = sessionStorage.getItem(KEY) ?? "";
let askForKey = async () => false;

// Sets the handler of 401: `ask(refused)` resolves to whether the user gave a key.
export function onMissingKey(ask) {
  askForKey = ask;
}

export function setKey(given) {
  key = given.trim();
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

async function call(path, { method = "GET", json, form, signal } = {}) {
  const body = json === undefined ? form : JSON.stringify(json);
  const type = json === undefined ? {} : { "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, { method, body, signal, headers: { ...headers(), ...type } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached. Is it still running?");
  }
  if (answer.ok) return answer;
  const error = failure(answer.status, await answer.text());
  if (error.status === 401 && (await askForKey(key !== ""))) {
    return call(path, { method, json, form, signal });
  }
  throw error;
}

function failure(status, text) {
  try {
    const { message, code } = JSON.parse(text).error;
    if (typeof message !== "string" || !message) throw new TypeError("no message");
    return new ApiError(status, message.replace(/\s+/g, " "), code);
  } catch {
    return new ApiError(status, `The server answered with an error (${status}).`);
  }
}

async function read(path, options) {
  const answer = await call(path, options);
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(answer.status, "The server's answer cannot be read. Is something else at its address?");
  }
}

// The query of what is given: a condition that is not there is not asked.
const query = (given) => new URLSearchParams(Object.entries(given).filter(([, value]) => value !== undefined && value !== ""));

export const records = ({ signal, ...asked }) => read(`${ROOT}/records?${query(asked)}`, { signal });
export const timeline = ({ signal, ...asked }) => read(`${ROOT}/timeline?${query(asked)}`, { signal });
export const record = (id, signal) => read(`${ROOT}/records/${encodeURIComponent(id)}`, { signal });
export const forget = (id) => call(`${ROOT}/records/${encodeURIComponent(id)}`, { method: "DELETE" });
export const report = (signal) => read(`${ROOT}/report`, { signal });

// `cues` as cues.js makes them: { modality: value, name, weight, trust }, files as values of media.
export async function recall(cues, options, signal) {
  return read(`${ROOT}/recall`, { method: "POST", signal, ...(await requestBody(cues, options)) });
}

export async function imagine(cues, options, signal) {
  return read(`${ROOT}/imagine`, { method: "POST", signal, ...(await requestBody(cues, options)) });
}

export async function landscape(cues, signal) {
  const answer = await call(`${ROOT}/landscape`, { method: "POST", signal, ...(await requestBody(cues, {})) });
  return URL.createObjectURL(await answer.blob());
}

async function requestBody(cues, options) {
  const size = cues.reduce((sum, cue) => sum + (cue.file?.size ?? 0), 0);
  if (size <= INLINE) {
    const inlined = await Promise.all(
      cues.map(async ({ file, modality, ...cue }) => (file ? { ...cue, [modality]: await dataUrl(file) } : cue)),
    );
    return { json: { cues: inlined, ...options } };
  }
  const form = new FormData();
  const plain = cues.map(({ file, modality, ...cue }, at) => {
    if (!file) return cue;
    form.append(`file${at}`, file, file.name || "cue");
    return { ...cue, [modality]: `cid:file${at}` };
  });
  form.append("request", JSON.stringify({ cues: plain, ...options }));
  return { form };
}

const dataUrl = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new ApiError(0, "The browser could not read that file."));
    reader.readAsDataURL(file);
  });

// Remembers files or words as one record. `progress` is called with the fraction sent (fetch cannot report it).
export async function remember({ files = [], text = "", metadata = {} }, progress = () => {}) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  if (text) form.append("text", text);
  form.append("metadata", JSON.stringify(metadata));
  try {
    return await send(`${ROOT}/records`, form, progress);
  } catch (error) {
    if (error.status === 401 && (await askForKey(key !== ""))) return send(`${ROOT}/records`, form, progress);
    throw error;
  }
}

function send(path, form, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, "The server cannot be reached, or refused the file."));
    request.onload = () =>
      request.status < 300
        ? resolve(JSON.parse(request.responseText))
        : reject(failure(request.status, request.responseText));
    request.send(form);
  });
}

// Media elements cannot send a key: with a key, media are fetched first.
export const keyed = () => key !== "";

export async function mediaUrl(path, signal) {
  return URL.createObjectURL(await (await call(path, { signal })).blob());
}
