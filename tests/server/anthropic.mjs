// Anthropic's Messages API through the npm package @anthropic-ai/sdk: anthropic.mjs GPTOSS
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import { runTests, startServer } from './server.mjs';

const server = await startServer(process.argv[2]);
const client = new Anthropic({ baseURL: server.url, apiKey: 'none', maxRetries: 0, timeout: 120_000 });
const model = 'nano';
const messages = [{ role: 'user', content: 'Hello' }];
const tools = [{ name: 'get_weather', description: 'Weather', strict: true,
  input_schema: { type: 'object', additionalProperties: false, required: ['city'], properties: { city: { type: 'string', maxLength: 12 } } } }];

await runTests({
  async 'a message has text, a reason to stop, and usage'() {
    const m = await client.messages.create({ model, max_tokens: 48, messages, system: 'Be brief.' });
    assert.equal(m.role, 'assistant');
    assert.ok(['end_turn', 'max_tokens'].includes(m.stop_reason));
    assert.ok(m.usage.output_tokens > 0 && m.usage.output_tokens <= 48);
    assert.ok(m.content.every((block) => block.type === 'text'));
    const counted = await client.messages.countTokens({ model, messages, system: 'Be brief.' });
    assert.equal(counted.input_tokens, m.usage.input_tokens + m.usage.cache_read_input_tokens);
  },

  async 'streams add up, with thinking and without'() {
    for (let seed = 0; seed < 8; seed++) {
      const thinking = seed % 2 ? { type: 'enabled', budget_tokens: 1024 } : undefined;
      const stream = client.messages.stream({ model, max_tokens: 48, messages, tools, thinking, seed });
      let text = '';
      stream.on('text', (delta) => (text += delta));
      const m = await stream.finalMessage();
      assert.equal(text, m.content.filter((b) => b.type === 'text').map((b) => b.text).join(''));
      assert.ok(m.usage.output_tokens > 0);
      if (!thinking) assert.ok(m.content.every((b) => b.type !== 'thinking'));
      for (const block of m.content) if (block.type === 'thinking') assert.ok(block.signature.length > 0);
    }
  },

  async 'calls validate and their results go on'() {
    for (const tool_choice of [{ type: 'any' }, { type: 'tool', name: 'get_weather' }]) {
      const stream = client.messages.stream({ model, max_tokens: 400, messages, tools, tool_choice, thinking: { type: 'enabled', budget_tokens: 24 } });
      const m = await stream.finalMessage();
      assert.equal(m.stop_reason, 'tool_use');
      const call = m.content.at(-1);
      assert.equal(call.type, 'tool_use');
      assert.equal(typeof call.input.city, 'string');
      const next = await client.messages.create({ model, max_tokens: 48, tools, tool_choice: { type: 'none' },
        messages: [...messages, { role: 'assistant', content: m.content },
          { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: 'sunny' }] }] });
      assert.ok(next.content.every((b) => b.type !== 'tool_use'));
    }
  },

  async 'stop sequences end the answer'() {
    const m = await client.messages.create({ model, max_tokens: 300, messages, stop_sequences: ['e'], thinking: { type: 'disabled' }, seed: 3 });
    assert.equal(m.stop_reason, 'stop_sequence');
    assert.equal(m.stop_sequence, 'e');
    assert.ok(!m.content.some((b) => b.type === 'text' && b.text.includes('e')));
  },

  async 'errors are of the right kind'() {
    await assert.rejects(client.messages.create({ model, max_tokens: 10, messages: [] }), Anthropic.BadRequestError);
    await assert.rejects(client.messages.create({ model, messages }), /max_tokens/);
    await assert.rejects(client.messages.create({ model, max_tokens: 10, messages, tool_choice: { type: 'any' } }), Anthropic.BadRequestError);
  },
});
