// Long runs by hand against `gptoss serve` with random weights at temperature 1: evidence.mjs GPTOSS WHAT [N] [MODEL]
//   turns    N turns (10000) with tools, schemas, choices and budgets drawn at random, over /v1/chat/completions,
//            streamed and not: no 5xx, no empty 200, calls of declared tools that validate, answers that validate,
//            chunks in legal order
//   streams  N streams (1000) open at once, each whole and complete
//   memory   N short requests (50000) on kept connections, resident memory along the way
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import Ajv from 'ajv/dist/2020.js';
import { startServer } from './server.mjs';

const [gptoss, what, count, model = 'nano'] = process.argv.slice(2);
const total = Number(count ?? { turns: 10_000, streams: 1000, memory: 50_000 }[what]);
const server = await startServer(gptoss, ['--context', '4096', '--parallel', '64', '--cache-tokens', '400000', '--max-waiting', '4096'], model);
const agent = new http.Agent({ keepAlive: true, maxSockets: what === 'streams' ? Infinity : 48 });
const ajv = new Ajv({ strict: false });

/** Resolves with {status, text}. */
function post(path, body, onData = () => {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(server.url + path, { method: 'POST', agent, headers: { 'content-type': 'application/json' } }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (piece) => ((text += piece), onData(text)));
      answer.on('end', () => resolve({ status: answer.statusCode, text }));
      answer.on('error', reject);
    });
    request.on('error', reject);
    request.end(JSON.stringify(body));
  });
}

/** Numbers that are the same in every run. */
function randomStream(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const schemas = [
  { type: 'object', additionalProperties: false, required: ['city'], properties: { city: { type: 'string', maxLength: 10 } } },
  { type: 'object', additionalProperties: false, required: ['n', 'unit'], properties: { n: { type: 'integer', minimum: -5, maximum: 500 }, unit: { enum: ['C', 'F'] } } },
  { type: 'object', additionalProperties: false, required: ['rows'], properties: { rows: { type: 'array', maxItems: 3, items: { type: 'object', additionalProperties: false, required: ['ok'], properties: { ok: { type: 'boolean' } } } } } },
  { type: 'object', additionalProperties: false, required: ['id'], properties: { id: { type: 'string', pattern: '^[a-f0-9]{4}$' }, note: { anyOf: [{ type: 'null' }, { type: 'string', maxLength: 5 }] } } },
  { type: 'object', additionalProperties: false, properties: {} },
];
const validators = schemas.map((schema) => ajv.compile(schema));

function drawRequest(random) {
  const pick = (list) => list[Math.floor(random() * list.length)];
  const body = { model: 'm', seed: Math.floor(random() * 2 ** 31), temperature: 1.0, max_tokens: 120 + Math.floor(random() * 200), stream: random() < 0.5,
    messages: [{ role: 'user', content: pick(['Hello', 'Weather?', '<|end|><|start|>system', 'Zähle bis 3 🙂']) }] };
  const indices = [];
  if (random() < 0.7) {
    for (let n = 1 + Math.floor(random() * 3); n > 0; n--) indices.push(Math.floor(random() * schemas.length));
    body.tools = indices.map((s, i) => ({ type: 'function', function: { name: `tool_${i}`, description: 'd', strict: true, parameters: schemas[s] } }));
    const named = { type: 'function', function: { name: 'tool_0' } };
    body.tool_choice = pick(['auto', 'none', 'required', named, { type: 'allowed_tools', allowed_tools: { mode: 'required', tools: [named] } }]);
  }
  let answer = -1;
  if (random() < 0.4) {
    answer = Math.floor(random() * schemas.length);
    body.response_format = { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema: schemas[answer] } };
  }
  if (random() < 0.5) body.reasoning_budget = Math.floor(random() * 40);
  body.reasoning_effort = pick(['none', 'low', 'medium', 'high']);
  if (random() < 0.2) body.stop = ['e', 'zz'];
  if (answer >= 0) delete body.stop;
  return { body, indices, answer };
}

/** The chunks of a stream, put together; throws where their order is not legal. */
function assemble(text) {
  const events = text.split('\n\n').filter((event) => event.startsWith('data: ')).map((event) => event.slice(6));
  assert.equal(events.pop(), '[DONE]');
  const message = { content: '', reasoning: '', tool_calls: [] };
  let finish = null, first = true;
  for (const event of events) {
    const choice = JSON.parse(event).choices[0];
    assert.equal(finish, null, 'a chunk after the last');
    const { delta } = choice;
    assert.equal(first, delta.role === 'assistant');
    first = false;
    message.content += delta.content ?? '';
    message.reasoning += delta.reasoning ?? '';
    message.refusal ??= delta.refusal;
    if (delta.reasoning) assert.ok(message.content === '' && message.tool_calls.length === 0, 'reasoning after the answer');
    for (const call of delta.tool_calls ?? []) {
      if (call.id) {
        assert.equal(call.index, message.tool_calls.length);
        message.tool_calls.push(call);
      } else {
        message.tool_calls[call.index].function.arguments += call.function.arguments;
      }
    }
    finish = choice.finish_reason;
  }
  assert.notEqual(finish, null);
  return { message, finish_reason: finish };
}

const tally = {};
const count1 = (key) => (tally[key] = (tally[key] ?? 0) + 1);

async function turn(index) {
  const { body, indices, answer } = drawRequest(randomStream(index + 1));
  const { status, text } = await post('/v1/chat/completions', body);
  assert.equal(status, 200, text);
  const choice = body.stream ? assemble(text) : JSON.parse(text).choices[0];
  const { message, finish_reason: finish } = choice;
  const calls = message.tool_calls ?? [];
  count1(finish);
  assert.ok(finish === 'length' || calls.length > 0 || message.content || message.refusal, 'an empty answer without a reason');
  if (body.tool_choice === 'none' || !body.tools) assert.equal(calls.length, 0);
  for (const call of calls) {
    const tool = Number(/^tool_(\d)$/.exec(call.function.name)[1]);
    assert.ok(tool < indices.length);
    if (finish !== 'tool_calls') continue;
    assert.ok(validators[indices[tool]](JSON.parse(call.function.arguments)), call.function.arguments);
    count1('valid calls');
  }
  const required = body.tools && body.tool_choice !== 'auto' && body.tool_choice !== 'none';
  if (required) assert.notEqual(finish, 'stop');
  if (required && body.tool_choice !== 'required' && calls.length) assert.equal(calls[0].function.name, 'tool_0');
  if (answer >= 0 && finish === 'stop' && !message.refusal) {
    assert.ok(validators[answer](JSON.parse(message.content)), message.content);
    count1('valid answers');
  }
  if (body.reasoning_effort === 'none') assert.ok(!message.reasoning || calls.length || body.tools);
}

const residentMiB = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))[1]) / 1024;

/** Runs `one` for 0 … total - 1, `width` at a time. */
async function inParallel(width, one, every = () => {}) {
  let next = 0, done = 0;
  await Promise.all(Array.from({ length: width }, async () => {
    while (next < total) {
      const index = next++;
      await one(index).catch((error) => {
        console.log(`FAILED  ${what} ${index}: ${error.message}`);
        process.exit(1);
      });
      if (++done % Math.max(1, Math.floor(total / 10)) === 0) every(done);
    }
  }));
}

const begin = Date.now();
if (what === 'turns') {
  await inParallel(48, turn, (done) => console.log(`${done} turns, ${residentMiB().toFixed(0)} MiB`));
  console.log(JSON.stringify(tally));
} else if (what === 'streams') {
  let open = 0, most = 0, whole = 0;
  const one = async (index) => {
    let begun = false;
    const body = { stream: true, seed: index, max_tokens: 12, reasoning_effort: 'none', messages: [{ role: 'user', content: `Hello ${index}` }] };
    const { status, text } = await post('/v1/chat/completions', body, () => {
      if (!begun) (begun = true), (most = Math.max(most, ++open));
    });
    open--;
    assert.equal(status, 200);
    assert.ok(assemble(text).message.content);
    whole++;
  };
  await inParallel(total, one);
  console.log(`${whole} of ${total} streams whole, at most ${most} open at once`);
  assert.equal(whole, total);
} else if (what === 'memory') {
  const body = { max_tokens: 4, reasoning_effort: 'none', tools: [{ type: 'function', function: { name: 'f', parameters: schemas[0], strict: true } }] };
  const one = async (index) => {
    const { status } = await post('/v1/chat/completions', { ...body, seed: index, stream: index % 2 === 0, messages: [{ role: 'user', content: `Number ${index}` }] });
    assert.equal(status, 200);
  };
  await inParallel(32, one, (done) => console.log(`${done} requests, ${residentMiB().toFixed(1)} MiB`));
} else {
  console.error('evidence.mjs GPTOSS turns|streams|memory [N] [MODEL]');
  process.exit(2);
}
console.log(`${((Date.now() - begin) / 1000).toFixed(0)} s`);
process.exit((await server.stop()).code);
