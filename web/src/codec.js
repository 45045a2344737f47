/**
 * From a recording to codes and back, chunk by chunk as the library does it (vqcodec/inference/).
 *
 * A network is run by `run(name, inputs)`; what goes in and comes out is said in model.json.
 */

import { followed, levelled } from "./loudness.js";
import {
  CHANNELS,
  PitchQuantizer,
  bent,
  features,
  meanLogF0,
  roundHalfEven,
  tracked,
} from "./pitch.js";
import { clip, measuredGain, normalised } from "./recording.js";
import { RecordingError } from "./wav.js";

const CHUNK_LENGTH = 500; // codes
const DOUBT = 2e-5; // margin under which a code is settled from just what it sees
const GUIDANCE = 0.4; // how far a conversion is led away from the voice of the source
const REFERENCE_SECONDS = 4; // that the speaker encoder hears at a time
const MOST_REFERENCES = 16;
const SILENCE = 1e-4; // -80 dB full scale
const LARGEST = 1000; // 60 dB over full scale
const [SHORTEST_S, LONGEST_S] = [0.25, 300];
const [LOWEST_RATE, HIGHEST_RATE] = [8000, 192_000]; // Hz

export class Codec {
  /**
   * @param {object} model as in model.json
   * @param {(name: string, inputs: object) => Promise<object>} run
   */
  constructor(model, run) {
    [this.model, this.run] = [model, run];
    [this.rate, this.hopLength] = [model.sample_rate, model.hop_length];
    this.quantizer = model.pitch && new PitchQuantizer(model.pitch);
  }

  /**
   * Encode a recording.
   *
   * @param {Float32Array} samples one channel
   * @param {number} rate of the samples in Hz
   * @param {(share: number) => Promise<void>} onProgress
   * @returns {Promise<object>} as `packing.codesFile` and `decode` take it
   * @throws {RecordingError} too short, too long, silent or of an impossible rate
   */
  async encode(samples, rate, onProgress) {
    check(samples, rate);
    const gain = measuredGain(samples, rate);
    const heard = normalised(samples, rate, gain, this.rate);
    const vector = await this.#voiceOf(heard);
    const pitch = await this.#pitchOf(heard, (share) => onProgress(share / 3));
    const codes = await this.#codesOf(heard, (share) => onProgress((1 + 2 * share) / 3));
    return { codes, ...pitch, vector, gain, rate, nSamples: samples.length };
  }

  async #codesOf(heard, onProgress) {
    const { hopLength } = this;
    const [before, after] = this.model.graphs["encode.onnx"].context;
    const nCodes = Math.ceil(heard.length / hopLength);
    const whole = new Float32Array(nCodes * hopLength);
    whole.set(heard);
    const part = (start, end) => whole.slice(start * hopLength, end * hopLength);
    const codes = new Uint16Array(nCodes);
    for (const [start, end] of spans(nCodes)) {
      const first = Math.max(start - before, 0);
      const found = await this.#encoded(part(first, Math.min(end + after, nCodes)));
      for (let code = start; code < end; code++) {
        codes[code] = found.codes[code - first];
        if (found.margins[code - first] < DOUBT) {
          // Wherever the chunk lay, its own receptive field gives one answer.
          const seen = Math.max(code - before, first);
          const last = Math.min(code + after + 1, nCodes);
          codes[code] = (await this.#encoded(part(seen, last))).codes[code - seen];
        }
      }
      await onProgress(end / nCodes);
    }
    return codes;
  }

  async #encoded(samples) {
    const found = await this.run("encode", { waveform: [samples, [1, samples.length]] });
    return { codes: Array.from(found.codes, Number), margins: found.margins };
  }

  /** The stored speaker vector of who speaks. */
  async #voiceOf(heard) {
    const length = REFERENCE_SECONDS * this.rate;
    const pieces = [];
    for (let start = 0; start < heard.length && pieces.length < MOST_REFERENCES; start += length) {
      const piece = heard.slice(start, start + length);
      if (pieces.length && piece.length < length / 2) break;
      const padded = new Float32Array(Math.max(piece.length, length / 8));
      padded.set(piece);
      pieces.push(padded);
    }
    const vectors = [];
    for (const piece of pieces) {
      vectors.push((await this.run("speaker", { waveform: [piece, [1, piece.length]] })).speaker);
    }
    return meanVector(vectors);
  }

  async #pitchOf(heard, onProgress) {
    if (!this.quantizer) return { symbols: new Uint16Array(0), referenceHz: null };
    const detect = (audio, low, high) =>
      this.run("pitch", {
        audio: [audio, [1, audio.length]],
        fmin: [[low], []],
        fmax: [[high], []],
      });
    const contour = await tracked(detect, heard, this.hopLength, onProgress);
    const referenceHz = Math.fround(Math.exp(meanLogF0(contour)));
    return { symbols: this.quantizer.encode(contour, Math.log(referenceHz)), referenceHz };
  }

  /**
   * Decode.
   *
   * @param {object} recording as of `encode`
   * @param {{vector: number[], pitch_hz: number | null} | null} voice another one than its own
   * @param {number} semitones by which it shall be higher
   * @param {(share: number) => Promise<void>} onProgress
   * @returns {Promise<Float32Array>} at the model's rate and the recording's level
   */
  async decode(recording, voice, semitones, onProgress) {
    const own = { vector: fromInt8(recording.vector), hertz: recording.referenceHz };
    const other = voice && {
      vector: guided(fromInt8(voice.vector), own.vector),
      hertz: voice.pitch_hz,
    };
    const told = other ?? own;
    const target = { ...told, hertz: told.hertz && told.hertz * 2 ** (semitones / 12) };
    const alike = !other && !semitones;
    const passes = alike ? 1 : 2;
    const half = (share) => onProgress(share / passes);
    let decoded = await this.#decoded(recording, target, half);
    if (!alike) {
      const reference = await this.#decoded(recording, own, (share) => half(1 + share));
      decoded = followed(decoded, reference, this.rate, this.hopLength);
    }
    const loud = levelled(decoded, this.rate, this.hopLength, recording.gain);
    const nSamples = Math.ceil((recording.nSamples * this.rate) / recording.rate);
    return loud.subarray(0, nSamples).map((x) => x * recording.gain);
  }

  async #decoded({ codes, symbols, referenceHz }, { vector, hertz }, onProgress) {
    const { hopLength } = this;
    const [before, after] = this.model.graphs["decode.fast.onnx"].context;
    const told = BigInt64Array.from(codes, BigInt);
    const contour = this.#contour(symbols, referenceHz, hertz, codes.length);
    const result = new Float32Array(codes.length * hopLength);
    for (const [start, end] of spans(codes.length)) {
      const first = Math.max(start - before, 0);
      const last = Math.min(end + after, codes.length);
      const n = last - first;
      const inputs = {
        codes: [told.slice(first, last), [1, 1, n]],
        speaker: [vector, [1, vector.length]],
      };
      if (this.quantizer) {
        const stream = contour
          ? features(contour.subarray(first, last))
          : new Float32Array(CHANNELS * n);
        inputs.pitch = [stream, [1, CHANNELS, n]];
      }
      const { waveform } = await this.run("decode", inputs);
      const own = waveform.subarray((start - first) * hopLength, (end - first) * hopLength);
      result.set(own, start * hopLength);
      await onProgress(end / codes.length);
    }
    return result;
  }

  /** The contour that a decoder is told, about another mean pitch; null where that is not known. */
  #contour(symbols, referenceHz, hertz, nCodes) {
    if (!this.quantizer || !hertz) return null;
    const mean = Math.log(referenceHz);
    return bent(this.quantizer.decode(symbols, mean, nCodes), mean, Math.log(hertz));
  }
}

function check(samples, rate) {
  if (rate < LOWEST_RATE || rate > HIGHEST_RATE) {
    throw new RecordingError(
      `is at ${rate} Hz: convert it to between ${LOWEST_RATE} and ${HIGHEST_RATE} Hz`,
    );
  }
  const seconds = samples.length / rate;
  if (seconds < SHORTEST_S) {
    throw new RecordingError(
      `is only ${seconds.toFixed(2)} s long: record ${SHORTEST_S} s or more`,
    );
  }
  if (seconds > LONGEST_S) {
    throw new RecordingError(`is ${Math.round(seconds)} s long: cut it to ${LONGEST_S} s or less`);
  }
  if (!samples.every((x) => Math.abs(x) <= LARGEST)) {
    throw new RecordingError("has samples far beyond full scale: repair or export it again");
  }
  if (!samples.some((x) => Math.abs(x) >= SILENCE)) {
    throw new RecordingError("is silent: check the microphone, or choose another file");
  }
}

/** Chunks of so many codes, by their first and the one after their last. */
function* spans(nCodes) {
  for (let start = 0; start < nCodes; start += CHUNK_LENGTH) {
    yield [start, Math.min(start + CHUNK_LENGTH, nCodes)];
  }
}

/** Speaker vectors to the stored form of their mean. */
export function meanVector(vectors) {
  const mean = Array.from(vectors[0], (_, i) =>
    vectors.reduce((sum, vector) => sum + vector[i] / vectors.length, 0),
  );
  const scale = (32 * Math.sqrt(mean.length)) / Math.max(norm(mean), 1e-12);
  return Int8Array.from(mean, (x) => clip(roundHalfEven(x * scale), -128, 127));
}

function fromInt8(stored) {
  return Float32Array.from(stored, (x) => x / 32);
}

/** The target, and away from the source; as long as the target. */
export function guided(target, source) {
  const beyond = target.map((x, i) => x + GUIDANCE * (x - source[i]));
  const scale = norm(target) / Math.max(norm(beyond), 1e-12);
  return beyond.map((x) => x * scale);
}

function norm(vector) {
  return Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
}
