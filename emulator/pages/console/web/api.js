// What this page asks the server: the API below /emulator, at addresses relative to the page.

const KEY = "emulator-control-key";
const CHANGING = new Set(["POST", "PUT", "PATCH", "DELETE"]);

/** What the server said against a request: its message, and the field that is wrong. */
export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server answered with ${status}.`);
    this.status = status;
    this.param = error?.param ?? "";
  }
  get isLocked() {
    return this.status === 401 || this.status === 403;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
};

export async function fetched(method, path, body) {
  const headers = {};
  if (CHANGING.has(method)) headers["Content-Type"] = "application/json";
  // What no header can hold is no key: it is sent as a wrong one.
  if (key.get()) headers.Authorization = `Bearer ${key.get().replace(/[^\x21-\x7e]/g, "?")}`;
  let answer;
  try {
    const text = body === undefined ? undefined : JSON.stringify(body);
    answer = await fetch(path, { method, headers, body: text, signal: AbortSignal.timeout(15000) });
  } catch {
    throw new Refused(0, { message: "The server is away." });
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, told.error);
  }
  return answer;
}

/** Ask; return the JSON of the answer. */
export async function ask(method, path, body) {
  const answer = await fetched(method, path, body);
  try {
    return await answer.json();
  } catch {
    throw new Refused(answer.status, { message: "The answer was cut." });
  }
}
