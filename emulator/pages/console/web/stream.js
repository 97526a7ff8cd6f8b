// One streamed request, with the time at which each event came into this browser.

/** The parts of a stream of events: yields [time in ms, data]. */
async function* events(reader, start) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const at = performance.now() - start;
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data) yield [at, data];
    }
  }
}

/**
 * Send a chat; call `onToken(text, ms)` as tokens come.
 * Returns status, id, arrivals in ms, the server's own report, and how it ended.
 */
export async function sendChat({ path, headers, body }, apiKey, signal, onToken) {
  const start = performance.now();
  const sent = { "Content-Type": "application/json", "X-EMULATION-REPORT": "true", ...headers };
  if (apiKey) sent.Authorization = `Bearer ${apiKey.replace(/[^\x21-\x7e]/g, "?")}`;
  const result = { status: 0, id: "", arrivals: [], report: null, end: "" };
  try {
    const answer = await fetch(path.replace(/^\//, ""), { method: "POST", headers: sent, body: JSON.stringify(body), signal });
    Object.assign(result, { status: answer.status, id: answer.headers.get("x-request-id") ?? "", rules: answer.headers.get("x-emulation-rules") });
    if (!answer.ok) {
      const told = await answer.json().catch(() => ({}));
      result.end = told.error?.message ?? `status ${answer.status}`;
      return result;
    }
    for await (const [at, data] of events(answer.body.getReader(), start)) {
      if (data === "[DONE]") { result.end = "complete"; continue; }
      let chunk;
      try { chunk = JSON.parse(data); } catch { result.end = "an event that is no JSON"; continue; }
      result.report = chunk.emulation ?? result.report;
      if (chunk.error) { result.end = chunk.error.message ?? "an error"; continue; }
      const delta = chunk.choices?.[0]?.delta ?? {};
      const text = delta.content || delta.reasoning_content;
      if (text) { result.arrivals.push(at); onToken(text, at); }
    }
    result.end ||= "the stream ended without [DONE]";
  } catch (problem) {
    result.end = signal.aborted ? "stopped here" : result.status ? "the connection was cut" : "the server is away";
    if (!(problem instanceof TypeError || problem instanceof DOMException)) throw problem;
  }
  return result;
}
