// graphile-worker as a peer: jobs that do nothing, with the settings its documentation measures with (docs/performance):
// a local queue of 500, 24 jobs at a time, completions and failures in batches.
// Takes an order as one line of JSON on standard input ({role: "fill", url, jobs} or {role: "drain", url, seconds}).
import { readFileSync } from "node:fs";
import { Logger, makeWorkerUtils, runOnce } from "graphile-worker";

const CONCURRENCY = 24;
const CHUNK = 5000;
const order = JSON.parse(readFileSync(0, "utf8"));
const logger = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});
const preset = {
  worker: {
    connectionString: order.url,
    concurrentJobs: CONCURRENCY,
    maxPoolSize: CONCURRENCY + 1,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger,
  },
};

async function fill() {
  const utils = await makeWorkerUtils({ preset });
  await utils.migrate();
  for (let first = 0; first < order.jobs; first += CHUNK) {
    const count = Math.min(CHUNK, order.jobs - first);
    await utils.addJobs(Array.from({ length: count }, (_, n) => ({ identifier: "bench", payload: { n: first + n } })));
  }
  await utils.withPgClient((client) => client.query("VACUUM ANALYZE graphile_worker._private_jobs"));
  await utils.release();
  return { jobs: order.jobs };
}

async function drain() {
  let done = 0;
  const bench = () => {
    done += 1;
  };
  const began = Date.now() / 1000;
  await runOnce({ preset, taskList: { bench }, noHandleSignals: true });
  return { done, began, ended: Date.now() / 1000 };
}

const answer = await { fill, drain }[order.role]();
console.log(JSON.stringify(answer));
process.exit(0);
