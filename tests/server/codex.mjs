// Sessions of the Codex CLI against `gptoss serve`: codex.mjs GPTOSS CODEX [SESSIONS]
// CODEX is the program of the npm package @openai/codex. The model is noise: it is made to begin with a call of the tool
// that runs commands, and chooses one of three. Codex runs it in a sandbox that may write nothing and sends back what it
// printed; from then on noise may call any of Codex's tools, and a session ends with its first answer.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { microModel, scratchFolder, startServer } from './server.mjs';

const [gptoss, codex, sessions = '3'] = process.argv.slice(2);
const SESSION_MS = 300_000;
const folder = scratchFolder();
const micro = microModel(gptoss, folder);
const server = await startServer(gptoss, [...micro.flags, '--context', '131072', '--store', join(folder, 'responses.db')], micro.model);

/** Noise never ends by itself, so limits are added to what Codex asks for: the answer's form, the reasoning's length. */
const limits = {
  reasoning_budget: 16,
  text: { format: { type: 'json_schema', name: 'answer', schema: { type: 'object', additionalProperties: false,
    required: ['answer'], properties: { answer: { type: 'string', maxLength: 40 } } } } },
};
const results = new Map(); // of tools, by the id of their call: what Codex sent back
const COMMANDS = ['pwd', 'ls -a', 'echo seen'];
/** What a turn is asked for when it must run a command: that tool, its arguments narrowed to `cmd`. */
function oneCommand(tools) {
  const tool = tools.find(({ name }) => name === 'exec_command');
  assert.ok(tool, `Codex declares ${tools.map(({ name, type }) => name ?? type).join(', ')}`);
  const parameters = { type: 'object', properties: { cmd: { type: 'string', enum: COMMANDS } }, required: ['cmd'], additionalProperties: false };
  return { tools: tools.map((other) => (other === tool ? { ...tool, parameters, strict: true } : other)),
    tool_choice: { type: 'function', name: tool.name } };
}
/** Noise hardly ever calls a tool of its own accord: each session's first turn must. */
function limited(body) {
  const items = Array.isArray(body.input) ? body.input : [];
  const outputs = items.filter((item) => item.type?.endsWith('_call_output'));
  for (const { call_id, output } of outputs) {
    const call = items.find((item) => item.call_id === call_id && !item.type.endsWith('_output'));
    results.set(call_id, { name: call.name, arguments: call.arguments ?? call.input, output: JSON.stringify(output) });
  }
  return { ...body, ...limits, ...(body.tools?.length && outputs.length === 0 ? oneCommand(body.tools) : {}) };
}
const proxy = createServer((request, response) => {
  const parts = [];
  request.on('data', (bytes) => parts.push(bytes));
  request.on('end', async () => {
    const text = Buffer.concat(parts).toString();
    const body = text ? JSON.stringify(limited(JSON.parse(text))) : undefined;
    const answer = await fetch(server.url + request.url, { method: request.method, body, headers: { 'content-type': 'application/json' } });
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') });
    for await (const bytes of answer.body) response.write(bytes);
    response.end();
  });
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));

function session(home, work) {
  writeFileSync(join(home, 'config.toml'), `model = "gpt-oss-20b"
model_provider = "local"
model_context_window = 131072
[model_providers.local]
name = "local"
base_url = "http://127.0.0.1:${proxy.address().port}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
`);
  return new Promise((resolve) => {
    const flags = ['exec', '--json', '--skip-git-repo-check', '--sandbox', 'read-only', 'Look around and say what you see.'];
    const child = spawn(codex, flags, { cwd: work, env: { ...process.env, CODEX_HOME: home }, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '', err = '';
    child.stdout.on('data', (bytes) => (out += bytes));
    child.stderr.on('data', (bytes) => (err += bytes));
    const timer = setTimeout(() => child.kill('SIGKILL'), SESSION_MS);
    child.on('exit', (code) => {
      clearTimeout(timer);
      resolve({ code, err, events: out.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line)) });
    });
  });
}

const describe = (item) => {
  const text = item.command ?? item.message ?? item.text ?? item.tool ?? '';
  return `${item.type} ${JSON.stringify(text.length > 60 ? text.slice(0, 60) + '…' : text)}`;
};

for (let i = 0; i < Number(sessions); i++) {
  // Codex refuses a home below the folder for temporary files.
  const root = join(homedir(), '.cache', `gptoss-codex-${process.pid}-${i}`);
  const [home, work] = [join(root, 'home'), join(root, 'work')];
  process.on('exit', () => rmSync(root, { recursive: true, force: true }));
  mkdirSync(home, { recursive: true });
  mkdirSync(work, { recursive: true });
  const { code, err, events } = await session(home, work);
  const types = events.map((event) => event.type);
  const items = events.filter((event) => event.type === 'item.completed').map((event) => event.item);
  assert.equal(code, 0, err);
  assert.ok(types.includes('turn.completed'), JSON.stringify(events.slice(-3)));
  assert.ok(!types.includes('turn.failed'));
  console.log(`ok      session ${i + 1}: ${items.map(describe).join(', ')}`);
}
const commands = [...results.values()].filter(({ name }) => name === 'exec_command');
assert.ok(commands.length >= Number(sessions), 'each session has run a command');
for (const { name, arguments: given, output } of results.values()) console.log(`        ${name} ${given} gave ${output.slice(0, 200)}`);
console.log(`${sessions} sessions, ${results.size} calls of tools`);
process.exit(0);
