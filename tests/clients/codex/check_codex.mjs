// Codex CLI: `codex exec` with a provider of one's own, and with the built-in one led here.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const codex = fileURLToPath(new URL('node_modules/.bin/codex', import.meta.url));
const url = `${process.env.EMULATOR_URL}/v1`;
const home = mkdtempSync(join(tmpdir(), 'codex-'));
after(() => rmSync(home, { recursive: true, force: true }));

// Commands are words of the corpus. Bash runs this for each that is no program, and for the two that are.
const handler = Object.fromEntries(
  ['command_not_found_handle', 'bridge', 'clear'].map((name) => [`BASH_FUNC_${name}%%`, '() { echo "ran $*"; }']),
);

// No plugins, updates or analytics: these alone would ask others.
const common = `
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
[analytics]
enabled = false
[features]
plugins = false
`;
const custom = (headers) => `
model_provider = "emulator"
${common}
[model_providers.emulator]
name = "emulator"
base_url = "${url}"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
http_headers = { ${Object.entries(headers).map(([name, value]) => `"${name}" = "${value}"`).join(', ')} }
`;
const builtin = `openai_base_url = "${url}"\n${common}`;

// Runs a turn; returns its events, its code, the longest silence in it and what was said by both sides.
async function turn(config, model, ...options) {
  const own = mkdtempSync(join(home, 'turn-'));
  const work = join(own, 'work');
  mkdirSync(work);
  writeFileSync(join(own, 'config.toml'), config);
  const args = ['exec', '--json', '--skip-git-repo-check', '-C', work, '-m', model, ...options, 'Say hello.'];
  const env = { ...process.env, ...handler, HOME: own, CODEX_HOME: own, CODEX_API_KEY: 'dummy-key' };
  const child = spawn(codex, args, { env, stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = new Promise((resolve) => child.on('close', resolve));
  const events = [];
  let silence = 0;
  let last;
  for await (const line of createInterface({ input: child.stdout })) {
    if (last) silence = Math.max(silence, Date.now() - last);
    last = Date.now();
    events.push(JSON.parse(line));
  }
  const code = await ended;
  return { events, code, silence, said: rollout(own) };
}

// Returns the items of the conversation, as Codex keeps them.
function rollout(folder) {
  const files = readdirSync(join(folder, 'sessions'), { recursive: true }).filter((name) => name.endsWith('.jsonl'));
  const lines = files.flatMap((name) => readFileSync(join(folder, 'sessions', name), 'utf8').trim().split('\n'));
  return lines.map((line) => JSON.parse(line)).filter(({ type }) => type === 'response_item').map(({ payload }) => payload);
}

const items = ({ events }, type) =>
  events.filter((event) => event.type === 'item.completed' && event.item.type === type).map(({ item }) => item);

const troubles = ({ events }) => events.filter(({ type }) => type === 'error' || type === 'turn.failed').map(({ message, error }) => message ?? error.message);

function isAnswered(ended) {
  assert.equal(ended.code, 0, JSON.stringify(ended.events));
  assert.equal(ended.events.at(-1).type, 'turn.completed');
  assert.ok(items(ended, 'agent_message').at(-1).text.length > 0);
}

function ranACommand(ended) {
  isAnswered(ended);
  assert.deepEqual(troubles(ended), []);
  const commands = items(ended, 'command_execution');
  assert.equal(commands.length, 1, JSON.stringify(ended.events));
  assert.match(commands[0].aggregated_output, /^ran /);
}

const once = (fields) => custom({ ...fields, 'X-FAULT-ATTEMPTS': 1, 'X-FAULT-KEY': randomUUID() });

test('custom provider: a turn ends with an answer', async () => {
  isAnswered(await turn(custom({}), 'gpt-5.1'));
});

test('custom provider: a shell command runs, and the turn ends', async () => {
  ranACommand(await turn(custom({ 'X-TOOL-CALLS': 1 }), 'gpt-5.1'));
});

test('built-in provider: a turn ends with an answer, without a stall', async () => {
  const reference = await turn(custom({}), 'gpt-5.1');
  const ended = await turn(builtin, 'gpt-5.1');
  isAnswered(ended);
  assert.deepEqual(troubles(ended), []);
  assert.ok(ended.silence < reference.silence + 1000, `silent for ${ended.silence} ms`);
});

test('built-in provider: a shell command runs, and the turn ends', async () => {
  ranACommand(await turn(builtin, 'gpt-5.1-calls'));
});

test('built-in provider: a conversation is compacted', async () => {
  const ended = await turn(builtin, 'gpt-5.1-calls', '-c', 'model_auto_compact_token_limit=1000');
  isAnswered(ended);
  assert.deepEqual(troubles(ended), []);
});

test('a newer model, whose tools are in the input, calls its tool, and the turn ends', async () => {
  const ended = await turn(custom({ 'X-TOOL-CALLS': 1 }), 'gpt-6.2-sol');
  isAnswered(ended);
  const calls = ended.said.filter(({ type }) => type === 'custom_tool_call');
  assert.deepEqual(calls.map(({ name }) => name), ['exec']);
  assert.ok(ended.said.some(({ type, call_id }) => type === 'custom_tool_call_output' && call_id === calls[0].call_id));
});

test('an answer follows an output schema', async () => {
  const file = join(home, 'schema.json');
  const properties = { city: { type: 'string' }, days: { type: 'array', items: { type: 'integer' } } };
  writeFileSync(file, JSON.stringify({ type: 'object', properties, required: ['city', 'days'], additionalProperties: false }));
  const ended = await turn(custom({}), 'gpt-5.1', '--output-schema', file);
  isAnswered(ended);
  assert.deepEqual(Object.keys(JSON.parse(items(ended, 'agent_message').at(-1).text)), ['city', 'days']);
});

test('a refusal ends the turn', async () => {
  const ended = await turn(custom({ 'X-FAULT-STATUS': 400 }), 'gpt-5.1');
  assert.equal(ended.code, 1);
  assert.equal(ended.events.at(-1).type, 'turn.failed');
});

test('a failed request is sent again', async () => {
  isAnswered(await turn(once({ 'X-FAULT-STATUS': 503, 'X-FAULT-RETRY-AFTER-MS': 10 }), 'gpt-5.1'));
});

test('a failure in mid-stream is told, and the request sent again', async () => {
  const ended = await turn(once({ 'X-FAULT-KIND': 'error', 'X-FAULT-AFTER-TOKENS': 3 }), 'gpt-5.1');
  isAnswered(ended);
  assert.match(troubles(ended).join(), /The server had an error/);
});
