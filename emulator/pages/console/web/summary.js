// The server's summary of a second, as charts take it.

const added = (one, other) => other.map((each, index) => each + (one?.[index] ?? 0));

/** Add the requests of a second to those of each model so far. */
export function addModels(models, { models: found, bounds_ms: bounds }) {
  for (const [name, { requests, ttft, itl }] of Object.entries(found)) {
    const old = models.get(name);
    const both = (before, now) => ({ asked: added(before?.asked, now.asked), actual: added(before?.actual, now.actual) });
    models.set(name, { requests: requests + (old?.requests ?? 0), bounds: { ttft: [...bounds.ttft, null], itl: [...bounds.itl, null] }, ttft: both(old?.ttft, ttft), itl: both(old?.itl, itl) });
  }
}

/** The mean of some means, each of so many values; null where there are none. */
export function meanOf(means) {
  const count = means.reduce((sum, [, each]) => sum + each, 0);
  return count ? means.reduce((sum, [mean, each]) => sum + mean * each, 0) / count : null;
}

/** The means of all models together, asked and actual. */
function means(models, which) {
  const of = (kind) => meanOf(Object.values(models).map((each) => [each[which][`${kind}_mean_ms`] ?? 0, each[which][kind].reduce((sum, count) => sum + count, 0)]));
  return { asked: of("asked"), actual: of("actual") };
}

export function pointOf(data) {
  const span = data.span_s || 1, { engine, lag } = data;
  const rate = (is) => Object.entries(data.requests).reduce((sum, [status, count]) => (is(Number(status)) ? sum + count : sum), 0) / span;
  return {
    t: data.at, uptime: data.uptime_s, revision: data.revision,
    statuses: [rate((s) => s < 300), rate((s) => s === 429), rate((s) => s >= 400 && s < 499 && s !== 429), rate((s) => s >= 500), data.clients_left / span],
    ended: Object.values(data.requests).reduce((sum, each) => sum + each, 0), inFlight: data.in_flight.streams, waiting: Math.max(0, data.in_flight.requests - data.in_flight.streams), tokens: data.tokens / span,
    timed: lag.timed, late: lag.late, lagP50: lag.p50_ms, lagP99: lag.p99_ms, blocked: data.blocked,
    ttft: means(data.models, "ttft"), itl: means(data.models, "itl"),
    workers: data.workers, cpu: Math.max(0, ...data.workers.map((each) => each.cpu)), loopLag: Math.max(0, ...data.workers.map((each) => each.loop_lag_ms)),
    engine: engine && { running: engine.running, waiting: engine.waiting, cache: 100 * engine.cache, hits: engine.prefix_queries ? (100 * engine.prefix_hits) / engine.prefix_queries : null },
    limits: data.limits, refused: data.limited / span, faults: data.faults, rules: data.rules,
    marks: data.marks.map(({ at, text }) => ({ t: at, text })),
  };
}
