// Records from the microphone to a WAV file, without the browser's lossy encoders.

import { button, dialog, el } from "./dom.js";

const RATE = 16000;
const LONGEST = 30;

// Opens the recorder; `done` is called with a WAV file.
export async function openMicrophone(done) {
  let sound = null;
  let recorder = null;
  let context = null;
  let ticking = 0;
  const stop = () => {
    cancelAnimationFrame(ticking);
    if (recorder?.state === "recording") recorder.stop();
    sound?.getTracks().forEach((track) => track.stop());
    context?.close();
    context = null;
  };
  const { box, body } = dialog("Record a sound", { onclose: stop });
  const state = el("p", { class: "status", role: "status" }, "Hum it, say it, or hold the microphone to it.");
  const level = el("meter", { min: 0, max: 1, value: 0, "aria-label": "Loudness" });
  const again = button("microphone", "Start", () => start(), { kind: "go big" });
  body.append(el("div", { class: "recorder" }, level, state, again));
  again.focus();

  async function start() {
    try {
      sound = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      state.textContent = refusal(error);
      return;
    }
    const pieces = [];
    recorder = new MediaRecorder(sound);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => box.open && finish(new Blob(pieces, { type: recorder.mimeType }));
    recorder.start();
    again.replaceWith(button("stop", "Stop and use it", stop, { kind: "go big" }));
    body.querySelector(".go").focus();
    watch();
  }

  function watch() {
    context = new AudioContext();
    const meter = context.createAnalyser();
    context.createMediaStreamSource(sound).connect(meter);
    const samples = new Float32Array(meter.fftSize);
    const begun = performance.now();
    let told = -1;
    const tick = () => {
      const seconds = (performance.now() - begun) / 1000;
      meter.getFloatTimeDomainData(samples);
      level.value = Math.min(1, 3 * Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length));
      if (Math.floor(seconds) !== told) {
        told = Math.floor(seconds);
        state.textContent = `Recording, ${told} of at most ${LONGEST} seconds`;
      }
      if (seconds >= LONGEST) stop();
      else ticking = requestAnimationFrame(tick);
    };
    tick();
  }

  async function finish(blob) {
    try {
      const file = new File([await wav(blob)], "recording.wav", { type: "audio/wav" });
      box.close();
      done(file);
    } catch {
      state.textContent = "Nothing could be heard in that recording: try once more, a little longer.";
    }
  }
}

function refusal(error) {
  if (error.name === "NotAllowedError") return "The browser does not allow the microphone: allow it for this page and try again.";
  if (error.name === "NotFoundError") return "There is no microphone on this device.";
  return "The microphone cannot be used just now.";
}

// Any sound that the browser can decode, as 16-bit mono PCM.
async function wav(blob) {
  const opened = new AudioContext();
  const heard = await opened.decodeAudioData(await blob.arrayBuffer()).finally(() => opened.close());
  const mixer = new OfflineAudioContext(1, Math.ceil(heard.duration * RATE), RATE);
  const source = mixer.createBufferSource();
  source.buffer = heard;
  source.connect(mixer.destination);
  source.start();
  const samples = (await mixer.startRendering()).getChannelData(0);
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const tag = (at, text) => [...text].forEach((letter, i) => data.setUint8(at + i, letter.charCodeAt(0)));
  tag(0, "RIFF");
  data.setUint32(4, 36 + 2 * samples.length, true);
  tag(8, "WAVEfmt ");
  data.setUint32(16, 16, true);
  data.setUint16(20, 1, true);
  data.setUint16(22, 1, true);
  data.setUint32(24, RATE, true);
  data.setUint32(28, 2 * RATE, true);
  data.setUint16(32, 2, true);
  data.setUint16(34, 16, true);
  tag(36, "data");
  data.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => data.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, x)), true));
  return data.buffer;
}
