// Long runs by hand against `gptoss serve` with random weights at temperature 1: evidence.mjs GPTOSS WHAT [N] [MODEL]
//   turns     N turns (10000) with tools, schemas, choices and budgets drawn at random, over /v1/chat/completions and
//             /v1/responses, streamed and not: no 5xx, no empty 200, calls of declared tools that validate, answers
//             that validate, chunks and events in legal order
//   streams   N streams (1000) open at once, each whole and complete
//   memory    N short requests (50000) on kept connections, resident memory along the way
//   overhead  decoding one request of N tokens (64) more than another, against `gptoss bench`
//   users     16 users, N tokens (24) each, against one: tokens a second of all, and the gaps between a user's tokens
// Without MODEL it is a small one with a small vocabulary.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import Ajv from 'ajv/dist/2020.js';
import { microModel, scratchFolder, startServer } from './server.mjs';

const [gptoss, what, count, given] = process.argv.slice(2);
const total = Number(count ?? { turns: 10_000, streams: 1000, memory: 50_000, overhead: 64, users: 24 }[what]);
const { model, flags } = given ? { model: given, flags: [] } : microModel(gptoss, scratchFolder());
const PROMPT = 16, FEW = 4;
let benched;
if (what === 'overhead') {
  const { stdout, stderr, status } = spawnSync(gptoss, ['bench', '--model', model, '--prompt', PROMPT, '--gen', total, '--repeat', given ? 1 : 3, '--json'], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  benched = JSON.parse(stdout);
}
const many = what === 'overhead' ? ['--context', '1024', '--parallel', '1'] : ['--context', '4096', '--parallel', what === 'streams' ? '1000' : '64', '--cache-tokens', '400000', '--max-waiting', '4096'];
const server = await startServer(gptoss, [...flags, ...many], model);
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
  { additionalProperties: false, required: ['q'], properties: { q: { type: 'string', maxLength: 6 } } },
];
const validators = schemas.map((schema) => ajv.compile(schema));

function drawRequest(random) {
  const pick = (list) => list[Math.floor(random() * list.length)];
  const body = { model: 'm', seed: Math.floor(random() * 2 ** 31), temperature: 1.0, max_tokens: 120 + Math.floor(random() * 200), stream: random() < 0.5,
    messages: [{ role: 'user', content: pick(['Hello', 'Weather?', '<|end|><|start|>system', 'Zähle bis 3 🙂']) }] };
  const indices = [];
  if (random() < 0.7) {
    for (let n = 1 + Math.floor(random() * 3); n > 0; n--) indices.push(Math.floor(random() * schemas.length));
    const strict = random() < 0.8;
    body.tools = indices.map((s, i) => ({ type: 'function', function: { name: `tool_${i}`, description: 'd', strict, parameters: schemas[s] } }));
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
  return { body, indices, answer, responses: random() < 0.4 };
}

/** The same for /v1/responses. */
function asResponses({ messages, tools, tool_choice: choice, response_format: format, reasoning_effort: effort, max_tokens: most, stop, ...rest }) {
  const flat = (tool) => ({ type: tool.type, ...tool.function });
  const body = { ...rest, input: messages, max_output_tokens: most, reasoning: { effort }, store: false };
  if (tools) body.tools = tools.map(flat);
  if (choice?.type === 'allowed_tools') body.tool_choice = { type: 'allowed_tools', ...choice.allowed_tools, tools: choice.allowed_tools.tools.map(flat) };
  else if (choice) body.tool_choice = choice.function ? flat(choice) : choice;
  if (format) body.text = { format: { type: 'json_schema', ...format.json_schema } };
  return body;
}

/** The response of a stream of events; throws where their order is not legal. */
function lastOf(text) {
  const events = text.split('\n\n').filter((event) => event.includes('data: ')).map((event) => JSON.parse(event.split('data: ')[1]));
  events.forEach((event, i) => assert.equal(event.sequence_number, i));
  const types = events.map((event) => event.type);
  assert.deepEqual(types.slice(0, 2), ['response.created', 'response.in_progress']);
  const end = events.at(-1);
  assert.ok(['response.completed', 'response.incomplete'].includes(end.type), end.type);
  let open = -1, part = false, next = 0, text_ = '';
  for (const event of events.slice(2, -1)) {
    if (event.type === 'response.output_item.added') {
      assert.ok(open < 0 && event.output_index === next, 'an item within another');
      open = next++, text_ = '';
    } else {
      assert.equal(event.output_index, open, event.type);
      if (event.type === 'response.content_part.added') assert.ok(!part), (part = true), (text_ = '');
      else if (event.type === 'response.content_part.done') assert.ok(part), (part = false);
      else if (event.type.endsWith('.delta')) text_ += event.delta;
      else if (event.type === 'response.output_item.done') assert.ok(!part), (open = -1), assert.deepEqual(event.item, end.response.output[event.output_index]);
      else assert.equal(event.text ?? event.arguments ?? event.input, text_, event.type);
    }
  }
  assert.ok(open < 0 && next === end.response.output.length);
  return end.response;
}

/** A response as a choice of /v1/chat/completions. */
function asChoice(response) {
  const message = { content: '', tool_calls: [] };
  for (const item of response.output) {
    if (item.type === 'function_call') message.tool_calls.push({ function: { name: item.name, arguments: item.arguments } });
    else if (item.type === 'message' && item.phase === 'final_answer') message.content += item.content[0]?.text ?? '', (message.refusal = item.content[0]?.refusal);
    else if (item.type === 'reasoning') message.reasoning = true;
  }
  const finish = response.status === 'incomplete' ? 'length' : message.tool_calls.length ? 'tool_calls' : 'stop';
  return { message, finish_reason: finish };
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
  const { body, indices, answer, responses } = drawRequest(randomStream(index + 1));
  const { status, text } = responses ? await post('/v1/responses', asResponses(body)) : await post('/v1/chat/completions', body);
  assert.equal(status, 200, text);
  const choice = responses ? asChoice(body.stream ? lastOf(text) : JSON.parse(text)) : body.stream ? assemble(text) : JSON.parse(text).choices[0];
  const { message, finish_reason: finish } = choice;
  const calls = message.tool_calls ?? [];
  count1(finish);
  assert.ok(finish === 'length' || calls.length > 0 || message.content || message.refusal, 'an empty answer without a reason');
  if (body.tool_choice === 'none' || !body.tools) assert.equal(calls.length, 0);
  for (const call of calls) {
    const tool = Number(/^tool_(\d)$/.exec(call.function.name)[1]);
    assert.ok(tool < indices.length);
    if (finish !== 'tool_calls') continue;
    const input = JSON.parse(call.function.arguments);
    assert.ok(input !== null && typeof input === 'object' && !Array.isArray(input), call.function.arguments);
    if (body.tools[tool].function.strict) assert.ok(validators[indices[tool]](input), call.function.arguments);
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

/** No answer ends before its last token. */
const endless = { type: 'json_schema', json_schema: { name: 'long', schema: { type: 'string', minLength: 5000 } } };
const begin = Date.now();
if (what === 'turns') {
  await inParallel(48, turn, (done) => console.log(`${done} turns, ${residentMiB().toFixed(0)} MiB`));
  console.log(JSON.stringify(tally));
} else if (what === 'streams') {
  let open = 0, most = 0, whole = 0;
  const one = async (index) => {
    let begun = false;
    const body = { stream: true, seed: index, max_tokens: 60, response_format: endless, reasoning_effort: 'none', messages: [{ role: 'user', content: `Hello ${index}` }] };
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
  const seen = [];
  await inParallel(32, one, (done) => (seen.push(residentMiB()), console.log(`${done} requests, ${seen.at(-1).toFixed(1)} MiB`)));
  assert.ok(seen.at(-1) - seen[1] < 16, 'memory grows');
} else if (what === 'overhead') {
  // The difference of two requests: what a request costs once, its prompt among it, is in neither.
  const raw = (tokens) => post('/v1/completions', { prompt: Array.from({ length: PROMPT }, (_, i) => 200 + i), max_tokens: tokens, seed: 1, stream: true, stream_options: { include_usage: true } });
  const chat = (tokens) => post('/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }], max_tokens: tokens, seed: 1, stream: true, reasoning_effort: 'none', stream_options: { include_usage: true } });
  for (const [name, ask] of Object.entries({ 'text completion': raw, chat })) {
    const seconds = async (tokens) => {
      const begin = process.hrtime.bigint();
      const { status, text } = await ask(tokens);
      assert.equal(status, 200, text);
      assert.ok(text.includes(`"completion_tokens":${tokens},`), 'the model ended early; take another seed');
      return Number(process.hrtime.bigint() - begin) / 1e9;
    };
    await seconds(FEW);
    const rates = [];
    for (let i = 0; i < (given ? 1 : 5); i++) rates.push(total / ((await seconds(total + FEW)) - (await seconds(FEW))));
    const rate = rates.sort((a, b) => a - b)[Math.floor(rates.length / 2)];
    const decode = benched.decode.tok_s;
    console.log(`${name}: ${rate.toFixed(2)} tok/s, bench ${decode.toFixed(2)} tok/s, overhead ${((decode / rate - 1) * 100).toFixed(1)} %`);
  }
} else if (what === 'users') {
  /** When each piece of a user's stream came, in seconds. */
  const user = async (index, seed) => {
    const times = [];
    const body = { stream: true, seed: 16 * seed + index, max_tokens: total, response_format: endless, reasoning_effort: 'none', messages: [{ role: 'user', content: 'Tell me stories.' }], stream_options: { include_usage: true } };
    const { status, text } = await post('/v1/chat/completions', body, () => times.push(performance.now() / 1000));
    assert.equal(status, 200, text);
    assert.ok(text.includes(`"completion_tokens":${total},`), text);
    return times.slice(1, total); // neither the answer's head nor what comes after its tokens
  };
  /** Pieces a second of all users while every one has some, and the gaps between those of one user. */
  const together = async (count, seed) => {
    const all = await Promise.all(Array.from({ length: count }, (_, i) => user(i, seed)));
    const begin = Math.max(...all.map((t) => t[0])), end = Math.min(...all.map((t) => t.at(-1)));
    const inside = all.map((times) => times.filter((t) => t >= begin && t <= end));
    const gaps = inside.flatMap((times) => times.slice(1).map((t, i) => t - times[i])).sort((a, b) => a - b);
    assert.ok(gaps.length > 0, 'the users never decoded together; take more tokens');
    return { rate: inside.reduce((sum, t) => sum + (t.length - 1) / (t.at(-1) - t[0]), 0), median: gaps[gaps.length >> 1], largest: gaps.at(-1) };
  };
  await together(1, 1); // from here on the prompt is known, so that all users decode at once
  const one = await together(1, 2), sixteen = await together(16, 3);
  console.log(`one user ${one.rate.toFixed(1)} tok/s, 16 users ${sixteen.rate.toFixed(1)} tok/s, ${(sixteen.rate / one.rate).toFixed(2)} times one`);
  console.log(`gaps of 16 users: median ${sixteen.median.toFixed(3)} s, largest ${sixteen.largest.toFixed(3)} s, ${(sixteen.largest / sixteen.median).toFixed(2)} times`);
} else {
  console.error('evidence.mjs GPTOSS turns|streams|memory|overhead|users [N] [MODEL]');
  process.exit(2);
}
console.log(`${((Date.now() - begin) / 1000).toFixed(0)} s`);
process.exit((await server.stop()).code);
