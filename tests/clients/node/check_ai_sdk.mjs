// The Vercel AI SDK: its default openai(), which speaks Responses, chat, and the compatible provider.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';

import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, cosineSimilarity, embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from 'ai';
import { z } from 'zod';

const baseURL = `${process.env.EMULATOR_URL}/v1`;
const provider = { name: 'emulator', baseURL, includeUsage: true };

// Provider settings may have a fetch of their own.
const openaiBy = (fetch) => createOpenAI({ baseURL, apiKey: 'dummy-key', fetch });
const compatibleBy = (fetch) => createOpenAICompatible({ ...provider, supportsStructuredOutputs: true, fetch });
const modelsBy = (fetch) => ({
  'openai()': openaiBy(fetch)('gpt-4o'),
  'openai.chat()': openaiBy(fetch).chat('gpt-4o'),
  'compatible()': compatibleBy(fetch)('gpt-4o'),
});

const openai = openaiBy();
const compatible = compatibleBy();
const simple = createOpenAICompatible(provider);
const models = modelsBy();

const forecast = z.object({ city: z.string(), degrees: z.number(), days: z.array(z.number().int()) });

const weather = (cities) =>
  tool({
    description: 'Tell the weather of a city.',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      cities.push(city);
      return 'sunny';
    },
  });

for (const [name, model] of Object.entries(models)) {
  test(`${name}: generateText answers with its usage`, async () => {
    const { text, usage } = await generateText({ model, prompt: 'hi' });
    assert.ok(text.split(' ').length > 5);
    assert.equal(usage.outputTokens, 20);
  });

  test(`${name}: streamText gives each token`, async () => {
    const result = streamText({ model, prompt: 'hi' });
    const deltas = [];
    for await (const delta of result.textStream) deltas.push(delta);
    assert.equal(deltas.length, 20);
    assert.equal(deltas.join(''), await result.text);
    assert.equal((await result.usage).outputTokens, 20);
  });

  test(`${name}: toolChoice required calls the tool in every step`, async () => {
    const cities = [];
    const { steps } = await generateText({
      model,
      prompt: 'What is the weather?',
      tools: { weather: weather(cities) },
      toolChoice: 'required',
      stopWhen: stepCountIs(2),
    });
    assert.equal(steps.length, 2);
    assert.equal(cities.length, 2);
  });

  test(`${name}: a named tool is called in a stream`, async () => {
    const cities = [];
    const result = streamText({
      model,
      prompt: 'What is the weather?',
      tools: { weather: weather(cities) },
      toolChoice: { type: 'tool', toolName: 'weather' },
    });
    await result.consumeStream({ onError: (error) => assert.fail(error) });
    assert.equal((await result.toolCalls).length, 1);
    assert.equal(cities.length, 1);
  });

  test(`${name}: a header asks for calls with auto, and text follows`, async () => {
    const cities = [];
    const { text } = await generateText({
      model,
      prompt: 'What is the weather?',
      tools: { weather: weather(cities) },
      headers: { 'X-TOOL-CALLS': '1' },
      stopWhen: stepCountIs(5),
    });
    assert.equal(cities.length, 1);
    assert.ok(text.length > 0);
  });

  test(`${name}: generateObject yields an instance`, async () => {
    const { object } = await generateObject({ model, schema: forecast, prompt: 'What is it?' });
    forecast.parse(object);
  });

  test(`${name}: streamObject builds one up`, async () => {
    const result = streamObject({ model, schema: forecast, prompt: 'What is it?' });
    for await (const part of result.partialObjectStream) assert.equal(typeof part, 'object');
    forecast.parse(await result.object);
  });
}

test('a provider without schemas gets an instance of the one in the prompt', async () => {
  const system = `Answer in JSON by this schema: ${JSON.stringify(z.toJSONSchema(forecast))}`;
  const { object } = await generateObject({ model: simple('gpt-4o'), schema: forecast, system, prompt: 'hi' });
  forecast.parse(object);
});

for (const [name, model] of Object.entries({
  'openai.embedding()': openai.embedding('text-embedding-3-small'),
  'compatible.embeddingModel()': compatible.embeddingModel('text-embedding-3-small'),
})) {
  test(`${name}: embedMany puts texts that share words nearer`, async () => {
    const values = ['The cat sat on the mat', 'A cat on a mat', 'Quarterly revenue rose'];
    const { embeddings } = await embedMany({ model, values });
    assert.equal(embeddings[0].length, 1536);
    assert.ok(
      cosineSimilarity(embeddings[0], embeddings[1]) > cosineSimilarity(embeddings[0], embeddings[2]),
    );
  });
}

for (const [name, model] of Object.entries(models)) {
  test(`${name}: a failed request is sent again`, async () => {
    const headers = { 'X-FAULT-STATUS': '503', 'X-FAULT-ATTEMPTS': '1', 'X-FAULT-KEY': randomUUID() };
    const { text } = await generateText({ model, prompt: 'hi', headers });
    assert.ok(text.length > 0);
  });

  test(`${name}: a failure is an error with its status`, async () => {
    const asked = generateText({ model, prompt: 'hi', headers: { 'X-FAULT-STATUS': '429' }, maxRetries: 0 });
    await assert.rejects(asked, (error) => APICallError.isInstance(error) && error.statusCode === 429);
  });

  test(`${name}: a failure in mid-stream is told`, async () => {
    const errors = [];
    const headers = { 'X-FAULT-KIND': 'error', 'X-FAULT-AFTER-TOKENS': '3' };
    const result = streamText({ model, prompt: 'hi', headers, onError: ({ error }) => errors.push(error) });
    await result.consumeStream();
    assert.equal(errors.length, 1);
  });

  test(`${name}: comments are read past`, async () => {
    const headers = { 'X-TTFT-MS': '400', 'X-KEEPALIVE-MS': '100' };
    const starts = [];
    const fetched = async (...asked) => {
      const answer = await fetch(...asked);
      const [mine, theirs] = answer.body.tee();
      starts.push(new Response(mine).text());
      return new Response(theirs, answer);
    };
    const read = modelsBy(fetched)[name];
    const result = streamText({ model: read, prompt: 'hi', headers });
    const deltas = [];
    for await (const delta of result.textStream) deltas.push(delta);
    assert.equal(deltas.length, 20);
    assert.match(await starts[0], /^:/m);
  });
}
