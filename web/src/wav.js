/** WAV files, whose samples reach the networks as they are: no browser resamples them. */

const [PCM, FLOAT, EXTENSIBLE] = [1, 3, 0xfffe];
const UNKNOWN_SIZE = 0x7fff0000; // and more is promised by programs that write to pipes

/** A recording that cannot be used, and what to do about it. */
export class RecordingError extends Error {}

/**
 * Read a WAV file.
 *
 * @param {ArrayBuffer} data
 * @returns {{channels: Float32Array[], rate: number} | null} full scale is 1; null where it is
 *   another kind of file, or coded as browsers alone can read
 * @throws {RecordingError} it is cut short
 */
export function readWav(data) {
  const view = new DataView(data);
  if (data.byteLength < 12 || text(view, 0) !== "RIFF" || text(view, 8) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= data.byteLength;) {
    const [name, size] = [text(view, at), view.getUint32(at + 4, true)];
    const [start, rest] = [at + 8, data.byteLength - at - 8];
    if (name === "fmt " && size >= 16 && size <= rest) format = readFormat(view, start, size);
    if (name === "data") {
      if (!format) return null;
      if (size > rest && size < UNKNOWN_SIZE) {
        throw new RecordingError("is cut short: copy or export it again");
      }
      return {
        channels: readSamples(view, start, Math.min(size, rest), format),
        rate: format.rate,
      };
    }
    at = start + size + (size % 2);
  }
  return null;
}

function text(view, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
}

/** What the samples are, or null if that is not among `READERS`. */
function readFormat(view, at, size) {
  const tag = view.getUint16(at, true);
  const kind = tag === EXTENSIBLE && size >= 26 ? view.getUint16(at + 24, true) : tag;
  const nChannels = view.getUint16(at + 2, true);
  const bits = view.getUint16(at + 14, true);
  const read = READERS[`${kind} ${bits}`];
  return read && nChannels ? { read, nChannels, bits, rate: view.getUint32(at + 4, true) } : null;
}

/** By kind and bits. */
const READERS = {
  [`${PCM} 8`]: (view, at) => (view.getUint8(at) - 0x80) / 0x80,
  [`${PCM} 16`]: (view, at) => view.getInt16(at, true) / 0x8000,
  [`${PCM} 24`]: (view, at) =>
    (view.getUint16(at, true) + view.getInt8(at + 2) * 0x10000) / 0x800000,
  [`${PCM} 32`]: (view, at) => view.getInt32(at, true) / 0x80000000,
  [`${FLOAT} 32`]: (view, at) => view.getFloat32(at, true),
  [`${FLOAT} 64`]: (view, at) => view.getFloat64(at, true),
};

function readSamples(view, start, size, { read, nChannels, bits }) {
  const step = (nChannels * bits) / 8;
  const length = Math.floor(size / step);
  return Array.from({ length: nChannels }, (_, channel) => {
    const first = start + (channel * bits) / 8;
    return Float32Array.from({ length }, (_, i) => read(view, first + i * step));
  });
}

/**
 * Write a WAV file of 16 bits.
 *
 * @param {Float32Array} samples one channel; beyond [-1, 1] it is clipped
 * @param {number} rate in Hz
 * @returns {ArrayBuffer}
 */
export function writeWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const put = (at, name) => [...name].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  put(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  put(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, PCM, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  put(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => {
    view.setInt16(44 + 2 * i, Math.min(Math.max(Math.round(x * 0x8000), -0x8000), 0x7fff), true);
  });
  return view.buffer;
}
