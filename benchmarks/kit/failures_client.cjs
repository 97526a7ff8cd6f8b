// One request with OpenAI's client for Node, for benchmarks/failures.py; prints what became of it.
"use strict";

const [folder, baseURL, streamed, headers, timeoutMs, patienceMs] = process.argv.slice(2);
const { createRequire } = require("node:module");
const OpenAI = createRequire(`${folder}/`)("openai");

async function main() {
  const client = new OpenAI({ baseURL, apiKey: "k", timeout: Number(timeoutMs) });
  const outcome = { error: null, status: null, text: "", waits: false };
  const request = {
    model: "gpt-4",
    messages: [{ role: "user", content: "Hello!" }],
    stream: streamed === "true",
  };
  // The client's timeout is for the head; who reads a stream has to watch over its silence.
  const silence = setTimeout(() => finish({ ...outcome, waits: true }), Number(patienceMs));
  try {
    const answer = await client.chat.completions.create(request, { headers: JSON.parse(headers) });
    if (request.stream) {
      for await (const chunk of answer) outcome.text += chunk.choices[0]?.delta?.content ?? "";
    } else {
      outcome.text = answer.choices[0].message.content;
    }
  } catch (error) {
    outcome.error = error.constructor.name;
    outcome.status = error.status ?? null;
  }
  clearTimeout(silence);
  finish(outcome);
}

function finish(outcome) {
  process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
}

main();
