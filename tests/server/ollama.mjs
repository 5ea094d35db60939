// Ollama's API through the npm package ollama: ollama.mjs GPTOSS
import assert from 'node:assert/strict';
import { Ollama } from 'ollama';
import { runTests, startServer } from './server.mjs';

const server = await startServer(process.argv[2]);
const client = new Ollama({ host: server.url });
const model = 'nano';
const messages = [{ role: 'user', content: 'Hello' }];
const options = { num_predict: 48, seed: 1 };

await runTests({
  async 'chat, whole and streamed, with the same words for the same seed'() {
    const whole = await client.chat({ model, messages, options });
    assert.equal(whole.done, true);
    assert.ok(['stop', 'length'].includes(whole.done_reason));
    assert.ok(whole.eval_count > 0 && whole.eval_count <= 48 && whole.eval_duration > 0);
    let content = '', thinking = '', last;
    for await (const part of await client.chat({ model, messages, options, stream: true })) {
      content += part.message.content;
      thinking += part.message.thinking ?? '';
      last = part;
    }
    assert.equal(last.done, true);
    assert.equal(content, whole.message.content);
    assert.equal(thinking, whole.message.thinking ?? '');
  },

  async 'think false closes the reasoning'() {
    for (let seed = 0; seed < 4; seed++) {
      const r = await client.chat({ model, messages, think: false, options: { ...options, seed } });
      assert.ok(!r.message.thinking);
      assert.ok(r.message.content.length > 0);
    }
  },

  async 'formats are kept'() {
    const format = { type: 'object', required: ['n'], additionalProperties: false, properties: { n: { type: 'integer', minimum: 0, maximum: 9 } } };
    const r = await client.chat({ model, messages, format, think: false, options: { seed: 3, num_predict: 400 } });
    const value = JSON.parse(r.message.content);
    assert.ok(Number.isInteger(value.n) && value.n >= 0 && value.n <= 9);
  },

  async 'calls are objects and their results go on'() {
    const tools = [{ type: 'function', function: { name: 'get_current_weather', description: 'Get the current weather in a given location',
      parameters: { type: 'object', properties: { location: { type: 'string', description: 'Name of the city' } }, required: ['location'] } } }];
    const asked = [{ role: 'user', content: 'What is the weather like in Lisbon now?' }];
    const r = await client.chat({ model, messages: asked, tools, options: { temperature: 0 } });
    assert.deepEqual(r.message.tool_calls.map(({ function: { name, arguments: given } }) => [name, given]), [['get_current_weather', { location: 'Lisbon' }]]);
    const result = { role: 'tool', tool_name: 'get_current_weather', content: '{"temperature":21,"condition":"sunny"}' };
    const next = await client.chat({ model, tools, messages: [...asked, r.message, result], options: { temperature: 0 } });
    assert.match(next.message.content, /21/);
  },

  async 'generate, and what the model is'() {
    const g = await client.generate({ model, prompt: 'Hello', system: 'Be brief.', options });
    assert.equal(typeof g.response, 'string');
    const raw = await client.generate({ model, prompt: 'Once upon', raw: true, options });
    assert.ok(raw.response.length > 0);
    const { models } = await client.list();
    assert.equal(models.length, 1);
    const shown = await client.show({ model });
    assert.ok(shown.capabilities.includes('tools') && shown.model_info['gptoss.context_length'] > 0);
    assert.equal((await client.ps()).models[0].model, models[0].model);
    assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
  },

  async 'errors are sentences'() {
    await assert.rejects(client.chat({ model, messages: [{ role: 'user', content: 'x', images: ['QUFB'] }] }), /images/);
    await assert.rejects(client.chat({ model, messages, options: { temperature: 9 } }), /temperature/);
  },
});
