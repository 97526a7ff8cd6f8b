// openai-node: chat, Responses, their helpers, embeddings and lists.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const client = new OpenAI({ baseURL: `${process.env.EMULATOR_URL}/v1`, apiKey: 'dummy-key', maxRetries: 0 });
const model = 'gpt-4o';
const messages = [{ role: 'user', content: 'hi' }];
const forecast = z.object({ city: z.string(), degrees: z.number(), days: z.array(z.number().int()) });

test('chat answers, whole and streamed', async () => {
  const whole = await client.chat.completions.create({ model, messages, seed: 1 });
  const stream = client.chat.completions.stream({ model, messages, seed: 1 });
  let deltas = 0;
  stream.on('content.delta', () => (deltas += 1));
  const final = await stream.finalChatCompletion();
  assert.ok(deltas >= 20);
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
});

test('chat parses', async () => {
  const answer = await client.chat.completions.parse({
    model,
    messages,
    response_format: zodResponseFormat(forecast, 'forecast'),
  });
  forecast.parse(answer.choices[0].message.parsed);
});

test('runTools comes to an end', async () => {
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

test('Responses answers, whole and streamed', async () => {
  const whole = await client.responses.create({ model, input: 'hi', seed: 1 });
  const stream = client.responses.stream({ model, input: 'hi', seed: 1 });
  const kinds = [];
  for await (const event of stream) kinds.push(event.type);
  const final = await stream.finalResponse();
  assert.equal(kinds.filter((kind) => kind === 'response.output_text.delta').length, 20);
  assert.equal(kinds.at(-1), 'response.completed');
  assert.equal(final.output_text, whole.output_text);
});

test('Responses parses', async () => {
  const answer = await client.responses.parse({
    model,
    input: 'hi',
    text: { format: zodTextFormat(forecast, 'forecast') },
  });
  forecast.parse(answer.output_parsed);
});

test('a mistake is an error with its param and code', async () => {
  await assert.rejects(
    client.responses.create({ model: 'o3', input: 'hi', temperature: 0.2 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature' && error.code === 'unsupported_value',
  );
});

test('embeddings are decoded', async () => {
  const { data } = await client.embeddings.create({ model: 'text-embedding-3-large', input: ['a', 'b'], dimensions: 64 });
  assert.deepEqual(data.map(({ embedding }) => embedding.length), [64, 64]);
});

test('models and stored completions are listed', async () => {
  assert.equal((await client.models.retrieve(model)).id, model);
  assert.deepEqual((await client.chat.completions.list()).data, []);
});
