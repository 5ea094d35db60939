// What a model of random weights writes under schemas and turn grammars, judged by ajv.
//
//   node random_outputs.mjs PATH_TO_RANDOM_OUTPUTS [--schemas N] [--seeds N] [--turns N] [--seed S] [--part I --parts N]
//   (after npm ci in this folder)
//
// Part 1: so many schemas, drawn from the JSON Schema Test Suite, from OpenAI's documented examples and from
// tests/data/schemas, alone and put together, each sampled with so many seeds: every document parses and is valid.
// Part 2: so many random turns: well formed for harmony's strict parser (the program checks that), and arguments and
// answers that follow a schema are valid. Prints the figures; exit code 1 when anything is wrong.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { spelled, suite } from './suite.mjs';

const require = createRequire(import.meta.url);
const Ajv = require('ajv/dist/2020').default;
const addFormats = require('ajv-formats').default;
const [binary, ...flags] = process.argv.slice(2);
if (!binary) {
  console.error('usage: node random_outputs.mjs PATH_TO_RANDOM_OUTPUTS [--schemas N] [--seeds N] [--turns N] [--seed S]');
  process.exit(2);
}
const option = (name, value) => (flags.includes(name) ? Number(flags[flags.indexOf(name) + 1]) : value);
const wanted = option('--schemas', 200), seeds = option('--seeds', 20), turns = option('--turns', 10000), seed = option('--seed', 1);
const part = option('--part', 0), parts = option('--parts', 1);  // of the schemas, for several processes

function makeAjv() {
  const ajv = new Ajv({ strict: false, logger: false });
  addFormats(ajv);
  return ajv;
}
const shared = makeAjv();
/** A schema with a name of its own could meet another of that name. */
const validator = (schema) => (JSON.stringify(schema).includes('"$id"') ? makeAjv() : shared).compile(schema);

function run(args, lines) {
  const result = spawnSync(binary, args, { input: lines.map((l) => JSON.stringify(l)).join('\n') + '\n', maxBuffer: 1 << 30 });
  if (result.status !== 0) {
    console.error(`random_outputs failed: ${result.stderr}`);
    process.exit(1);
  }
  return result.stdout.toString().split('\n').filter((line) => line).map((line) => JSON.parse(line));
}

const data = (name) => Object.values(JSON.parse(readFileSync(new URL(`../data/schemas/${name}`, import.meta.url), 'utf8')));

/** Schemas that are supported: those of the three sources, then combinations of two of them. */
function draw(sources, supported) {
  const usable = sources.filter((schema, i) => {
    try {
      validator(schema);
      return supported[i];
    } catch {
      return false;  // of another draft
    }
  });
  const parts = usable.filter((s) => !JSON.stringify(s).includes('$ref'));  // references need their own root
  const object = (properties, required) => ({ type: 'object', properties, required, additionalProperties: false });
  const drawn = [...usable];
  for (let i = 0; drawn.length < wanted; ++i) {
    const a = parts[(i * 7 + 3) % parts.length], b = parts[(i * 13 + 5) % parts.length];
    drawn.push([
      object({ first: a, second: b }, i % 2 ? ['first'] : ['first', 'second']),
      { type: 'array', items: { anyOf: [a, b] }, minItems: i % 3, maxItems: 3 },
      { type: 'array', prefixItems: [a, b], items: false, minItems: 2 },
      { $defs: { part: a }, ...object({ part: { $ref: '#/$defs/part' }, more: { type: 'array', items: { $ref: '#/$defs/part' } } }, ['part']) },
    ][i % 4]);
  }
  return drawn.slice(0, wanted);
}

let wrong = 0;
function complain(text) {
  wrong += 1;
  if (wrong < 20) console.log(`WRONG: ${text}`);
}

/** Parses and validates. */
function judge(validators, schema, text) {
  const key = JSON.stringify(schema);
  if (!validators.has(key)) validators.set(key, validator(schema));
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return complain(`${key}: ${text}: ${error.message}`);
  }
  if (!validators.get(key)(value)) complain(`${key}: ${text}: ${JSON.stringify(validators.get(key).errors)}`);
}

const validators = new Map();
function checkDocuments() {
  const official = suite('draft2020-12').map((group) => spelled(group.schema));
  const sources = [...data('openai.json'), ...data('real.json'), ...[...new Set(official)].map((text) => JSON.parse(text))];
  // With no seeds the program says only what it refuses.
  const supported = Array(sources.length).fill(true);
  for (const line of run(['documents', '0'], sources)) supported[line.index] = false;

  const schemas = draw(sources, supported).filter((_, i) => i % parts === part);
  let documents = 0, unfinished = 0;
  for (const line of run(['documents', String(seeds)], schemas)) {
    if (line.text === undefined) {
      if (line.error !== 'cut') complain(`${JSON.stringify(schemas[line.index])}: ${line.error}`);
      unfinished += 1;
      continue;
    }
    documents += 1;
    judge(validators, schemas[line.index], line.text);
  }
  console.log(`schemas ${schemas.length}, seeds ${seeds}: documents ${documents}, cut ${unfinished}, wrong ${wrong}`);
  if (documents < schemas.length * seeds * 0.9) complain('too few documents were finished');
}

function checkTurns() {
  const lines = run(['turns', String(turns), String(seed)], [...data('openai.json'), ...data('real.json')]);
  const summary = lines.pop();
  for (const line of lines) judge(validators, line.schema, line.text);
  for (const turn of summary.wrong) complain(`turn ${turn.seed}: ${turn.error}`);
  console.log(`turns ${summary.turns}: finished ${summary.finished}, cut in free text or by too small a limit ${summary.cut}, ` +
    `tokens ${summary.tokens}, documents judged ${lines.length}, wrong ${wrong}`);
}

if (wanted > 0) checkDocuments();
if (turns > 0) checkTurns();
process.exit(wrong === 0 ? 0 : 1);
