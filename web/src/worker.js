/**
 * The codec apart from the page, which stays responsive meanwhile.
 *
 * Messages to it are `{id, job, ...}`, job one of `JOBS`, or `{cancel: id}`; those from it
 * `{id, share}`, and at last `{id, result}`, `{id, error}`, or `{id, cancelled: true}`.
 */

import { Codec } from "./codec.js";
import * as ort from "./onnxruntime/ort.wasm.bundle.min.mjs";
import { codesFile, payloads } from "./packing.js";
import { RecordingError } from "./wav.js";

const GRAPHS = { encode: "encode", speaker: "speaker", decode: "decode.fast", pitch: "pitch" };

// One thread needs no headers of the server, and sums in one order.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = {
  wasm: new URL("./onnxruntime/ort-wasm-simd-threaded.wasm", import.meta.url).href,
};

class Cancelled extends Error {}

const cancelled = new Set();
let codec = null;
let recording = null;

const JOBS = {
  async load(_, onProgress) {
    const model = JSON.parse(new TextDecoder().decode(await fetched("model.json")));
    const sessions = {};
    const names = Object.keys(GRAPHS).filter((name) => `${GRAPHS[name]}.onnx` in model.graphs);
    for (const [number, name] of names.entries()) {
      const graph = await fetched(`${GRAPHS[name]}.onnx`);
      sessions[name] = await ort.InferenceSession.create(graph);
      await onProgress((number + 1) / names.length);
    }
    codec = new Codec(model, (name, inputs) => run(sessions[name], inputs));
    const { graphs, ...about } = model;
    return about;
  },

  async encode({ samples, rate }, onProgress) {
    recording = null;
    recording = await codec.encode(samples, rate, onProgress);
    const file = codesFile(recording, codec.model);
    return { ...recording, payloads: payloads(recording, codec.model), file };
  },

  async decode({ voice, semitones }, onProgress) {
    return codec.decode(recording, voice, semitones, onProgress);
  },
};

async function fetched(name) {
  const response = await fetch(new URL(`./model/${name}`, import.meta.url));
  if (!response.ok) throw new Error(`model/${name} is missing on the server: build the page again`);
  return new Uint8Array(await response.arrayBuffer());
}

async function run(session, inputs) {
  const feeds = {};
  for (const [name, [data, shape]] of Object.entries(inputs)) {
    const type = data instanceof BigInt64Array ? "int64" : "float32";
    feeds[name] = new ort.Tensor(type, data, shape);
  }
  const outputs = await session.run(feeds);
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
}

/** Tell how far a job is, and let messages in, which may cancel it. */
async function progress(id, share) {
  postMessage({ id, share });
  await new Promise((resolve) => setTimeout(resolve));
  if (cancelled.delete(id)) throw new Cancelled();
}

onmessage = async ({ data: { id, job, cancel, ...told } }) => {
  if (cancel !== undefined) {
    cancelled.add(cancel);
    return;
  }
  try {
    postMessage({ id, result: await JOBS[job](told, (share) => progress(id, share)) });
  } catch (error) {
    if (error instanceof Cancelled) postMessage({ id, cancelled: true });
    else postMessage({ id, error: error.message, isRecording: error instanceof RecordingError });
  }
};
