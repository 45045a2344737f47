/** Waveform and spectrogram of a recording, one over the other. */

const N_FFT = 512;
const RANGE_DB = 70;
const WAVE_SHARE = 0.3; // of the height
const LABEL_ROOM = 14; // pixels below

/**
 * Draw.
 *
 * @param {HTMLCanvasElement} canvas in whose CSS colour it is drawn
 * @param {Float32Array} samples
 * @param {number} rate in Hz
 */
export function draw(canvas, samples, rate) {
  const scale = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  const context = canvas.getContext("2d");
  const room = Math.round(LABEL_ROOM * scale);
  const top = Math.round((canvas.height - room) * WAVE_SHARE);
  const colour = getComputedStyle(canvas).color;
  drawWave(context, samples, { width: canvas.width, height: top }, colour);
  const size = { width: canvas.width, height: canvas.height - room - top };
  context.putImageData(spectrogram(context, samples, size, colour), 0, top);
  context.fillStyle = getComputedStyle(document.body).color;
  context.font = `${11 * scale}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  context.fillText("0 s", 0, canvas.height);
  context.textAlign = "right";
  context.fillText(`${(samples.length / rate).toFixed(2)} s`, canvas.width, canvas.height);
}

function drawWave(context, samples, { width, height }, colour) {
  context.fillStyle = colour;
  const middle = height / 2;
  const loudest = samples.reduce((peak, x) => Math.max(peak, Math.abs(x)), 1e-9);
  for (let x = 0; x < width; x++) {
    let [low, high] = [Infinity, -Infinity];
    const end = Math.max(((x + 1) * samples.length) / width, (x * samples.length) / width + 1);
    for (let i = Math.floor((x * samples.length) / width); i < end && i < samples.length; i++) {
      [low, high] = [Math.min(low, samples[i]), Math.max(high, samples[i])];
    }
    const reach = (height - 4) / 2 / loudest;
    context.fillRect(x, middle - high * reach, 1, Math.max((high - low) * reach, 1));
  }
}

/** From clear to the colour, as ink on paper, low frequencies below. */
function spectrogram(context, samples, { width, height }, colour) {
  const image = context.createImageData(width, height);
  const window = Float64Array.from(
    { length: N_FFT },
    (_, i) => Math.sin((Math.PI * i) / N_FFT) ** 2,
  );
  const levels = [];
  let loudest = -Infinity;
  for (let x = 0; x < width; x++) {
    const start = Math.round(((x + 0.5) * samples.length) / width) - N_FFT / 2;
    const frame = window.map((weight, i) => weight * (samples[start + i] ?? 0));
    levels.push(powers(frame).map((power) => 10 * Math.log10(power + 1e-10)));
    loudest = levels[x].reduce((most, level) => Math.max(most, level), loudest);
  }
  const [red, green, blue] = colour.match(/[\d.]+/g).map(Number);
  for (let y = 0; y < height; y++) {
    const bin = Math.floor(((height - y - 0.5) / height) * (N_FFT / 2));
    for (let x = 0; x < width; x++) {
      const shade = Math.min(Math.max((levels[x][bin] - loudest) / RANGE_DB + 1, 0), 1);
      image.data.set([red, green, blue, 255 * shade], 4 * (y * width + x));
    }
  }
  return image;
}

/** Squared magnitudes of the lower half of a Fourier transform (Cooley and Tukey 1965). */
function powers(frame) {
  const [real, imaginary] = transformed(frame, new Float64Array(frame.length));
  return real.subarray(0, frame.length / 2).map((x, k) => x * x + imaginary[k] ** 2);
}

function transformed(real, imaginary) {
  const n = real.length;
  if (n === 1) return [real, imaginary];
  const half = (offset) =>
    transformed(
      real.filter((_, i) => i % 2 === offset),
      imaginary.filter((_, i) => i % 2 === offset),
    );
  const [[evenReal, evenImaginary], [oddReal, oddImaginary]] = [half(0), half(1)];
  const [outReal, outImaginary] = [new Float64Array(n), new Float64Array(n)];
  for (let k = 0; k < n / 2; k++) {
    const [cosine, sine] = [Math.cos((2 * Math.PI * k) / n), Math.sin((2 * Math.PI * k) / n)];
    const turnedReal = cosine * oddReal[k] + sine * oddImaginary[k];
    const turnedImaginary = cosine * oddImaginary[k] - sine * oddReal[k];
    outReal[k] = evenReal[k] + turnedReal;
    outImaginary[k] = evenImaginary[k] + turnedImaginary;
    outReal[k + n / 2] = evenReal[k] - turnedReal;
    outImaginary[k + n / 2] = evenImaginary[k] - turnedImaginary;
  }
  return [outReal, outImaginary];
}
