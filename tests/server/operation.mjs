// What an operator relies on, against a running `gptoss serve`: operation.mjs GPTOSS
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { microModel, runTests, scratchFolder, startServer } from './server.mjs';

const gptoss = process.argv[2];
const folder = scratchFolder();
const micro = microModel(gptoss, folder);
const start = (flags, context = '2048') => startServer(gptoss, [...micro.flags, '--context', context, ...flags], micro.model);
const messages = [{ role: 'user', content: 'a secret question' }];
const post = (server, path, body, headers = {}) =>
  fetch(server.url + path, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } });
const chat = (server, more = {}) => post(server, '/v1/chat/completions', { messages, max_tokens: 24, reasoning_budget: 4, seed: 1, ...more });
const metric = async (server, name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await (await fetch(`${server.url}/metrics`)).text())?.[1]);

await runTests({
  async 'the packaged configuration is accepted, and flags win over it'() {
    const config = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'packaging', 'serve.conf');
    const store = join(folder, 'config.db');
    const server = await start(['--config', config, '--store', store, '--cache-dir', join(folder, 'config-cache')]);
    const { data } = await (await fetch(`${server.url}/v1/models`)).json();
    assert.equal(data[0].id, 'gpt-oss-20b');
    assert.ok(existsSync(store));
    assert.equal(statSync(store).mode & 0o077, 0, 'the store is for its owner only');
    await server.stop();
  },

  async 'a configuration that is wrong names the line'() {
    const config = join(folder, 'wrong.conf');
    for (const [text, wanted] of [['parallel = 4\nno-such-flag = 1\n', /line 2/], ['parallel = many\n', /line 1/], ['parallel\n', /line 1/]]) {
      writeFileSync(config, text);
      await assert.rejects(start(['--config', config]), wanted);
    }
    // A flag may be repeated, and one that is given on the command line wins.
    writeFileSync(config, '# origins\ncors-origin = https://one.example\ncors-origin = https://two.example\nmodel-name = fromfile\n');
    const server = await start(['--config', config, '--model-name', 'fromflag']);
    for (const [origin, status] of [['https://one.example', 200], ['https://two.example', 200], ['https://three.example', 403], ['http://localhost:5173', 200]]) {
      const answer = await fetch(`${server.url}/v1/models`, { headers: { origin } });
      assert.equal(answer.status, status, origin);
      assert.equal(answer.headers.get('access-control-allow-origin'), status === 200 ? origin : null);
      if (status === 200) assert.equal((await answer.json()).data[0].id, 'fromflag');
    }
    await server.stop();
  },

  async 'a unix socket'() {
    const path = join(folder, 'gptoss.sock');
    const server = await start(['--unix-socket', path]);
    const status = await new Promise((resolve, reject) => http.get({ socketPath: path, path: '/v1/models' }, (answer) => resolve(answer.statusCode)).on('error', reject));
    assert.equal(status, 200);
    assert.equal(statSync(path).mode & 0o007, 0, 'for this user and group');
    await server.stop();
    assert.ok(!existsSync(path));
  },

  async 'a full queue answers 429 with Retry-After, and a key has its limits'() {
    const keys = join(folder, 'keys');
    writeFileSync(keys, 'ana secret1\nbob secret2 concurrent=1\n');
    const server = await start(['--parallel', '1', '--max-waiting', '1', '--api-key-file', keys], '131072');
    const abort = new AbortController();
    const as = (key) => ({ authorization: `Bearer ${key}` });
    // Never ends by itself, and takes seconds where the rest of the test takes milliseconds.
    const long = { messages, max_tokens: 100_000, stream: true, logit_bias: Object.fromEntries(micro.ends.map((token) => [token, -100])) };
    const open = (key) => fetch(`${server.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(long), headers: as(key), signal: abort.signal });
    const first = await open('secret2');
    assert.equal(first.status, 200);
    const second = await post(server, '/v1/chat/completions', long, as('secret2'));
    assert.equal(second.status, 429);
    assert.match((await second.json()).error.message, /1 requests open at once/);
    assert.equal((await open('secret1')).status, 200);
    const third = await post(server, '/v1/chat/completions', long, as('secret1'));
    assert.equal(third.status, 429);
    assert.ok(Number(third.headers.get('retry-after')) >= 1);
    assert.match((await third.json()).error.message, /queue/);
    abort.abort();
    await server.stop('SIGKILL');
  },

  async 'the chain of thought can be withheld'() {
    const server = await start(['--withhold-reasoning']);
    // Whether there is any is for chance to say.
    let plain, body;
    for (let seed = 1; seed <= 20 && !(plain?.usage.completion_tokens_details.reasoning_tokens > 0); seed++) {
      body = { messages, max_tokens: 40, reasoning_budget: 8, seed };
      plain = await (await post(server, '/v1/chat/completions', body)).json();
    }
    assert.ok(plain.usage.completion_tokens_details.reasoning_tokens > 0);
    assert.ok(!('reasoning' in plain.choices[0].message) && !('reasoning_content' in plain.choices[0].message));
    const streamed = await (await post(server, '/v1/chat/completions', { ...body, stream: true })).text();
    assert.ok(!streamed.includes('reasoning"') && !streamed.includes('reasoning_content'));
    const response = await (await post(server, '/v1/responses', { input: 'x', max_output_tokens: 40, reasoning_budget: 8, seed: body.seed })).text();
    assert.ok(!response.includes('reasoning_text'));
    const message = await (await post(server, '/v1/messages', { messages, max_tokens: 40, thinking: { type: 'enabled', budget_tokens: 1024 } })).json();
    assert.ok(!message.content.some((block) => block.type === 'thinking' && block.thinking));
    const ollama = await (await post(server, '/api/chat', { messages, think: true, stream: false, options: { num_predict: 40 } })).json();
    assert.ok(!ollama.message.thinking);
    await server.stop();
  },

  async 'logs hold content only where that is asked for'() {
    for (const [flags, wanted] of [[[], false], [['--log-content'], true]]) {
      const log = join(folder, `log-${wanted}`);
      const server = await start([...flags, '--log-file', log]);
      const answer = await chat(server);
      const said = (await answer.json()).choices[0].message;
      await server.stop();
      const text = readFileSync(log, 'utf8');
      const lines = text.trim().split('\n').map((line) => JSON.parse(line));
      const request = lines.find((line) => line.event === 'request');
      assert.equal(request.id, answer.headers.get('x-request-id'));
      assert.equal(request.status, 200);
      assert.equal(text.includes('a secret question'), wanted);
      const items = lines.find((line) => line.event === 'turn_end')?.items;
      assert.equal(items?.some((item) => item.kind === 'answer' && item.text === said.content) ?? false, wanted);
    }
  },

  async 'prefixes outlast the process, and are counted'() {
    const flags = ['--cache-dir', join(folder, 'prefixes')];
    const first = await start(flags);
    assert.equal((await chat(first)).status, 200);
    assert.equal((await chat(first)).status, 200);
    assert.equal(await metric(first, 'gptoss_prompts_total'), 2);
    assert.equal(await metric(first, 'gptoss_cached_prompts_total'), 1);
    assert.ok((await metric(first, 'gptoss_prefix_cache_bytes')) > 0);
    assert.ok((await metric(first, 'gptoss_prefix_cache_prefixes')) > 0);
    assert.deepEqual(await first.stop(), { code: 0, signal: null });
    const second = await start(flags);
    const { usage } = await (await chat(second)).json();
    assert.ok(usage.prompt_tokens_details.cached_tokens > 0);
    assert.ok((await metric(second, 'gptoss_prefix_cache_disk_files')) > 0);
    assert.ok((await metric(second, 'gptoss_prefix_cache_disk_bytes')) > 0);
    assert.equal(await metric(second, 'gptoss_prefix_cache_rejected_files_total'), 0);
    await second.stop();
  },

  async 'what was acknowledged outlives kill -9, within the limits of the store'() {
    const flags = ['--store', join(folder, 'responses.db'), '--store-responses', '3'];
    const first = await start(flags);
    const ids = [];
    for (let i = 0; i < 5; i++) {
      ids.push((await (await post(first, '/v1/responses', { input: `q${i}`, max_output_tokens: 20, reasoning: { effort: 'none' } })).json()).id);
    }
    await first.stop('SIGKILL');
    const second = await start(flags);
    const statuses = [];
    for (const id of ids) statuses.push((await fetch(`${second.url}/v1/responses/${id}`)).status);
    assert.deepEqual(statuses, [404, 404, 200, 200, 200]);
    await second.stop();
  },

  async 'a conversation is compacted, and goes on'() {
    const server = await start([]);
    const compacted = await (await post(server, '/v1/responses/compact', { input: 'a long story', reasoning_budget: 4, max_output_tokens: 60 })).json();
    assert.equal(compacted.object, 'response.compaction', JSON.stringify(compacted));
    assert.deepEqual(compacted.output.map((item) => item.type), ['message', 'compaction']);
    const next = await post(server, '/v1/responses', { input: [...compacted.output, { role: 'user', content: 'go on' }], max_output_tokens: 20 });
    assert.equal(next.status, 200);
    await server.stop();
  },
});
