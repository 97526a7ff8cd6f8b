// One sentence: is a number that is seen here one's own system's, or the emulator's limit?

import { ms, number } from "./dom.js";

const OVER_S = 5;
const MOST_LATE = 0.01; // so that on time means a p99 within 1 ms
const MOST_BLOCKED = 0.02;
const FULL = 90;

/** Judge the last seconds. */
export function verdict(points) {
  const to = points.at(-1)?.t ?? 0;
  const seen = points.filter((point) => point.t > to - OVER_S);
  const timed = seen.reduce((sum, point) => sum + point.timed, 0);
  const late = seen.reduce((sum, point) => sum + point.late, 0);
  const blocked = seen.reduce((sum, point) => sum + point.blocked, 0);
  const worst = Math.max(0, ...seen.map((point) => point.lagP99 ?? 0));
  if (!timed) return { mood: "", sentence: "Idle: no tokens left in the last 5 s", detail: "" };
  const share = late / timed;
  const onTime = `${number(100 * (1 - share), 2)} % of tokens within 1 ms`;
  const detail = `Of ${number(timed, 0)} tokens over the last 5 s, p99 ${ms(worst, 2)} after they were due.`;
  if (blocked > MOST_BLOCKED * seen.reduce((sum, point) => sum + point.ended, 0)) {
    return { mood: "bad", sentence: "Late: clients do not read", detail: `Writes to ${number(blocked, 0)} streams waited for their client. That aside: ${onTime}.` };
  }
  if (share <= MOST_LATE) return { mood: "good", sentence: `On time: ${onTime}`, detail };
  const [fullest] = (points.at(-1)?.workers ?? []).toSorted((a, b) => b.cpu - a.cpu);
  if (fullest?.cpu >= FULL) {
    return { mood: "bad", sentence: `Late: the emulator's worker ${fullest.worker} is full (CPU ${number(fullest.cpu, 0)} %)`, detail: `Only ${onTime}. What you measure now holds the emulator's own limit. ${detail}` };
  }
  return { mood: "bad", sentence: `Late: only ${onTime}`, detail: `No worker is full, so something else on this machine held it up. ${detail}` };
}
