/** Codes as packed bits, and files of them: method 0 of docs/format.md. */

const CHUNK_LENGTH = 1250; // codes
const MAGIC = [0x89, 0x56, 0x51, 0x43];
const PITCH = 1; // kind of stream

/** Bits of one of so many symbols. */
export function bitsPer(alphabetSize) {
  return Math.ceil(Math.log2(alphabetSize));
}

/**
 * Pack whole numbers, each most significant bit first, without gaps; zeros fill the last byte.
 *
 * @param {[ArrayLike<number>, number][]} parts numbers and the bits that each of them takes
 * @returns {Uint8Array}
 */
export function packed(parts) {
  const nBits = parts.reduce((sum, [numbers, width]) => sum + numbers.length * width, 0);
  const bytes = new Uint8Array(Math.ceil(nBits / 8));
  let at = 0;
  for (const [numbers, width] of parts) {
    for (const number of numbers) {
      for (let bit = width - 1; bit >= 0; bit--, at++) {
        if ((number >> bit) & 1) bytes[at >> 3] |= 0x80 >> (at & 7);
      }
    }
  }
  return bytes;
}

/**
 * The payloads of the chunks of a recording.
 *
 * @param {{codes: Uint16Array, symbols: Uint16Array}} recording
 * @param {object} model as in model.json
 * @returns {Uint8Array[]}
 */
export function payloads({ codes, symbols }, model) {
  const ratio = model.pitch?.codes_per_symbol ?? Infinity;
  const count = Math.ceil(codes.length / CHUNK_LENGTH);
  return Array.from({ length: count }, (_, number) => {
    const [start, end] = [
      number * CHUNK_LENGTH,
      Math.min((number + 1) * CHUNK_LENGTH, codes.length),
    ];
    const own = symbols.subarray(Math.floor(start / ratio), Math.floor(end / ratio));
    return packed([
      [codes.subarray(start, end), bitsPer(model.codebook_size)],
      [own, bitsPer(model.pitch?.alphabet_size ?? 1)],
    ]);
  });
}

/**
 * A .codes file.
 *
 * @param {{codes: Uint16Array, symbols: Uint16Array, referenceHz: number, vector: Int8Array,
 *   gain: number, nSamples: number, rate: number}} recording
 * @param {object} model as in model.json
 * @returns {Uint8Array}
 */
export function codesFile(recording, model) {
  const file = new Writer();
  file.bytes(MAGIC);
  file.numbers("Uint8", model.pitch ? 3 : 2, 0, model.n_codebooks, 0);
  file.bytes(model.fingerprint.match(/../g).map((digits) => parseInt(digits, 16)));
  file.numbers("Uint32", model.sample_rate, recording.rate);
  file.numbers("Uint32", recording.nSamples, 0); // an Uint64
  file.numbers("Float32", recording.gain);
  file.numbers("Uint16", model.codebook_size - 1, model.hop_length, CHUNK_LENGTH);
  file.numbers("Int8", ...recording.vector);
  if (model.pitch) {
    file.numbers("Uint8", 1, PITCH, model.pitch.codes_per_symbol);
    file.numbers("Uint16", model.pitch.alphabet_size - 1, model.pitch.step_cents);
    file.numbers("Float32", recording.referenceHz);
  }
  const chunks = payloads(recording, model);
  chunks.forEach((payload, number) => {
    const counted = new Writer();
    counted.numbers("Uint32", number, 0);
    counted.bytes(payload);
    file.numbers("Uint32", payload.length, crc32(counted.content));
  });
  file.numbers("Uint32", crc32(file.content));
  chunks.forEach((payload) => file.bytes(payload));
  return Uint8Array.from(file.content);
}

/** Little-endian numbers one after another. */
class Writer {
  content = [];

  bytes(bytes) {
    for (const byte of bytes) this.content.push(byte);
  }

  numbers(type, ...numbers) {
    for (const number of numbers) {
      const view = new DataView(new ArrayBuffer(globalThis[`${type}Array`].BYTES_PER_ELEMENT));
      view[`set${type}`](0, number, true);
      this.bytes(new Uint8Array(view.buffer));
    }
  }
}

/** The CRC-32 of zlib, gzip and PNG. */
export function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
