// Chat completions through the npm packages openai, ai (with its OpenAI-compatible provider) and @openai/agents, and
// what a server must bear: chat.mjs GPTOSS
import assert from 'node:assert/strict';
import net from 'node:net';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Agent, OpenAIChatCompletionsModel, run, tool as agentTool } from '@openai/agents';
import { generateText, jsonSchema, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';
import { microModel, runTests, scratchFolder, startServer } from './server.mjs';

process.env.OPENAI_AGENTS_DISABLE_TRACING = '1';
const gptoss = process.argv[2];
const server = await startServer(gptoss, ['--max-body-mib', '1']);
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 120_000 });
const model = 'nano';
const messages = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Hello' }];
const schema = { type: 'object', additionalProperties: false, required: ['city'], properties: { city: { type: 'string', maxLength: 12 } } };
const tools = [{ type: 'function', function: { name: 'get_weather', description: 'Weather', strict: true, parameters: schema } }];
const forced = { type: 'function', function: { name: 'get_weather' } };

/** A raw request; resolves with all bytes that came until the connection ended. */
function raw(text, { close = false } = {}) {
  const { hostname, port } = new URL(server.url);
  return new Promise((resolve) => {
    let out = '';
    const socket = net.connect(Number(port), hostname, () => (close ? socket.end(text) : socket.write(text)));
    socket.setTimeout(20_000, () => socket.destroy());
    socket.on('data', (bytes) => (out += bytes));
    socket.on('close', () => resolve(out));
    socket.on('error', () => {});
  });
}
const post = (path, body) => fetch(server.url + path, { method: 'POST', body, headers: { 'content-type': 'application/json' } });

await runTests({
  async 'an answer has text or a reason, and usage'() {
    const c = await client.chat.completions.create({ model, messages, max_tokens: 32, seed: 1 });
    assert.equal(c.object, 'chat.completion');
    assert.equal(c.choices[0].message.role, 'assistant');
    assert.ok(['stop', 'length'].includes(c.choices[0].finish_reason));
    assert.ok(c.usage.completion_tokens > 0 && c.usage.completion_tokens <= 32);
    const again = await client.chat.completions.create({ model: 'another name', messages, max_tokens: 32, seed: 1 });
    assert.deepEqual(again.choices, c.choices);
  },

  async 'a stream adds up to the answer that is not streamed'() {
    for (let seed = 0; seed < 4; seed++) {
      const request = { model, messages, max_tokens: 40, seed, logprobs: true, top_logprobs: 2, reasoning_effort: seed % 2 ? 'none' : 'low' };
      const whole = await client.chat.completions.create(request);
      let content = '', reasoning = '', finish, usage;
      for await (const chunk of await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } })) {
        if (chunk.choices.length === 0) usage = chunk.usage;
        content += chunk.choices[0]?.delta.content ?? '';
        reasoning += chunk.choices[0]?.delta.reasoning ?? '';
        finish = chunk.choices[0]?.finish_reason ?? finish;
      }
      const message = whole.choices[0].message;
      assert.equal(content, message.content);
      assert.equal(reasoning, message.reasoning ?? '');
      assert.equal(message.reasoning, message.reasoning_content);
      assert.equal(finish, whole.choices[0].finish_reason);
      assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
      if (seed % 2) assert.ok(content.length > 0 && !reasoning && whole.choices[0].logprobs.content.length > 0);
    }
  },

  async 'n choices differ, the first is that of n = 1'() {
    const request = { model, messages, max_tokens: 24, seed: 5, reasoning_effort: 'none', temperature: 2 };
    const one = await client.chat.completions.create(request);
    const three = await client.chat.completions.create({ ...request, n: 3 });
    assert.equal(three.choices.length, 3);
    assert.equal(three.choices[0].message.content, one.choices[0].message.content);
    assert.notEqual(three.choices[1].message.content, three.choices[0].message.content);
  },

  async 'a forced call streams its name first and validates; its result goes on'() {
    const runner = client.chat.completions.stream({ model, messages, tools, tool_choice: forced, max_tokens: 300, seed: 2, reasoning_budget: 16 });
    let named = false;
    runner.on('chunk', (chunk) => {
      const call = chunk.choices[0]?.delta.tool_calls?.[0];
      if (call && !named) assert.equal(call.function.name, 'get_weather');
      named ||= Boolean(call);
    });
    const completion = await runner.finalChatCompletion();
    const { message, finish_reason } = completion.choices[0];
    assert.equal(finish_reason, 'tool_calls');
    assert.equal(message.content, null);
    assert.equal(typeof JSON.parse(message.tool_calls[0].function.arguments).city, 'string');
    const next = await client.chat.completions.create({ model, tools, tool_choice: 'none', max_tokens: 24, seed: 2,
      messages: [...messages, message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: 'sunny' }] });
    assert.equal(next.choices[0].message.tool_calls, undefined);
  },

  async 'answers keep to schemas and stop sequences'() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 300, seed: 4, reasoning_effort: 'none',
      response_format: { type: 'json_schema', json_schema: { name: 'place', strict: true, schema } } });
    assert.equal(answer.choices[0].finish_reason, 'stop');
    assert.ok(JSON.parse(answer.choices[0].message.content).city.length <= 12);
    const stopped = await client.chat.completions.create({ model, messages, max_tokens: 400, seed: 3, reasoning_effort: 'none', stop: ['e'] });
    assert.equal(stopped.choices[0].finish_reason, 'stop');
    assert.ok(!stopped.choices[0].message.content.includes('e'));
  },

  async 'completions, models, tokens'() {
    const c = await client.completions.create({ model, prompt: 'Once upon', max_tokens: 8, logprobs: 1, echo: true, seed: 1 });
    assert.ok(c.choices[0].text.startsWith('Once upon'));
    assert.ok(c.choices[0].logprobs.tokens.length > 0);
    assert.equal((await client.models.list()).data[0].id, 'nano');
    await assert.rejects(client.embeddings.create({ model, input: 'x' }), /no embeddings/);
    const { tokens } = await (await post('/tokenize', JSON.stringify({ prompt: 'a <|end|>' }))).json();
    assert.equal((await (await post('/detokenize', JSON.stringify({ tokens }))).json()).prompt, 'a <|end|>');
  },

  async 'ai: text, stream and tools'() {
    const provider = createOpenAICompatible({ name: 'gptoss', baseURL: `${server.url}/v1`, includeUsage: true });
    const chat = provider(model);
    const text = await generateText({ model: chat, prompt: 'Hello', maxOutputTokens: 32, seed: 1, maxRetries: 0 });
    assert.ok(text.usage.outputTokens > 0);
    const stream = streamText({ model: chat, prompt: 'Hello', maxOutputTokens: 32, seed: 1, maxRetries: 0 });
    let streamed = '';
    for await (const part of stream.textStream) streamed += part;
    assert.equal(streamed, text.text);
    assert.equal(await stream.reasoningText, text.reasoningText);
    let asked;
    const called = await generateText({ model: chat, prompt: 'Hello', maxOutputTokens: 300, seed: 2, maxRetries: 0, toolChoice: 'required',
      tools: { get_weather: tool({ description: 'Weather', strict: true, inputSchema: jsonSchema(schema), execute: async (input) => ((asked = input), 'sunny') }) } });
    assert.equal(called.toolCalls[0].toolName, 'get_weather');
    assert.ok(asked !== undefined);
  },

  async '@openai/agents: turns with tools over chat completions'() {
    let calls = 0;
    const weather = agentTool({ name: 'get_weather', description: 'Weather', parameters: z.object({ city: z.string().max(12) }),
      execute: async () => (calls++, 'sunny') });
    const agent = new Agent({ name: 'agent', instructions: 'Be brief.', model: new OpenAIChatCompletionsModel(client, model), tools: [weather],
      modelSettings: { toolChoice: 'required', maxTokens: 300, providerData: { seed: 7, reasoning_budget: 8 } }, resetToolChoice: true });
    const result = await run(agent, 'Hello', { maxTurns: 6 }).catch((error) => error);
    assert.ok(calls >= 1);
    if (result instanceof Error) assert.match(result.constructor.name, /MaxTurns/);
  },

  async 'nano reasons, asks for the weather, and says what it was told'() {
    const sum = await client.chat.completions.create({ model, messages: [{ role: 'user', content: 'What is 12 + 30?' }], temperature: 0 });
    assert.equal(sum.choices[0].message.content, '42');
    const asked = [];
    const weather = agentTool({ name: 'get_current_weather', description: 'Get the current weather in a given location',
      parameters: z.object({ location: z.string().describe('Name of the city') }),
      execute: async ({ location }) => (asked.push(location), JSON.stringify({ temperature: 21, condition: 'sunny' })) });
    const agent = new Agent({ name: 'agent', instructions: '', model: new OpenAIChatCompletionsModel(client, model), tools: [weather], modelSettings: { temperature: 0 } });
    const { finalOutput } = await run(agent, 'What is the weather like in Lisbon now?');
    assert.deepEqual(asked, ['Lisbon']);
    assert.match(finalOutput, /21/);
  },

  async 'errors have their shape, and the server lives'() {
    for (const [path, body, status] of [['/v1/chat/completions', '{', 400], ['/v1/chat/completions', '{}', 400], ['/v1/chat/completions', '[]', 400],
      ['/v1/chat/completions', `{"messages":${'['.repeat(500)}${']'.repeat(500)}}`, 400], ['/v1/chat/completions', '{"messages":[{"role":"user","content":"\xff\\ud800"}]}', 400],
      ['/v1/chat/completions', 'x'.repeat(2 << 20), 413], ['/v1/absent', '{}', 404]]) {
      const answer = await post(path, body);
      assert.equal(answer.status, status, `${path} ${body.slice(0, 60)}`);
      const { error } = await answer.json();
      assert.equal(typeof error.message, 'string');
    }
    await assert.rejects(client.chat.completions.create({ model, messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] }), OpenAI.BadRequestError);
    await assert.rejects(client.chat.completions.create({ model, messages: [{ role: 'user', content: 'x '.repeat(200_000) }] }), { code: 'context_length_exceeded' });
    assert.match(await raw('GET / HTTP/1.1\r\n' + 'x'.repeat(70_000)), /^HTTP\/1.1 4/);
    assert.match(await raw('\x16\x03\x01\x02\x00\x01\x00\r\n\r\n'), /^HTTP\/1.1 400/);
    assert.equal((await fetch(`${server.url}/health`)).status, 200);
  },

  async 'clients that leave or do not read cost nothing'() {
    const micro = microModel(gptoss, scratchFolder()); // which does not end by itself
    const noise = await startServer(gptoss, micro.flags, micro.model);
    const noisy = new OpenAI({ baseURL: `${noise.url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 120_000 });
    const gone = [];
    for (let i = 0; i < 8; i++) {
      const abort = new AbortController();
      gone.push(noisy.chat.completions.create({ model, messages, max_tokens: 20_000, stream: true }, { signal: abort.signal })
        .then(async (stream) => { for await (const _ of stream) abort.abort(); }).catch(() => {}));
    }
    await Promise.all(gone);
    const half = net.connect(Number(new URL(noise.url).port), '127.0.0.1');
    half.on('error', () => {});
    half.write('POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{');
    for (let i = 0; i < 100; i++) {
      const text = await (await fetch(`${noise.url}/metrics`)).text();
      if (/gptoss_running_requests 0\n/.test(text) && /gptoss_waiting_requests 0\n/.test(text)) break;
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.notEqual(i, 99, 'requests of clients that left still run');
    }
    half.destroy();
    await noise.stop();
  },

  async 'metrics and description'() {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    assert.match(text, /gptoss_http_requests_total\{route="\/v1\/chat\/completions",status="200"\} \d+/);
    assert.match(text, /gptoss_output_tokens_total [1-9]/);
    const api = await (await fetch(`${server.url}/openapi.json`)).json();
    assert.ok(api.paths['/v1/chat/completions'].post && api.paths['/v1/models'].get);
  },

  async 'keys, their limits, a unix socket, and SIGHUP'() {
    const folder = scratchFolder();
    const keys = join(folder, 'keys');
    writeFileSync(keys, 'ana secret1\n');
    const locked = await startServer(gptoss, ['--api-key-file', keys, '--context', '4096']);
    const status = async (key) => (await fetch(`${locked.url}/v1/models`, { headers: key ? { authorization: `Bearer ${key}` } : {} })).status;
    assert.deepEqual([await status(), await status('wrong'), await status('secret1')], [401, 401, 200]);
    assert.equal((await fetch(`${locked.url}/health`)).status, 200);
    writeFileSync(keys, 'bob secret2 requests_per_minute=1\n');
    process.kill(locked.pid, 'SIGHUP');
    for (let i = 0; i < 50 && (await status('secret1')) === 200; i++) await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual([await status('secret1'), await status('secret2'), await status('secret2')], [401, 200, 429]);
    assert.deepEqual(await locked.stop(), { code: 0, signal: null });
  },

  async 'SIGTERM lets the answer under way end'() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 200, stream: true, seed: 1 });
    let finish, ended;
    for await (const chunk of stream) {
      ended ??= server.stop();
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    assert.ok(['stop', 'length'].includes(finish));
    assert.deepEqual(await ended, { code: 0, signal: null });
  },
});
