// @openai/agents over Responses, its default, and over chat completions.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from '@openai/agents';
import OpenAI from 'openai';
import { z } from 'zod';

setTracingDisabled(true);

const connection = { baseURL: `${process.env.EMULATOR_URL}/v1`, apiKey: 'dummy-key' };
const question = 'What is the weather?';
const forecast = z.object({ city: z.string(), degrees: z.number(), days: z.array(z.number().int()) });

const weather = (cities) =>
  tool({
    name: 'weather',
    description: 'Tell the weather of a city.',
    parameters: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      cities.push(city);
      return 'sunny';
    },
  });

for (const [api, useResponses] of [['Responses', true], ['chat', false]]) {
  const runnerWith = (defaultHeaders) => {
    const openAIClient = new OpenAI({ ...connection, defaultHeaders });
    return new Runner({ model: 'gpt-4o', modelProvider: new OpenAIProvider({ openAIClient, useResponses }) });
  };
  const runner = runnerWith({});
  const agent = (more) => new Agent({ name: 'agent', instructions: 'Be brief.', ...more });

  test(`agents over ${api}: an agent answers`, async () => {
    const { finalOutput } = await runner.run(agent(), question);
    assert.ok(finalOutput.split(' ').length > 5);
  });

  test(`agents over ${api}: a required tool is called once, and an answer follows`, async () => {
    const cities = [];
    const modelSettings = { toolChoice: 'required' };
    const { finalOutput } = await runner.run(agent({ tools: [weather(cities)], modelSettings }), question);
    assert.equal(cities.length, 1);
    assert.ok(finalOutput.length > 0);
  });

  test(`agents over ${api}: an agent's output has its type`, async () => {
    const { finalOutput } = await runner.run(agent({ outputType: forecast }), question);
    forecast.parse(finalOutput);
  });

  test(`agents over ${api}: an agent hands over to another`, async () => {
    const other = agent({ name: 'other' });
    const first = agent({ handoffs: [other], modelSettings: { toolChoice: 'required' } });
    const { lastAgent, finalOutput } = await runner.run(first, question);
    assert.equal(lastAgent.name, 'other');
    assert.ok(finalOutput.length > 0);
  });

  test(`agents over ${api}: a streamed run gives each token`, async () => {
    const result = await runner.run(agent(), question, { stream: true });
    const deltas = [];
    for await (const delta of result.toTextStream()) deltas.push(delta);
    await result.completed;
    assert.equal(deltas.length, 20);
    assert.equal(deltas.join(''), result.finalOutput);
  });

  test(`agents over ${api}: a failed request is sent again`, async () => {
    const headers = { 'X-FAULT-STATUS': '503', 'X-FAULT-ATTEMPTS': '1', 'X-FAULT-RETRY-AFTER-MS': '10' };
    const { finalOutput } = await runnerWith(headers).run(agent(), question);
    assert.ok(finalOutput.length > 0);
  });

  test(`agents over ${api}: a failure in mid-stream ends the run with an error`, async () => {
    const failing = runnerWith({ 'X-FAULT-KIND': 'error', 'X-FAULT-AFTER-TOKENS': '3' });
    await assert.rejects(async () => {
      const result = await failing.run(agent(), question, { stream: true });
      for await (const delta of result.toTextStream()) assert.equal(typeof delta, 'string');
      await result.completed;
    });
  });
}
