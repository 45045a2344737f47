/** What test_web_pieces.py, which starts this, found by the library: the page has to find the same. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { guided, meanVector } from "../../web/src/codec.js";
import { followed, levelled } from "../../web/src/loudness.js";
import { codesFile } from "../../web/src/packing.js";
import { PitchQuantizer, bent, betweenFrames, features, meanLogF0 } from "../../web/src/pitch.js";
import { measuredGain, mixed, normalised } from "../../web/src/recording.js";
import { resampled } from "../../web/src/resampling.js";
import { RecordingError, readWav, writeWav } from "../../web/src/wav.js";

const folder = process.env.EXPECTED;
const expected = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));

function fileOf(name) {
  return new Uint8Array(readFileSync(join(folder, name))).buffer;
}

function floats(name) {
  return new Float32Array(fileOf(name));
}

function errorDb(found, wanted) {
  assert.equal(found.length, wanted.length);
  const power = (values) => values.reduce((sum, x) => sum + x * x, 1e-30);
  return 10 * Math.log10(power(wanted.map((x, i) => x - found[i])) / power(wanted));
}

for (const { name, rate, gain } of expected.wavs) {
  test(`${name} is read, its level measured and its offset taken off`, () => {
    const wav = readWav(fileOf(name));
    assert.equal(wav.rate, rate);
    const samples = mixed(wav.channels);
    assert.deepEqual(samples, floats(`${name}.mono`));
    assert.equal(measuredGain(samples, rate), gain);
    const heard = normalised(samples, rate, gain, rate);
    assert.ok(errorDb(heard, floats(`${name}.heard`)) < -120);
  });
}

for (const { name, from, to } of expected.rates) {
  test(`${from} to ${to} Hz as soxr does it`, () => {
    assert.ok(errorDb(resampled(floats(`${name}.in`), from, to), floats(`${name}.out`)) < -80);
  });
}

test("a WAV that is cut short is refused, and what is none is left to the browser", () => {
  const whole = fileOf(expected.wavs[0].name);
  assert.throws(() => readWav(whole.slice(0, whole.byteLength - 100)), RecordingError);
  new DataView(whole).setUint32(40, 0xffffffff, true); // as a program that writes to a pipe does
  assert.deepEqual(readWav(whole).channels[0], floats(`${expected.wavs[0].name}.mono`));
  assert.equal(readWav(new TextEncoder().encode("no recording at all").buffer), null);
  assert.equal(readWav(fileOf("adpcm.wav")), null);
});

test("a WAV that was written is read again, and clipped where it was too loud", () => {
  const { channels, rate } = readWav(writeWav(Float32Array.of(0.5, -0.25, 2, -2), 16000));
  assert.equal(rate, 16000);
  assert.deepEqual([...channels[0]], [0.5, -0.25, 0x7fff / 0x8000, -1]);
});

for (const { name, model, recording } of expected.codes) {
  test(`${name} has the library's bytes`, () => {
    const own = { ...recording, codes: Uint16Array.from(recording.codes) };
    own.symbols = Uint16Array.from(recording.symbols);
    assert.deepEqual(codesFile(own, model), new Uint8Array(fileOf(name)));
  });
}

test("a contour is quantised, moved and told as by the library", () => {
  const { config, hop_length, new_mean } = expected.pitch;
  const frames = floats("frames");
  const contour = betweenFrames(frames, Math.floor((frames.length * 256) / hop_length), hop_length);
  assert.ok(errorDb(contour, floats("contour")) < -120);
  const mean = meanLogF0(contour);
  assert.ok(Math.abs(mean - expected.pitch.mean) < 1e-9);
  const quantizer = new PitchQuantizer(config);
  const symbols = quantizer.encode(contour, mean);
  assert.deepEqual([...symbols], expected.pitch.symbols);
  const told = quantizer.decode(symbols, mean, contour.length);
  assert.ok(errorDb(told, floats("told")) < -120);
  const moved = bent(told, mean, new_mean);
  assert.ok(errorDb(moved, floats("moved")) < -120);
  assert.ok(errorDb(features(moved), floats("features")) < -100);
});

test("nothing voiced has a pitch all the same", () => {
  assert.equal(meanLogF0(new Float32Array(8)), expected.pitch.usual);
});

test("a decoding is as loud as by the library", () => {
  const [decoded, reference] = [floats("decoded"), floats("reference")];
  const { rate, hop_length, gains } = expected.loudness;
  assert.ok(errorDb(followed(decoded, reference, rate, hop_length), floats("followed")) < -120);
  for (const gain of gains) {
    const found = levelled(decoded, rate, hop_length, gain);
    assert.ok(errorDb(found, floats(`levelled.${gain}`)) < -120);
  }
});

test("speaker vectors have the library's mean, and its guidance", () => {
  const { vectors, mean, target, source, beyond } = expected.speakers;
  assert.deepEqual([...meanVector(vectors)], mean);
  assert.ok(errorDb(guided(Float32Array.from(target), source), Float32Array.from(beyond)) < -100);
});
