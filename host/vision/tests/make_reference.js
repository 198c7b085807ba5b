// Writes reference.json: the results of @vladmandic/face-api 1.7.15 on its own six photographs. The package runs on the
// tfjs WebAssembly backend, with pixels decoded by libjpeg-turbo (through sharp). README.md in this folder has the
// commands. This script is not part of the test run.
const fs = require('fs');
const path = require('path');
const modules = (p) => path.join(process.cwd(), 'node_modules', p);
// The backend fetches its own .wasm file by path, which Node's fetch does not support.
const nodeFetch = globalThis.fetch;
globalThis.fetch = async (url, options) => typeof url === 'string' && url.startsWith('/')
  ? new Response(fs.readFileSync(url), { status: 200, headers: { 'content-type': 'application/wasm' } })
  : nodeFetch(url, options);
const sharp = require(modules('sharp'));
const tf = require(modules('@tensorflow/tfjs'));
const wasm = require(modules('@tensorflow/tfjs-backend-wasm'));
const faceapi = require(modules('@vladmandic/face-api/dist/face-api.node-wasm.js'));

// Significant digits: 7 for pixels, years and probabilities, 6 for descriptors. That is far finer than the tolerances.
const round = (digits) => (v) => Number(v.toPrecision(digits));
const seven = round(7);
const corners = (b) => [b.x, b.y, b.width, b.height].map(seven);
const labels = ['neutral', 'happy', 'sad', 'angry', 'fearful', 'disgusted', 'surprised'];

(async () => {
  wasm.setWasmPaths(modules('@tensorflow/tfjs-backend-wasm/dist/'), true);
  await tf.setBackend('wasm');
  await tf.ready();
  const nets = ['ssdMobilenetv1', 'tinyFaceDetector', 'faceLandmark68Net', 'faceExpressionNet', 'ageGenderNet',
    'faceRecognitionNet'];
  for (const net of nets) {
    await faceapi.nets[net].loadFromDisk(modules('@vladmandic/face-api/model'));
  }
  const photos = {};
  for (const file of process.argv.slice(2)) {
    const { data, info } = await sharp(file).rotate().removeAlpha().toColourspace('srgb').raw()
      .toBuffer({ resolveWithObject: true });
    const image = tf.tensor3d(new Uint8Array(data), [info.height, info.width, 3], 'int32');
    const ssd = (minConfidence) => new faceapi.SsdMobilenetv1Options({ minConfidence, maxResults: 100 });
    const faces = await faceapi.detectAllFaces(image, ssd(0.5))
      .withFaceLandmarks().withFaceExpressions().withAgeAndGender().withFaceDescriptors();
    const tinyOptions = new faceapi.TinyFaceDetectorOptions({ inputSize: 416, scoreThreshold: 0.5 });
    const tiny = await faceapi.detectAllFaces(image, tinyOptions);
    // The tests compare the Haar detector with these faces.
    const likely = await faceapi.detectAllFaces(image, ssd(0.3));
    photos[path.basename(file)] = {
      width: info.width, height: info.height,
      faces: faces.map((f) => ({
        bbox: corners(f.detection.box), score: seven(f.detection.score),
        landmarks: f.landmarks.positions.map((p) => [seven(p.x), seven(p.y)]),
        age: seven(f.age), female: seven(f.gender === 'female' ? f.genderProbability : 1 - f.genderProbability),
        expressions: labels.map((l) => seven(f.expressions[l])), descriptor: [...f.descriptor].map(round(6)),
      })),
      tiny: tiny.map((d) => ({ bbox: corners(d.box), score: seven(d.score) })),
      likely: likely.map((d) => ({ bbox: corners(d.box), score: seven(d.score) })),
    };
    image.dispose();
  }
  // One line for each photograph, so that a diff shows which photograph changed.
  const lines = Object.entries(photos).map(([k, v]) => `"${k}": ${JSON.stringify(v)}`);
  process.stdout.write('{\n' + lines.join(',\n') + '\n}\n');
})();
