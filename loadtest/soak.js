// The mix of mixed.js for hours: resident memory stays constant, and there are no errors.
//
//   loadtest/run soak.js [-e DURATION=5m] [-e RATE=50] [-e GROWTH_MB=20]
//   loadtest/run soak.js --cost 12 -e DURATION=8h
//
//   DURATION   at least two minutes
//   GROWTH_MB  how much resident memory may grow from the end of the first minute of the mix, when
//              caches are full and the allocator has settled, to any later moment
//
// defaults: --cost 10 --users 2000 -e RATE=50 -e DURATION=5m

import { Gauge, Trend } from 'k6/metrics';
import * as staunch from './lib.js';
import { mixed, scenarios, thresholds, warm } from './mixed.js';

export { mixed, warm };

const GROWTH_MB = Number(__ENV.GROWTH_MB || 20);
const LENGTH = staunch.seconds(scenarios.mixed.startTime) + staunch.seconds(scenarios.mixed.duration);
const SETTLED = Date.now() + 1000 * (staunch.seconds(scenarios.mixed.startTime) + 60);

const resident = new Trend('resident_mb');
const growth = new Trend('resident_growth_mb');
const settled = new Gauge('resident_settled_mb');

export const options = Object.assign({}, staunch.common, {
  scenarios: Object.assign({}, scenarios, {
    // It starts first, so that it uses none of the users that have sessions.
    watch: {
      executor: 'constant-arrival-rate',
      rate: 1,
      timeUnit: '10s',
      duration: `${LENGTH}s`,
      preAllocatedVUs: 1,
      maxVUs: 1,
      exec: 'watch',
    },
  }),
  thresholds: Object.assign({}, thresholds, {
    resident_growth_mb: [`max<${GROWTH_MB}`],
    dropped_iterations: ['count<=1'],
  }),
});

let base = null;

export function watch() {
  const mb = staunch.sample(staunch.metrics().body, 'process_resident_memory_bytes') / 2 ** 20;
  resident.add(mb);
  if (Date.now() < SETTLED) return;
  if (base === null) {
    base = mb;
    settled.add(mb);
  }
  growth.add(mb - base);
}
