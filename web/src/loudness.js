/**
 * As loud as the recording: a decoding is led to the level that its codes were made at
 * (vqcodec/inference/loudness.py, which explains the constants).
 */

import { TARGET_RMS, clip, frameLength, framePowers, hanning } from "./recording.js";

const TARGET_POWER = TARGET_RMS ** 2;
const FRAME_SECONDS = 0.01;
const [BACK_SECONDS, AHEAD_SECONDS] = [1.0, 0.2];
const MOST_RAISED = 4;
const PAUSE_POWER = [TARGET_POWER * 10 ** -2.5, TARGET_POWER * 10 ** -2];
const LEAST_SUM = 0.5 * TARGET_POWER;
const START_GAIN = 10 ** (0.9 / 20);
const ACTIVE_POWER = 0.03 * TARGET_POWER;
const TRUST = 50;
const LARGEST_DRIFT = 10 ** (6 / 20);
const LARGEST_CEILING = 1e6;
const LEAST_CREST = 2.5;
const STEP = 25; // codes that one gain is found for

/**
 * Give a decoding the level and the pauses of a reference.
 *
 * @param {Float32Array} decoded at normalised level, a multiple of the hop length long
 * @param {Float32Array} reference the same codes in the voice that spoke them
 * @param {number} rate in Hz
 * @param {number} hopLength samples per code
 * @returns {Float32Array}
 */
export function followed(decoded, reference, rate, hopLength) {
  const length = envelopeLength(rate, hopLength);
  const [back, ahead] = [BACK_SECONDS, AHEAD_SECONDS].map((seconds) => {
    const nCodes = Math.ceil(Math.round(seconds * rate) / hopLength);
    return Math.max((nCodes * hopLength) / length - 2, 1);
  });
  const weights = [...hanning(2 * back + 1).slice(0, back), ...hanning(2 * ahead + 1).slice(ahead)];
  const [found, wanted] = [decoded, reference].map((waveform) => framePowers(waveform, length));
  const [foundSums, wantedSums] = [found, wanted].map((powers) => smoothed(powers, weights, ahead));
  const slow = found.map((_, frame) =>
    Math.min(
      Math.sqrt((wantedSums[frame] + LEAST_SUM) / (foundSums[frame] + LEAST_SUM)),
      MOST_RAISED,
    ),
  );
  const pauses = pauseGains(
    wanted,
    found.map((power, frame) => power * slow[frame] ** 2),
  );
  const gains = slow.map((gain, frame) => gain * pauses[frame]);
  return decoded.map((x, i) => x * Math.fround(between(gains, (i + 0.5) / length - 0.5)));
}

/**
 * Lead the active level of a decoding to `TARGET_RMS`, and keep it from clipping.
 *
 * @param {Float32Array} decoded near normalised level, a multiple of the hop length long
 * @param {number} rate in Hz
 * @param {number} hopLength samples per code
 * @param {number} gain that it is going to be played with
 * @returns {Float32Array}
 */
export function levelled(decoded, rate, hopLength, gain) {
  const length = envelopeLength(rate, hopLength);
  const ceiling = clip(1 / gain, LEAST_CREST * TARGET_RMS, LARGEST_CEILING);
  const result = new Float32Array(decoded.length);
  let [nActive, energy, before] = [TRUST, (TRUST * TARGET_POWER) / START_GAIN ** 2, START_GAIN];
  for (let start = 0; start < decoded.length; start += STEP * hopLength) {
    const chunk = decoded.subarray(start, start + STEP * hopLength);
    for (const power of framePowers(chunk, frameLength(rate))) {
      if (power > ACTIVE_POWER) [nActive, energy] = [nActive + 1, energy + power];
    }
    const level = Math.sqrt((nActive * TARGET_POWER) / energy);
    const after = clip(level, START_GAIN / LARGEST_DRIFT, START_GAIN * LARGEST_DRIFT);
    const room = peaks(chunk, length).map((peak) => ceiling / Math.max(peak, 1e-9));
    const edges = Array.from({ length: room.length + 1 }, (_, edge) =>
      Math.min(
        before + ((after - before) * edge) / room.length,
        room[Math.max(edge - 1, 0)],
        room[Math.min(edge, room.length - 1)],
      ),
    );
    chunk.forEach((x, i) => (result[start + i] = x * Math.fround(between(edges, i / length))));
    before = after;
  }
  return result;
}

/** Gains up to 1 for the powers of frames: none louder than the reference's pauses. */
function pauseGains(wanted, decoded) {
  const neighbours = [0.25, 0.5, 0.25];
  const [low, high] = PAUSE_POWER.map(Math.log);
  const reached = smoothed(decoded, neighbours, 1);
  return smoothed(wanted, neighbours, 1).map((power, frame) => {
    const place = clip((Math.log(Math.max(power, 1e-12)) - low) / (high - low), 0, 1);
    const excess = Math.max(reached[frame], 1e-12) / Math.max(power, 1e-12);
    return Math.max(excess, 1) ** (-(1 - place) / 2);
  });
}

/** Sums over frames, the last `ahead` of the weights for those after each. */
function smoothed(powers, weights, ahead) {
  const back = weights.length - 1 - ahead;
  return powers.map((_, frame) => {
    let sum = 0;
    const first = Math.max(0, back - frame);
    const end = Math.min(weights.length, powers.length - frame + back);
    for (let j = first; j < end; j++) sum += weights[j] * powers[frame + j - back];
    return sum;
  });
}

/** The value at a place on the lines between those at 0, 1, 2 ...; beyond the ends as there. */
function between(values, place) {
  const left = clip(Math.floor(place), 0, values.length - 1);
  const right = Math.min(left + 1, values.length - 1);
  return values[left] + (values[right] - values[left]) * clip(place - left, 0, 1);
}

function peaks(samples, length) {
  return Array.from({ length: samples.length / length }, (_, frame) => {
    const own = samples.subarray(frame * length, (frame + 1) * length);
    return own.reduce((peak, x) => Math.max(peak, Math.abs(x)), 0);
  });
}

/** Samples: the longest equal part of a code's hop that is short enough. */
function envelopeLength(rate, hopLength) {
  const longest = Math.round(FRAME_SECONDS * rate);
  for (let length = longest; length > Math.floor(longest / 4); length--) {
    if (hopLength % length === 0) return length;
  }
  return hopLength;
}
