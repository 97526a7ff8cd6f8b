// opencode: `opencode run` with an OpenAI-compatible provider, and with its own provider of OpenAI's.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

// The package's launcher waits for a script of its installation; its programs need none.
const programs = ['linux-x64', 'linux-arm64', 'darwin-arm64', 'darwin-x64'].map((platform) =>
  fileURLToPath(new URL(`node_modules/opencode-${platform}/bin/opencode`, import.meta.url)),
);
const opencode = programs.find((program) => existsSync(program));
const baseURL = `${process.env.EMULATOR_URL}/v1`;
const home = mkdtempSync(join(tmpdir(), 'opencode-'));
after(() => rmSync(home, { recursive: true, force: true }));

// Commands are words of the corpus. Bash runs this for each that is no program, and for the two that are.
const handler = Object.fromEntries(
  ['command_not_found_handle', 'bridge', 'clear'].map((name) => [`BASH_FUNC_${name}%%`, '() { echo "ran $*"; }']),
);

// It would fetch models, plugins, language servers and itself.
const quiet = {
  OPENCODE_DISABLE_AUTOUPDATE: '1',
  OPENCODE_DISABLE_DEFAULT_PLUGINS: '1',
  OPENCODE_DISABLE_LSP_DOWNLOAD: '1',
  OPENCODE_DISABLE_MODELS_FETCH: '1',
  npm_config_offline: 'true',
};

const limit = { context: 128000, output: 4096 };
const settings = (headers) => ({
  autoupdate: false,
  share: 'disabled',
  permission: 'allow',
  enabled_providers: ['emulator', 'openai'],
  provider: {
    emulator: {
      npm: '@ai-sdk/openai-compatible',
      options: { baseURL, apiKey: 'dummy-key', headers },
      models: { 'gpt-4o': { limit } },
    },
    openai: { options: { baseURL, apiKey: 'dummy-key', headers }, models: { 'gpt-4o': { limit }, 'gpt-5.1': { limit } } },
  },
});

const environment = { ...process.env, ...quiet, ...handler, SHELL: '/bin/bash', HOME: home, PWD: home };
for (const kind of ['CACHE', 'CONFIG', 'DATA', 'STATE']) delete environment[`XDG_${kind}_HOME`];

async function run(config, ...args) {
  const env = { ...environment, OPENCODE_CONFIG_CONTENT: JSON.stringify(config) };
  const child = spawn(opencode, args, { cwd: home, env, stdio: ['ignore', 'pipe', 'ignore'] });
  let output = '';
  child.stdout.on('data', (part) => (output += part));
  const code = await new Promise((resolve) => child.on('close', resolve));
  return { code, output };
}

// Runs a turn; returns its events and its code.
async function turn(model, headers = {}) {
  const { code, output } = await run(settings(headers), 'run', '--format', 'json', '--model', model, 'Say hello.');
  return { code, events: output.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line)) };
}

const parts = ({ events }, type) => events.filter((event) => event.type === type).map(({ part }) => part);

function isAnswered(ended) {
  assert.equal(ended.code, 0, JSON.stringify(ended.events));
  assert.ok(parts(ended, 'text').at(-1).text.length > 0);
  assert.equal(parts(ended, 'step_finish').at(-1).reason, 'stop');
}

for (const [name, model, reasoning] of [
  ['compatible provider', 'emulator/gpt-4o', 'emulator/gpt-4o'],
  ["OpenAI's provider", 'openai/gpt-4o', 'openai/gpt-5.1'],
]) {
  // The title is asked for by the way, and its failure is not told.
  test(`${name}: a turn ends with an answer, and the session has a title`, async () => {
    const ended = await turn(reasoning);
    isAnswered(ended);
    const sessions = JSON.parse((await run(settings({}), 'session', 'list', '--format', 'json')).output);
    const { title } = sessions.find(({ id }) => id === ended.events[0].sessionID);
    assert.doesNotMatch(title, /^New session/);
  });

  test(`${name}: a shell command runs, and the turn ends`, async () => {
    const ended = await turn(model, { 'X-TOOL-CALLS': '1' });
    isAnswered(ended);
    const [call] = parts(ended, 'tool_use');
    assert.equal(call.tool, 'bash');
    assert.equal(call.state.status, 'completed', JSON.stringify(call.state));
    assert.match(call.state.output, /^ran /);
  });
}

test('a failed request is sent again', async () => {
  const key = randomUUID();
  isAnswered(await turn('emulator/gpt-4o', { 'X-FAULT-STATUS': '503', 'X-FAULT-ATTEMPTS': '1', 'X-FAULT-RETRY-AFTER-MS': '10', 'X-FAULT-KEY': key }));
});

test('a refusal is an error', async () => {
  const { events } = await turn('emulator/gpt-4o', { 'X-FAULT-STATUS': '400' });
  assert.equal(events.at(-1).type, 'error');
});
