// An agent's session by hand against `gptoss serve` with random weights: agent.mjs GPTOSS [TURNS] [MODEL]
// Tools of some 6,000 tokens, then TURNS (20) turns as agents make them: a question, two calls with results, an answer,
// the next question. The client sends the whole history every time and leaves out the chain of thought. What is
// computed of each prompt is compared with what is new in it; the first turn computes everything. Without MODEL it is a
// small one with a small vocabulary.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { microModel, scratchFolder, startServer } from './server.mjs';

const [gptoss, count = '20', given] = process.argv.slice(2);
const turns = Number(count);
const { model, flags } = given ? { model: given, flags: [] } : microModel(gptoss, scratchFolder());
const server = await startServer(gptoss, [...flags, '--context', '16384', '--parallel', '2'], model);
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', timeout: 3_600_000, maxRetries: 0 });

const topics = ['weather', 'traffic', 'stocks', 'recipes', 'flights', 'hotels', 'museums', 'concerts', 'libraries', 'parks'];
const sentence = 'Give the name as people write it, without abbreviations, and only what was asked for in this conversation.';
/** Tools for `topics`, their descriptions as long as the preamble needs. */
const toolsOf = (sentences) => topics.map((topic) => ({ type: 'function', function: {
  name: `find_${topic}`, strict: true, description: `Finds ${topic} near a place. ${Array(sentences).fill(sentence).join(' ')}`,
  parameters: { type: 'object', additionalProperties: false, required: ['place'], properties: { place: { type: 'string', maxLength: 12, description: sentence } } } } }));
const format = { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema: { type: 'object', additionalProperties: false, required: ['text'], properties: { text: { type: 'string', maxLength: 40 } } } } };

const messages = [];
/** One request: what it computed of its prompt, and how long that took. */
async function turn(body) {
  const begin = Date.now();
  // Streamed, because fetch waits five minutes for an answer's head and a first turn may take longer.
  const stream = client.chat.completions.stream({ model: 'm', temperature: 1, seed: messages.length, max_tokens: 300, reasoning_budget: 24, logit_bias: think, messages, stream_options: { include_usage: true }, ...body });
  const answer = await stream.finalChatCompletion();
  const { prompt_tokens: prompt, completion_tokens: completion, prompt_tokens_details: { cached_tokens: cached }, completion_tokens_details: { reasoning_tokens: thoughts } } = answer.usage;
  assert.ok(thoughts > 0, 'a turn has no thoughts that a later prompt could leave out');
  const { content, tool_calls } = answer.choices[0].message;
  messages.push({ role: 'assistant', content, tool_calls });
  return { prompt, completion, cached, calls: tool_calls ?? [], seconds: (Date.now() - begin) / 1000 };
}

const tokens = async (text) => (await (await fetch(`${server.url}/tokenize`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ text }) })).json()).tokens;
// A model of noise would often go without thoughts: straight to its answer, or to a tool that the header names first.
const think = { [(await tokens('analysis'))[0]]: 100, [(await tokens(' to'))[0]]: -100 };
// Descriptions of 6,000 tokens, counted in the model's own.
const each = (await tokens(` ${sentence}`)).length;
const tools = toolsOf(Math.ceil(6000 / topics.length / each) - 1); // and one in the parameters

const rows = [];
let last, question;
for (let i = 0; i < turns; i++) {
  const step = i % 3;
  if (step === 0) messages.push({ role: 'user', content: `Question ${i / 3 + 1}: what is there to see near Lake Constance, and how do I get there from the station by foot?` });
  if (step > 0) messages.push({ role: 'tool', tool_call_id: last.calls[0].id, content: JSON.stringify({ found: topics.slice(0, 6), row: i }) });
  const now = await turn({ tools, response_format: format, tool_choice: step < 2 ? 'required' : 'none' });
  assert.equal(now.calls.length > 0, step < 2);
  // After an answer the thoughts of its turn are left out: what follows the last question is new. Else all that was
  // computed or said before stays.
  const known = i === 0 ? 0 : step === 0 ? question.prompt : last.prompt + last.completion;
  if (step === 0) question = now;
  const row = { turn: i + 1, kind: ['question', 'result', 'result'][step], prompt: now.prompt, new: now.prompt - known, computed: now.prompt - now.cached, seconds: now.seconds };
  rows.push(row);
  console.log(JSON.stringify(row));
  last = now;
}
const sum = (key) => rows.slice(1).reduce((total, row) => total + row[key], 0);
console.log(`first turn: ${rows[0].prompt} tokens; after it ${sum('new')} new, ${sum('computed')} computed (${(100 * (sum('computed') / sum('new') - 1)).toFixed(1)} % more)`);
for (const row of rows.slice(1)) assert.ok(row.computed <= Math.ceil(1.1 * row.new), JSON.stringify(row));
console.log(`every turn computes at most a tenth more than is new`);
process.exit((await server.stop()).code);
