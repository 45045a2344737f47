/** Resampling by a windowed sinc, with the bands of soxr's `HQ`, which the library uses. */

const PASSBAND = 0.9136; // of the lower rate's Nyquist frequency, where the stopband begins
const ATTENUATION_DB = 120;

/**
 * Bring a recording to another rate.
 *
 * @param {Float32Array} samples
 * @param {number} from rate in Hz
 * @param {number} to rate in Hz
 * @returns {Float32Array} `ceil(samples.length * to / from)` samples; at the same rate, the same
 */
export function resampled(samples, from, to) {
  if (from === to) return samples;
  const divisor = greatestCommonDivisor(from, to);
  const [up, down] = [to / divisor, from / divisor];
  const kernel = kernelOf(Math.min(1, to / from));
  const rows = new Map();
  const result = new Float32Array(Math.ceil((samples.length * up) / down));
  for (let k = 0; k < result.length; k++) {
    const phase = (k * down) % up;
    const middle = (k * down - phase) / up;
    if (!rows.has(phase)) rows.set(phase, kernel.row(phase / up));
    result[k] = product(samples, rows.get(phase), middle - kernel.half + 1);
  }
  return result;
}

/** Sum of `row[j] * samples[first + j]`, silence around the samples. */
function product(samples, row, first) {
  const end = Math.min(row.length, samples.length - first);
  let sum = 0;
  for (let j = Math.max(0, -first); j < end; j++) sum += row[j] * samples[first + j];
  return sum;
}

/** A sinc in a Kaiser window (Oppenheim and Schafer, equations 7.75, 7.76) that keeps a band. */
function kernelOf(ratio) {
  const width = Math.PI * (1 - PASSBAND) * ratio;
  const cutoff = ((1 + PASSBAND) / 2) * ratio;
  const beta = 0.1102 * (ATTENUATION_DB - 8.7);
  const half = Math.ceil((ATTENUATION_DB - 8) / (2.285 * width) / 2);
  const value = (t) => {
    const window = bessel(beta * Math.sqrt(Math.max(0, 1 - (t / half) ** 2))) / bessel(beta);
    return window * cutoff * (t ? Math.sin(Math.PI * cutoff * t) / (Math.PI * cutoff * t) : 1);
  };
  return {
    half,
    row: (part) => Float64Array.from({ length: 2 * half }, (_, j) => value(j - half + 1 - part)),
  };
}

/** The modified Bessel function of the first kind and order 0. */
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > sum * 1e-12; k++) {
    term *= (x / 2 / k) ** 2;
    sum += term;
  }
  return sum;
}

function greatestCommonDivisor(a, b) {
  return b ? greatestCommonDivisor(b, a % b) : a;
}
