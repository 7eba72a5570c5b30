// Five times as many logins as the machine can handle, in an open loop. The server continues at its
// capacity, refuses the rest at once (503 with Retry-After), and everything else stays quick.
//
//   loadtest/run overload.js [-e FACTOR=5] [-e DURATION=20s] [-e GOODPUT=0.6]
//
//   FACTOR      offered logins over the server's capacity (its metric staunch_hash_capacity)
//   GOODPUT     part of the capacity that must result in good logins; the load generator takes the
//               rest of the same cores
//
// The server's own clock says how quick the rest is: 99 % of the refusals before hashing and of the other
// calls are answered within 10 ms. k6's times include what k6 and the server take from each other on
// shared cores, so their limits are wide. If the cores slow down, an admitted login may pass its deadline
// in the queue and is refused late: at most 1 % of the refusals.
//
// Each waiting login occupies a user of k6, and capacity times deadline logins wait. So the deadline is
// short here.
//
// defaults: --cost 10 --users 2000 --set STAUNCH_HASH_DEADLINE=2s

import exec from 'k6/execution';
import { Counter, Gauge, Rate, Trend } from 'k6/metrics';
import * as staunch from './lib.js';

const { CAPACITY, DEADLINE } = staunch;
const DURATION = staunch.seconds(__ENV.DURATION || '20s');
const RATE = Math.round(CAPACITY * Number(__ENV.FACTOR || 5));
const GOOD = CAPACITY * DURATION * Number(__ENV.GOODPUT || 0.6);
// The logins that wait, those being hashed, and some whose refusal is in flight.
const VUS = Math.ceil(CAPACITY * (DEADLINE + 1) + RATE * 0.2);
// Calls per second to the other endpoints.
const OTHERS = 50;

const good = new Counter('logins_good');
const refused = new Counter('logins_refused');
const accepted_time = new Trend('accepted_time', true);
const early_time = new Trend('refused_early_time', true);
const late = new Rate('refused_late');
const quick_refusals = new Gauge('server_quick_refusals');
const quick_others = new Gauge('server_quick_others');

const open = (name, rate, vus) => ({
  executor: 'constant-arrival-rate',
  rate,
  timeUnit: '1s',
  duration: `${DURATION}s`,
  preAllocatedVUs: vus,
  maxVUs: vus,
  gracefulStop: `${DEADLINE + 10}s`,
  exec: name,
});

export const options = Object.assign({}, staunch.common, {
  scenarios: {
    logins: open('logins', RATE, VUS),
    others: open('others', OTHERS, 20),
  },
  thresholds: Object.assign(staunch.keptSchedule(RATE), {
    unexpected: ['count==0'],
    logins_good: [`count>=${Math.round(GOOD)}`],
    logins_refused: ['count>0'],
    accepted_time: [`max<${(DEADLINE + 5) * 1000}`],
    server_quick_refusals: ['value>0.99'],
    server_quick_others: ['value>0.99'],
    refused_early_time: ['p(95)<50', 'p(99)<250'],
    refused_late: ['rate<0.01'],
    'http_req_duration{op:me,scenario:others}': ['p(95)<50', 'p(99)<250'],
    'http_req_duration{op:liveness,scenario:others}': ['p(95)<50', 'p(99)<250'],
  }),
});

export function setup() {
  const token = staunch.login(staunch.address(0), staunch.username(0)).json('access_token');
  const text = staunch.metrics().body;
  const measured = staunch.sample(text, 'staunch_hash_capacity');
  if (Math.abs(measured / CAPACITY - 1) > 0.01) {
    exec.test.abort(`the server's staunch_hash_capacity is ${measured}: run with -e CAPACITY=${measured}`);
  }
  return { token, before: byServer(text) };
}

export function teardown({ before }) {
  const after = byServer(staunch.metrics().body);
  const grown = (name) => after[name] - before[name];
  quick_refusals.add(grown('quickRefusals') / grown('refusals'));
  quick_others.add(grown('quickOthers') / grown('others'));
}

// What the server has counted: refusals before hashing, the other calls, and how many of each took at most
// 10 ms. (All other answers of the token route take a hash.)
function byServer(text) {
  const rejected = (reason) => staunch.sample(text, `staunch_hash_rejected_total{reason="${reason}"}`);
  const [me, liveness, token] = ['/api/v1/auth/me', '/health/liveness', '/api/v1/auth/token'];
  const seconds = 'staunch_http_request_seconds';
  const all = (route) => staunch.sample(text, `${seconds}_count{route="${route}"}`);
  const quick = (route) => staunch.sample(text, `${seconds}_bucket{route="${route}",le="0.01"}`);
  return {
    refusals: rejected('predicted_wait') + rejected('queue_full'),
    quickRefusals: quick(token),
    others: all(me) + all(liveness),
    quickOthers: quick(me) + quick(liveness),
  };
}

export function logins() {
  staunch.onSchedule(RATE);
  const user = exec.scenario.iterationInTest;
  const response = staunch.login(
    staunch.address(1 + user),
    staunch.username(user),
    staunch.PASSWORD,
    [200, 503],
  );
  if (response.status === 200) {
    good.add(1);
    accepted_time.add(staunch.took(response));
  } else if (response.status === 503) {
    const time = staunch.took(response);
    const isLate = time > (DEADLINE * 1000) / 2;
    refused.add(1);
    late.add(isLate);
    if (!isLate) early_time.add(time);
  }
}

export function others({ token }) {
  // None of the addresses that log in.
  staunch.me(staunch.address(2 ** 23 + exec.scenario.iterationInTest), token);
  staunch.liveness();
}
