// Times the reference: @vladmandic/face-api on the tfjs WebAssembly backend, with all steps per photograph (decoding,
// SSD, landmarks, expressions, age and gender, descriptors). The models are loaded before. Prints for each photograph
// its name and the milliseconds of the second pass (the first pass warms up).
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

(async () => {
  wasm.setWasmPaths(modules('@tensorflow/tfjs-backend-wasm/dist/'), true);
  await tf.setBackend('wasm');
  await tf.ready();
  const nets = ['ssdMobilenetv1', 'faceLandmark68Net', 'faceExpressionNet', 'ageGenderNet', 'faceRecognitionNet'];
  for (const net of nets) {
    await faceapi.nets[net].loadFromDisk(modules('@vladmandic/face-api/model'));
  }
  for (const pass of [1, 2]) {
    for (const file of process.argv.slice(2)) {
      const started = process.hrtime.bigint();
      const pixels = sharp(file).rotate().removeAlpha().toColourspace('srgb').raw();
      const { data, info } = await pixels.toBuffer({ resolveWithObject: true });
      const image = tf.tensor3d(new Uint8Array(data), [info.height, info.width, 3], 'int32');
      await faceapi.detectAllFaces(image, new faceapi.SsdMobilenetv1Options({ minConfidence: 0.5, maxResults: 100 }))
        .withFaceLandmarks().withFaceExpressions().withAgeAndGender().withFaceDescriptors();
      image.dispose();
      if (pass === 2) console.log(path.basename(file), Number(process.hrtime.bigint() - started) / 1e6);
    }
  }
})();
