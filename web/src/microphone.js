/** Samples of the microphone as they come, without the codec that a MediaRecorder has. */

import { RecordingError } from "./wav.js";

/** Start to record; `onLength` is told the seconds so far. */
export async function startRecording(onLength) {
  if (!navigator.mediaDevices) {
    throw new RecordingError(
      "Browsers give the microphone to pages over HTTPS or from localhost alone",
    );
  }
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("./recorder.js", import.meta.url));
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const blocks = [];
  let length = 0;
  recorder.port.onmessage = ({ data }) => {
    blocks.push(data);
    length += data.length;
    onLength(length / context.sampleRate);
  };
  context.createMediaStreamSource(stream).connect(recorder);
  return {
    /** End it, and get what was recorded. */
    async stop() {
      stream.getTracks().forEach((track) => track.stop());
      const { sampleRate } = context;
      await context.close();
      const samples = new Float32Array(length);
      let at = 0;
      for (const block of blocks) {
        samples.set(block, at);
        at += block.length;
      }
      return { channels: [samples], rate: sampleRate };
    },
  };
}
