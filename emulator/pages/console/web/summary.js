// The server's summary of a second, as charts take it.

const statusesOf = (counts) => {
  const sum = (is) => Object.entries(counts).reduce((all, [status, count]) => (is(Number(status)) ? all + count : all), 0);
  return [sum((s) => s < 300), sum((s) => s === 429), sum((s) => s >= 400 && s < 499 && s !== 429), sum((s) => s >= 500), sum((s) => s === 499)];
};

export function pointOf(data) {
  return { t: data.at, statuses: statusesOf(data.requests ?? {}), marks: [], workers: [], rules: {}, faults: {}, limits: [], ttft: {}, itl: {} };
}
