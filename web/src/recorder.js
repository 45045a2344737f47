/** Runs where the browser has the samples of the microphone, and passes those of a channel on. */

registerProcessor(
  "recorder",
  class extends AudioWorkletProcessor {
    process([[samples]]) {
      if (samples) this.port.postMessage(samples.slice());
      return true;
    }
  },
);
