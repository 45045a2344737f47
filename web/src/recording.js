/**
 * What the library does to a recording before its networks hear it: channels are averaged, the
 * level is measured, an offset taken off, the rate changed (vqcodec/audio/recording.py, offset.py).
 */

import { resampled } from "./resampling.js";

export const TARGET_RMS = 0.06; // active level of normalised speech, full scale being 1
const FRAME_SECONDS = 0.02;
const ABSOLUTE_GATE = 1e-8; // mean square: -80 dB full scale
const RELATIVE_GATE = 0.1; // 10 dB below the mean, ITU-R BS.1770-5, annex 1
const AUDIBLE_DRIFT = 0.01;
const OFFSET_WINDOW = 200; // frames
const OFFSET_START = 17; // frames
const NOTICEABLE = 5e-4; // offset of a normalised recording

/** The mean of channels of one length. */
export function mixed(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => {
    const sum = channels.reduce((before, channel) => Math.fround(before + channel[i]), 0);
    return sum / channels.length;
  });
}

/** Samples of a frame of 20 ms. */
export function frameLength(rate) {
  return Math.round(FRAME_SECONDS * rate);
}

/** The mean of `value(sample)` of every frame; the last one may be shorter. */
export function frameMeans(samples, length, value) {
  const means = new Float64Array(Math.ceil(samples.length / length));
  for (let frame = 0; frame < means.length; frame++) {
    const end = Math.min((frame + 1) * length, samples.length);
    let sum = 0;
    for (let i = frame * length; i < end; i++) sum += value(samples[i]);
    means[frame] = sum / (end - frame * length);
  }
  return means;
}

/** The mean square of every frame. */
export function framePowers(samples, length) {
  return frameMeans(samples, length, (x) => x * x);
}

/**
 * Measure the active speech level of a recording, as the factor that normalisation divides by.
 *
 * @param {Float32Array} samples one channel
 * @param {number} rate in Hz
 * @returns {number} a float32; 1 where no frame lies above -80 dBFS
 */
export function measuredGain(samples, rate) {
  const length = frameLength(rate);
  const powers = framePowers(samples, length);
  const steady = activeLevel(
    withoutDrift(
      powers,
      frameMeans(samples, length, (x) => x),
    ),
  );
  if (!steady) return 1;
  const level = activeLevel(powers);
  return Math.fround(
    (Math.abs(level - steady) > AUDIBLE_DRIFT * steady ? steady : level) / TARGET_RMS,
  );
}

/** Root of the mean of the frame powers above both gates; 0 if there are none. */
function activeLevel(powers) {
  const loud = powers.filter((power) => power > ABSOLUTE_GATE);
  if (!loud.length) return 0;
  const gate = RELATIVE_GATE * mean(loud);
  return Math.sqrt(mean(loud.filter((power) => power > gate)));
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Frame powers without what is slower than some 10 Hz. */
function withoutDrift(powers, means) {
  const window = hanning(11).slice(1, -1);
  return powers.map((power, frame) => {
    let [sum, count] = [0, 0];
    window.forEach((weight, j) => {
      const neighbour = means[frame + j - 4];
      if (neighbour !== undefined) [sum, count] = [sum + weight * neighbour, count + weight];
    });
    return power - means[frame] ** 2 + (means[frame] - sum / count) ** 2;
  });
}

/** A Hann window of n values, the first and last of which are 0. */
export function hanning(n) {
  return Array.from({ length: n }, (_, k) => 0.5 - 0.5 * Math.cos((2 * Math.PI * k) / (n - 1)));
}

/**
 * Subtract the mean of the last four seconds wherever it can be noticed.
 *
 * @param {Float32Array} samples one channel
 * @param {number} rate in Hz
 * @param {number} gain of the recording
 * @returns {Float32Array}
 */
export function withoutOffset(samples, rate, gain) {
  const length = frameLength(rate);
  const means = frameMeans(samples, length, (x) => x);
  const result = samples.slice();
  let before = noticeable(means.subarray(0, OFFSET_START), gain);
  for (let frame = 0; frame < means.length; frame++) {
    const heard = Math.max(frame + 1, OFFSET_START);
    const offset = noticeable(means.subarray(Math.max(0, heard - OFFSET_WINDOW), heard), gain);
    const part = result.subarray(frame * length, (frame + 1) * length);
    if (before || offset) {
      const step = part.length > 1 ? (offset - before) / (part.length - 1) : 0;
      part.forEach((x, i) => (part[i] = x - Math.fround(before + step * i)));
    }
    before = offset;
  }
  return result;
}

/** The mean of frame means if it can be noticed, and less of it the less it can. */
function noticeable(means, gain) {
  const offset = mean(means);
  const threshold = NOTICEABLE * gain;
  return offset * (clip(Math.abs(offset) - threshold, 0, threshold) / threshold);
}

export function clip(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/**
 * What the networks hear of a recording.
 *
 * @param {Float32Array} samples one channel
 * @param {number} rate of the samples in Hz
 * @param {number} gain of the recording
 * @param {number} modelRate in Hz
 * @returns {Float32Array} at the model's rate and normalised level
 */
export function normalised(samples, rate, gain, modelRate) {
  return resampled(withoutOffset(samples, rate, gain), rate, modelRate).map((x) => x / gain);
}
