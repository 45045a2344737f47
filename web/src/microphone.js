/** Samples of the microphone as they come, without the codec that a MediaRecorder has. */

import { RecordingError } from "./wav.js";

const PLAIN = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

export class Microphone {
  #context = new AudioContext();
  #stream = null;
  #nodes = [];
  #blocks = [];

  /** Load what is needed to record later, when there may be no network. */
  async load() {
    await this.#context.audioWorklet?.addModule(new URL("./recorder.js", import.meta.url));
  }

  get isRecording() {
    return this.#stream !== null;
  }

  /**
   * Start to record.
   *
   * @param {(seconds: number) => void} onLength told how much there is so far
   * @throws {RecordingError} the browser does not give the microphone
   */
  async start(onLength) {
    if (!navigator.mediaDevices) {
      throw new RecordingError("Browsers give the microphone only over HTTPS and from localhost");
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ audio: PLAIN });
    } catch ({ message }) {
      throw new RecordingError(`No microphone (${message}): allow it, or choose a file`);
    }
    this.#blocks = [];
    let length = 0;
    const source = this.#context.createMediaStreamSource(this.#stream);
    const recorder = new AudioWorkletNode(this.#context, "recorder", { numberOfOutputs: 0 });
    recorder.port.onmessage = ({ data }) => {
      this.#blocks.push(data);
      length += data.length;
      onLength(length / this.#context.sampleRate);
    };
    this.#nodes = [source, recorder];
    source.connect(recorder);
    await this.#context.resume();
  }

  /** End it, and get what was recorded, as `readWav` gives it. */
  async stop() {
    const [source, recorder] = this.#nodes;
    source.disconnect();
    recorder.port.onmessage = null;
    this.#stream.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    await this.#context.suspend();
    const samples = await new Blob(this.#blocks).arrayBuffer();
    return { channels: [new Float32Array(samples)], rate: this.#context.sampleRate };
  }
}
