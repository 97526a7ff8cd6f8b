// openai-node: chat, Responses, their helpers, embeddings and lists.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const client = new OpenAI({ baseURL: `${process.env.EMULATOR_URL}/v1`, apiKey: 'dummy-key', maxRetries: 0 });
const model = 'gpt-4o';
const messages = [{ role: 'user', content: 'hi' }];
const midStream = { headers: { 'X-FAULT-KIND': 'error', 'X-FAULT-AFTER-TOKENS': '3' } };
const comments = { headers: { 'X-TTFT-MS': '400', 'X-KEEPALIVE-MS': '100' } };
const forecast = z.object({ city: z.string(), degrees: z.number(), days: z.array(z.number().int()) });

test('openai: chat answers, whole and streamed', async () => {
  const whole = await client.chat.completions.create({ model, messages, seed: 1 });
  const stream = client.chat.completions.stream({ model, messages, seed: 1 });
  let deltas = 0;
  stream.on('content.delta', () => (deltas += 1));
  const final = await stream.finalChatCompletion();
  assert.ok(deltas >= 20);
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
});

test('openai: chat parses', async () => {
  const answer = await client.chat.completions.parse({
    model,
    messages,
    response_format: zodResponseFormat(forecast, 'forecast'),
  });
  forecast.parse(answer.choices[0].message.parsed);
});

test('openai: runTools comes to an end', async () => {
  const cities = [];
  const runner = client.chat.completions.runTools(
    {
      model,
      messages,
      tools: [
        {
          type: 'function',
          function: {
            name: 'weather',
            description: 'Tell the weather of a city.',
            parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
            parse: JSON.parse,
            function: ({ city }) => {
              cities.push(city);
              return 'sunny';
            },
          },
        },
      ],
    },
    { headers: { 'X-TOOL-CALLS': '1' } },
  );
  assert.ok((await runner.finalContent()).length > 0);
  assert.equal(cities.length, 1);
});

test('openai: Responses answers, whole and streamed', async () => {
  const whole = await client.responses.create({ model, input: 'hi', seed: 1 });
  const stream = client.responses.stream({ model, input: 'hi', seed: 1 });
  const kinds = [];
  for await (const event of stream) kinds.push(event.type);
  const final = await stream.finalResponse();
  assert.equal(kinds.filter((kind) => kind === 'response.output_text.delta').length, 20);
  assert.equal(kinds.at(-1), 'response.completed');
  assert.equal(final.output_text, whole.output_text);
});

test('openai: Responses parses', async () => {
  const answer = await client.responses.parse({
    model,
    input: 'hi',
    text: { format: zodTextFormat(forecast, 'forecast') },
  });
  forecast.parse(answer.output_parsed);
});

test('openai: a mistake is an error with its param', async () => {
  await assert.rejects(
    client.responses.create({ model: 'o3', input: 'hi', temperature: 0.2 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature' && error.code === null,
  );
});

test('openai: embeddings are decoded', async () => {
  const { data } = await client.embeddings.create({ model: 'text-embedding-3-large', input: ['a', 'b'], dimensions: 64 });
  assert.deepEqual(data.map(({ embedding }) => embedding.length), [64, 64]);
});

test('openai: models and stored completions are listed', async () => {
  assert.equal((await client.models.retrieve(model)).id, model);
  assert.deepEqual((await client.chat.completions.list()).data, []);
});

test('openai: a failed request is sent again', async () => {
  const headers = { 'X-FAULT-STATUS': '503', 'X-FAULT-ATTEMPTS': '2', 'X-FAULT-RETRY-AFTER-MS': '10' };
  const answer = await client.chat.completions.create({ model, messages }, { headers, maxRetries: 2 });
  assert.ok(answer.choices[0].message.content.length > 0);
});

test('openai: chat that fails in mid-stream throws', async () => {
  const deltas = [];
  await assert.rejects(async () => {
    const stream = await client.chat.completions.create({ model, messages, stream: true }, midStream);
    for await (const chunk of stream) deltas.push(chunk.choices[0].delta.content);
  }, OpenAI.APIError);
  assert.equal(deltas.filter(Boolean).length, 3);
});

test('openai: Responses that fail in mid-stream throw, or end with the failed response', async () => {
  const kinds = [];
  try {
    const stream = await client.responses.create({ model, input: 'hi', stream: true }, midStream);
    for await (const event of stream) kinds.push(event.type);
  } catch (error) {
    assert.ok(error instanceof OpenAI.APIError);
    return;
  }
  assert.equal(kinds.at(-1), 'response.failed');
});

test('openai: comments are read past', async () => {
  const body = { model, messages, stream: true };
  const deltas = [];
  for await (const chunk of await client.chat.completions.create(body, comments)) {
    deltas.push(chunk.choices[0]?.delta.content);
  }
  assert.equal(deltas.filter(Boolean).length, 20);
  const raw = await client.chat.completions.create(body, comments).asResponse();
  assert.ok((await raw.text()).startsWith(':'));
});

test('openai: Responses over a websocket', async () => {
  const socket = new ResponsesWS(client);
  try {
    const answer = await new Promise((resolve, reject) => {
      socket.on('error', reject);
      socket.on('response.completed', ({ response }) => resolve(response));
      socket.send({ type: 'response.create', model, input: 'hi' });
    });
    assert.equal(answer.status, 'completed');
  } finally {
    socket.close();
  }
});

test('openai: a conversation is compacted', async () => {
  const { object, output } = await client.responses.compact({ model, input: 'hi' });
  assert.equal(object, 'response.compaction');
  assert.ok(output.some(({ type }) => type === 'compaction'));
});

test('openai: nothing is flagged', async () => {
  const { results } = await client.moderations.create({ input: ['hi', 'ho'] });
  assert.deepEqual(results.map(({ flagged }) => flagged), [false, false]);
});
