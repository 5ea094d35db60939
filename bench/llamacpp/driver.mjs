// One measurement of llama.cpp, through the prebuilt CPU binary of the npm package node-llama-cpp, which picks the best
// instruction set of the machine by itself. The only argument is a JSON object:
//   {"model": FILE, "threads": 2, "prompt": 512, "context": 0, "batch": 1, "gen": 64, "chunk": 512}
// Prints one JSON object: {"load_s", "prefill_tok_s", "decode_tok_s"}, all sequences together.
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const setting = JSON.parse(process.argv[2]);
const clock = () => performance.now() / 1000;

/** Token ids without any pattern, the same in every run. */
function* randomTokens(seed) {
  for (let state = seed >>> 0; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield (state >>> 4) % 199998;
  }
}

function take(source, count) {
  const tokens = [];
  while (tokens.length < count) tokens.push(source.next().value);
  return tokens;
}

const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: setting.threads});
const beforeLoad = clock();
const model = await llama.loadModel({modelPath: setting.model, useMmap: true});
const loadSeconds = clock() - beforeLoad;
const context = await model.createContext({
  contextSize: setting.context + setting.prompt + setting.gen + 64,
  batchSize: setting.chunk,
  threads: setting.threads,
  sequences: setting.batch,
  flashAttention: true,
});
const sequences = Array.from({length: setting.batch}, () => context.getSequence());
const sources = sequences.map((_, i) => randomTokens(100 + i));

// The first pass touches every page of the mapped file, so it is not timed.
await sequences[0].evaluateWithoutGeneratingNewTokens(take(randomTokens(1), 16));
await sequences[0].clearHistory();
if (setting.context > 0) {
  for (const [i, sequence] of sequences.entries()) {
    await sequence.evaluateWithoutGeneratingNewTokens(take(sources[i], setting.context));
  }
}

const beforePrefill = clock();
for (const [i, sequence] of sequences.entries()) {
  await sequence.evaluateWithoutGeneratingNewTokens(take(sources[i], setting.prompt));
}
const prefillSeconds = clock() - beforePrefill;

const outputs = sequences.map((sequence, i) =>
  sequence.evaluate(take(sources[i], 1), {temperature: 0, yieldEogToken: true}),
);
const step = () => Promise.all(outputs.map((output) => output.next()));
await step();
await step();
const beforeDecode = clock();
let made = 0;
for (let i = 0; i < setting.gen; ++i) {
  for (const {done} of await step()) made += done ? 0 : 1;
}
const decodeSeconds = clock() - beforeDecode;

console.log(
  JSON.stringify({
    load_s: loadSeconds,
    prefill_tok_s: (setting.prompt * setting.batch) / prefillSeconds,
    decode_tok_s: made / decodeSeconds,
  }),
);
process.exit(0);
