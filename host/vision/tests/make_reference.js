// Makes reference.json: what @vladmandic/face-api 1.7.15 finds on its own six photographs, run on the tfjs WebAssembly backend with the pixels that
// libjpeg-turbo decodes (by sharp). README.md beside this file has the commands. It is not part of the test run.
const fs = require('fs');
const path = require('path');
const modules = (p) => path.join(process.cwd(), 'node_modules', p);
const nodeFetch = globalThis.fetch; // the backend fetches its own .wasm by file path
globalThis.fetch = async (url, options) => typeof url === 'string' && url.startsWith('/')
  ? new Response(fs.readFileSync(url), { status: 200, headers: { 'content-type': 'application/wasm' } })
  : nodeFetch(url, options);
const sharp = require(modules('sharp'));
const tf = require(modules('@tensorflow/tfjs'));
const wasm = require(modules('@tensorflow/tfjs-backend-wasm'));
const faceapi = require(modules('@vladmandic/face-api/dist/face-api.node-wasm.js'));

// Far finer than the tolerances: 7 significant digits of pixels, years and probabilities, 6 of descriptors.
const round = (digits) => (v) => Number(v.toPrecision(digits));
const seven = round(7);
const corners = (b) => [b.x, b.y, b.width, b.height].map(seven);
const labels = ['neutral', 'happy', 'sad', 'angry', 'fearful', 'disgusted', 'surprised'];

(async () => {
  wasm.setWasmPaths(modules('@tensorflow/tfjs-backend-wasm/dist/'), true);
  await tf.setBackend('wasm');
  await tf.ready();
  for (const net of ['ssdMobilenetv1', 'tinyFaceDetector', 'faceLandmark68Net', 'faceExpressionNet', 'ageGenderNet', 'faceRecognitionNet']) {
    await faceapi.nets[net].loadFromDisk(modules('@vladmandic/face-api/model'));
  }
  const photos = {};
  for (const file of process.argv.slice(2)) {
    const { data, info } = await sharp(file).rotate().removeAlpha().toColourspace('srgb').raw().toBuffer({ resolveWithObject: true });
    const image = tf.tensor3d(new Uint8Array(data), [info.height, info.width, 3], 'int32');
    const faces = await faceapi.detectAllFaces(image, new faceapi.SsdMobilenetv1Options({ minConfidence: 0.5, maxResults: 100 }))
      .withFaceLandmarks().withFaceExpressions().withAgeAndGender().withFaceDescriptors();
    const tiny = await faceapi.detectAllFaces(image, new faceapi.TinyFaceDetectorOptions({ inputSize: 416, scoreThreshold: 0.5 }));
    // What Haar is judged by.
    const likely = await faceapi.detectAllFaces(image, new faceapi.SsdMobilenetv1Options({ minConfidence: 0.3, maxResults: 100 }));
    photos[path.basename(file)] = {
      width: info.width, height: info.height,
      faces: faces.map((f) => ({
        bbox: corners(f.detection.box), score: seven(f.detection.score), landmarks: f.landmarks.positions.map((p) => [seven(p.x), seven(p.y)]),
        age: seven(f.age), female: seven(f.gender === 'female' ? f.genderProbability : 1 - f.genderProbability),
        expressions: labels.map((l) => seven(f.expressions[l])), descriptor: [...f.descriptor].map(round(6)),
      })),
      tiny: tiny.map((d) => ({ bbox: corners(d.box), score: seven(d.score) })),
      likely: likely.map((d) => ({ bbox: corners(d.box), score: seven(d.score) })),
    };
    image.dispose();
  }
  // One line a photograph, so that a change of one can be seen.
  process.stdout.write('{\n' + Object.entries(photos).map(([k, v]) => `"${k}": ${JSON.stringify(v)}`).join(',\n') + '\n}\n');
})();
