// A request as curl and as Python, ready to copy.

const quoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

/** A value as Python writes it. */
function python(value, indent = "") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map((each) => python(each, indent)).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, indent)}`).join(", ")}}`;
  return JSON.stringify(value);
}

export function curl({ path, headers, body }) {
  const url = new URL(path.replace(/^\//, ""), document.baseURI).href;
  const lines = Object.entries({ "Content-Type": "application/json", ...headers }).map(([name, value]) => `  -H ${quoted(`${name}: ${value}`)}`);
  return [`curl -N ${quoted(url)}`, ...lines, `  -d ${quoted(JSON.stringify(body))}`].join(" \\\n");
}

const CALLS = { "/v1/chat/completions": "chat.completions", "/v1/completions": "completions", "/v1/responses": "responses", "/v1/embeddings": "embeddings", "/v1/moderations": "moderations" };

export function pythonOf({ path, headers, body }) {
  const base = new URL("v1", document.baseURI).href;
  const call = CALLS[path];
  if (!call) {
    return `import httpx\n\nanswer = httpx.post(\n    ${JSON.stringify(new URL(path.slice(1), document.baseURI).href)},\n    headers=${python(headers)},\n    json=${python(body)},\n    timeout=None,\n)\nprint(answer.status_code, answer.text)`;
  }
  const given = Object.entries(body).map(([name, value]) => `    ${name}=${python(value)},`);
  if (Object.keys(headers).length) given.push(`    extra_headers=${python(headers)},`);
  const shown = body.stream ? "for part in answer:\n    print(part)" : "print(answer)";
  return `import openai\n\nclient = openai.OpenAI(api_key="any", base_url=${JSON.stringify(base)}, max_retries=0)\nanswer = client.${call}.create(\n${given.join("\n")}\n)\n${shown}`;
}
