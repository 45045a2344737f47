/**
 * How high a voice is from moment to moment: tracked by swift-f0, quantised about the speaker's
 * mean, moved to another, and told to the decoder (vqcodec/audio/pitch_tracker.py,
 * models/pitch.py).
 *
 * A contour has one value for each code: log F0, or `UNVOICED`.
 */

import { clip } from "./recording.js";

export const UNVOICED = 0;
const FRAME_LENGTH = 256; // samples
const [BEFORE, AFTER] = [16, 10]; // frames that a frame's value depends on
const STEP = 250; // frames tracked at a time
const [LOWEST_TRACKED_HZ, HIGHEST_TRACKED_HZ] = [55, 550];
const LEVEL = 2; // of normalised speech, as the network knows it
const SILENCE_PEAK = 1e-3; // swift_f0.core.SILENCE_PEAK
const USUAL_HZ = 150; // where nothing is voiced
const CENT = Math.log(2) / 1200;
const [N_BINS, LOWEST_HZ, HIGHEST_HZ] = [64, 52, 550];
export const CHANNELS = N_BINS + 1;

/**
 * Track a recording.
 *
 * @param {(samples: Float32Array, low: number, high: number) => Promise<{pitch: Float32Array,
 *   confidence: Float32Array}>} detect the network: of each frame F0 in Hz, and how sure that is
 * @param {Float32Array} samples at 16 kHz and normalised level
 * @param {number} hopLength samples per value
 * @param {(share: number) => Promise<void>} onProgress
 * @returns {Promise<Float32Array>} the contour
 */
export async function tracked(detect, samples, hopLength, onProgress) {
  const loud = new Float32Array(Math.max(samples.length, FRAME_LENGTH));
  samples.forEach((x, i) => (loud[i] = LEVEL * x));
  const frames = new Float32Array(Math.floor(loud.length / FRAME_LENGTH));
  for (let start = 0; start < frames.length; start += STEP) {
    const first = Math.max(start - BEFORE, 0);
    const end = Math.min(start + STEP, frames.length);
    const window = loud.slice(first * FRAME_LENGTH, (end + AFTER) * FRAME_LENGTH);
    const { pitch, confidence } = await detect(window, LOWEST_TRACKED_HZ, HIGHEST_TRACKED_HZ);
    for (let frame = start; frame < end; frame++) {
      const own = loud.subarray(frame * FRAME_LENGTH, (frame + 1) * FRAME_LENGTH);
      const voiced =
        confidence[frame - first] >= 0.5 && own.some((x) => Math.abs(x) >= SILENCE_PEAK);
      frames[frame] = voiced ? Math.log(pitch[frame - first]) : UNVOICED;
    }
    await onProgress(end / frames.length);
  }
  return betweenFrames(frames, Math.ceil(samples.length / hopLength), hopLength);
}

/** Values in the middle of hops: voiced as the nearest frame is, on lines between voiced ones. */
export function betweenFrames(frames, nCodes, hopLength) {
  const last = frames.length - 1;
  return Float32Array.from({ length: nCodes }, (_, code) => {
    const position = (code + 0.5) * (hopLength / FRAME_LENGTH);
    const left = Math.floor(position);
    const [before, after] = [frames[Math.min(left, last)], frames[Math.min(left + 1, last)]];
    const weights = [
      (left + 1 - position) * (before !== UNVOICED),
      (position - left) * (after !== UNVOICED),
    ];
    const nearest = frames[clip(Math.ceil(position - 0.5), 0, last)];
    const line =
      (weights[0] * before + weights[1] * after) / Math.max(weights[0] + weights[1], 1e-6);
    return nearest !== UNVOICED ? line : UNVOICED;
  });
}

/** Mean log F0 of what is voiced of a contour, or of `USUAL_HZ`. */
export function meanLogF0(contour) {
  const voiced = contour.filter((value) => value !== UNVOICED);
  if (!voiced.length) return Math.log(USUAL_HZ);
  return voiced.reduce((sum, value) => sum + value, 0) / voiced.length;
}

/** Contours to symbols and back, as docs/format.md has it; `mean` is log F0 of the speaker. */
export class PitchQuantizer {
  /** @param {{codes_per_symbol: number, alphabet_size: number, step_cents: number}} config */
  constructor(config) {
    [this.ratio, this.alphabetSize] = [config.codes_per_symbol, config.alphabet_size];
    [this.step, this.middle] = [config.step_cents * CENT, Math.floor(config.alphabet_size / 2)];
  }

  /** @returns {Uint16Array} one symbol for each `codes_per_symbol` codes; 0 is unvoiced */
  encode(contour, mean) {
    return Uint16Array.from({ length: Math.floor(contour.length / this.ratio) }, (_, symbol) => {
      const voiced = contour
        .subarray(symbol * this.ratio, (symbol + 1) * this.ratio)
        .filter((value) => value !== UNVOICED);
      if (2 * voiced.length < this.ratio) return 0;
      const pooled = voiced.reduce((sum, value) => sum + value, 0) / voiced.length;
      return clip(
        roundHalfEven((pooled - mean) / this.step) + this.middle,
        1,
        this.alphabetSize - 1,
      );
    });
  }

  /** @returns {Float32Array} straight lines between the middles of voiced symbols */
  decode(symbols, mean, nCodes) {
    const last = symbols.length - 1;
    const value = (symbol) => (symbols[symbol] - this.middle) * this.step + mean;
    return Float32Array.from({ length: nCodes }, (_, code) => {
      if (last < 0 || !symbols[Math.min(Math.floor(code / this.ratio), last)]) return UNVOICED;
      const place = (code + 0.5) / this.ratio - 0.5;
      const part = place - Math.floor(place);
      const before = clip(Math.floor(place), 0, last);
      const after = clip(Math.floor(place) + 1, 0, last);
      const weights = [(1 - part) * (symbols[before] > 0), part * (symbols[after] > 0)];
      const sum = weights[0] * value(before) + weights[1] * value(after);
      return sum / Math.max(weights[0] + weights[1], 1e-6);
    });
  }
}

/** The nearest whole number; of two that are as near, the even one. */
export function roundHalfEven(x) {
  const rounded = Math.round(x);
  return Math.abs(x % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** A contour about another mean log F0; unvoiced stays so. */
export function bent(contour, mean, newMean) {
  const [from, to] = [Math.fround(mean), Math.fround(newMean)];
  return contour.map((value) => (value !== UNVOICED ? to + Math.fround(value - from) : UNVOICED));
}

/**
 * What a decoder is told: triangular bins that sum to 1 where it is voiced; elsewhere the last
 * channel is 1.
 *
 * @param {Float32Array} contour
 * @returns {Float32Array} (CHANNELS, contour.length), row by row
 */
export function features(contour) {
  const [low, high] = [Math.fround(Math.log(LOWEST_HZ)), Math.fround(Math.log(HIGHEST_HZ))];
  const spacing = Math.log(HIGHEST_HZ / LOWEST_HZ) / (N_BINS - 1);
  const result = new Float32Array(CHANNELS * contour.length);
  contour.forEach((logF0, code) => {
    if (logF0 === UNVOICED) {
      result[N_BINS * contour.length + code] = 1;
      return;
    }
    for (let bin = 0; bin < N_BINS; bin++) {
      const centre = Math.log(LOWEST_HZ) + bin * spacing;
      const distance = Math.abs(clip(logF0, low, high) - centre) / spacing;
      result[bin * contour.length + code] = Math.max(1 - distance, 0);
    }
  });
  return result;
}
