/** The page: what is pressed, dropped, shown and played. */

import { Microphone } from "./microphone.js";
import { bitsPer } from "./packing.js";
import { draw } from "./pictures.js";
import { mixed } from "./recording.js";
import { RecordingError, readWav, writeWav } from "./wav.js";

const BROWSER_RATE = 48_000; // Hz, at which browsers decode what is no WAV
const LONGEST_RECORDING_S = 60;
const OWN_VOICE = "";

const element = (id) => document.getElementById(id);
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const microphone = new Microphone();
const jobs = new Map(); // what to do with what the worker says of each
let nJobs = 0;
let running = null; // {id, ended} of the job that the worker has
let nRecordings = 0; // that were asked for
let model = null;
let name = null; // of the recording that codes are of
let sample = null; // a sound file to try the page with

worker.onmessage = ({ data: { id, share, ...ended } }) => {
  if (share !== undefined) {
    if (jobs.has(id)) element("progress").value = share;
    return;
  }
  jobs.get(id)(ended);
  jobs.delete(id);
};

worker.onerror = ({ message }) => {
  showWork("", false);
  showError(`The page does not run here (${message ?? "no module workers"}): use a newer browser`);
};

/**
 * Let the worker do something, after what it does now has been cancelled.
 *
 * @returns {Promise<object | null>} its result; null when it was cancelled
 */
async function work(status, job, told = {}) {
  await cancel();
  const id = nJobs++;
  const ended = new Promise((resolve) => jobs.set(id, resolve));
  running = { id, ended };
  showWork(status, true);
  worker.postMessage({ id, job, ...told });
  const { result, error, isRecording, cancelled } = await ended;
  running = null;
  showWork(cancelled ? "Cancelled" : "", false);
  if (error) throw isRecording ? new RecordingError(error) : new Error(error);
  return result ?? null;
}

async function cancel() {
  if (!running) return;
  worker.postMessage({ cancel: running.id });
  await running.ended;
}

function showWork(status, isRunning) {
  element("status").textContent = status;
  element("progress").hidden = !isRunning;
  element("cancel").hidden = !isRunning || !model;
  element("progress").removeAttribute("value");
}

/** Do what a person asked for; what is wrong with it is told in one line. */
function asked(action) {
  return async (...told) => {
    element("error").hidden = true;
    try {
      await action(...told);
    } catch (error) {
      showError(error.message);
    }
  };
}

function showError(message) {
  element("error").textContent = message;
  element("error").hidden = false;
}

async function load() {
  const fetched = fetch(new URL("./sample.wav", import.meta.url));
  const prepared = microphone.load();
  const loaded = await work("Loading the model", "load");
  sample = await (await fetched).arrayBuffer();
  await prepared;
  model = loaded;
  showVoices();
  const about = [`Model ${model.model}`, model.attribution, model.licence.split(",")[0]];
  element("about").textContent = about.filter(Boolean).join(". ");
  element("pitch-row").hidden = !model.pitch;
  for (const id of ["file", "record", "sample"]) element(id).disabled = false;
  element("status").textContent = "Ready: choose, record or drop a recording";
}

function showVoices() {
  const known = Object.keys(model.voices).sort((a, b) => pitchOf(b) - pitchOf(a));
  for (const voice of [OWN_VOICE, ...known]) {
    const { sex, pitch_hz, source, accent } = model.about_voices[voice] ?? {};
    const described = [sex, pitch_hz && `${Math.round(pitch_hz)} Hz`].filter(Boolean).join(", ");
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio",
      name: "voice",
      value: voice,
      checked: voice === OWN_VOICE,
    });
    const small = document.createElement("small");
    small.textContent = voice === OWN_VOICE ? "of the recording" : described;
    label.title = [source, accent].filter(Boolean).join(", ");
    label.append(input, voice === OWN_VOICE ? "Its own" : voice, small);
    element("voices").append(label);
  }
}

/**
 * Take another recording in place of the one before.
 *
 * @param {string} newName
 * @param {() => Promise<{channels: Float32Array[], rate: number}>} read
 */
async function use(newName, read) {
  const turn = ++nRecordings;
  await cancel();
  for (const id of ["result", "coded", "recorded"]) element(id).hidden = true;
  element("hear").disabled = true;
  element("status").textContent = "";
  const { channels, rate } = await read();
  if (turn === nRecordings) await encode(newName, mixed(channels), rate);
}

async function open(file) {
  await use(file.name, async () => decoded(await file.arrayBuffer(), file.name));
}

/** The samples of a sound file: of a WAV as they are, else what the browser makes of it. */
async function decoded(data, fileName) {
  try {
    const wav = readWav(data);
    if (wav) return wav;
    const sound = await new OfflineAudioContext(1, 1, BROWSER_RATE).decodeAudioData(data);
    const channels = Array.from({ length: sound.numberOfChannels }, (_, i) =>
      sound.getChannelData(i),
    );
    return { channels, rate: sound.sampleRate };
  } catch (error) {
    if (error instanceof RecordingError) throw new RecordingError(`${fileName} ${error.message}`);
    throw new RecordingError(
      `${fileName} is no sound that this browser can read: convert it to WAV`,
    );
  }
}

async function encode(newName, samples, rate) {
  const started = performance.now();
  let result;
  try {
    result = await work("Encoding", "encode", { samples, rate });
  } catch (error) {
    throw error instanceof RecordingError
      ? new RecordingError(`${newName} ${error.message}`)
      : error;
  }
  if (!result) return;
  const seconds = (performance.now() - started) / 1000;
  name = newName.replace(/\.\w+$/, "");
  element("name").textContent = `${newName}, ${(samples.length / rate).toFixed(2)} s at ${rate} Hz`;
  element("recorded").hidden = false;
  show("recording", samples, rate);
  showCodes(result, samples.length / rate);
  element("hear").disabled = false;
  element("status").textContent = `Encoded in ${seconds.toFixed(1)} s: choose a voice, and hear it`;
}

function showCodes({ codes, symbols, payloads, file }, seconds) {
  const bits = bitsPer(model.codebook_size);
  const nBytes = payloads.reduce((sum, payload) => sum + payload.length, 0);
  let text = `${codes.length} codes of ${bits} bits`;
  let total = codes.length * bits;
  if (symbols.length) {
    const own = bitsPer(model.pitch.alphabet_size);
    text += ` and ${symbols.length} symbols of pitch of ${own} bits`;
    total += symbols.length * own;
  }
  const rate = (total / seconds / 1000).toFixed(2);
  element("bits").textContent = `${text}: ${total} bits, ${nBytes} bytes packed, ${rate} kbit/s.`;
  element("units").textContent = codes.join(" ");
  const digits = payloads.map((payload) => Array.from(payload, hexadecimal).join(" "));
  element("packed").textContent = digits.join("\n");
  element("coded").hidden = false;
  offer("download-codes", new Blob([file]), `${name}.codes`);
}

function hexadecimal(byte) {
  return byte.toString(16).padStart(2, "0");
}

function chosenVoice() {
  return document.querySelector("#voices input:checked").value;
}

/** How high a voice is; null where that is not known, so that it cannot be shifted. */
function pitchOf(voice) {
  return model.about_voices[voice]?.pitch_hz ?? null;
}

function showPitch() {
  const voice = chosenVoice();
  const slider = element("pitch");
  slider.disabled = voice !== OWN_VOICE && pitchOf(voice) === null;
  if (slider.disabled) slider.value = 0;
  element("pitch-value").textContent = slider.disabled ? "not known" : shift(Number(slider.value));
}

function shift(semitones) {
  if (!semitones) return "as the voice";
  return `${semitones > 0 ? "+" : "−"}${Math.abs(semitones)} semitones`;
}

async function hear() {
  const chosen = chosenVoice();
  const vector = model.voices[chosen];
  const voice = vector ? { vector, pitch_hz: pitchOf(chosen) } : null;
  const started = performance.now();
  const semitones = Number(element("pitch").value);
  const samples = await work("Decoding", "decode", { voice, semitones });
  if (!samples) return;
  const seconds = (performance.now() - started) / 1000;
  element("result").hidden = false;
  const by = chosen === OWN_VOICE ? "its own voice" : chosen;
  element("result-title").textContent = `By ${by}${semitones ? `, ${shift(semitones)}` : ""}`;
  const sound = show("result", samples, model.sample_rate);
  offer("download-wav", sound, `${name}.${chosen || "own"}.wav`);
  element("status").textContent = `Decoded in ${seconds.toFixed(1)} s`;
  // A browser may want another press before it plays: the player is there for that.
  await element("result-player")
    .play()
    .catch(() => {});
}

/** Draw a recording, and put it into its player. */
function show(what, samples, rate) {
  const canvas = element(`${what}-picture`);
  draw(canvas, samples, rate);
  canvas.setAttribute(
    "aria-label",
    `Waveform and spectrogram, ${(samples.length / rate).toFixed(2)} s`,
  );
  const sound = new Blob([writeWav(samples, rate)], { type: "audio/wav" });
  const player = element(`${what}-player`);
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(sound);
  return sound;
}

function offer(link, content, fileName) {
  URL.revokeObjectURL(element(link).href);
  Object.assign(element(link), { href: URL.createObjectURL(content), download: fileName });
}

async function record() {
  const button = element("record");
  if (microphone.isRecording) {
    button.classList.remove("recording");
    button.textContent = "Record";
    const recorded = microphone.stop(); // now, whatever is being cancelled meanwhile
    await use("The recording", () => recorded);
    return;
  }
  button.disabled = true;
  try {
    await microphone.start((seconds) => {
      button.textContent = `Stop (${Math.floor(seconds)} s)`;
      if (seconds > LONGEST_RECORDING_S) button.click();
    });
    button.classList.add("recording");
  } finally {
    button.disabled = false;
  }
}

async function useSample() {
  await use("sample.wav", () => decoded(sample, "sample.wav"));
}

element("file").onchange = asked(async ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (file) await open(file);
});
element("record").onclick = asked(record);
element("sample").onclick = asked(useSample);
element("hear").onclick = asked(hear);
element("cancel").onclick = cancel;
element("pitch").oninput = element("voices").onchange = showPitch;

// Wherever on the page a file is dropped, it is meant for it.
document.ondragover = (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
};
document.ondragleave = () => element("drop").classList.remove("over");
document.ondrop = asked(async (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file && model) await open(file);
});

asked(load)();
