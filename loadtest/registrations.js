// 100 registrations at the same moment: each gets an account. Then as many compete for a few names:
// exactly one gets each name, and the others get 409.
//
//   loadtest/run registrations.js [-e REGISTRATIONS=100]
//
// defaults: --cost 10 --users 1

import { Counter, Trend } from 'k6/metrics';
import * as staunch from './lib.js';

const REGISTRATIONS = Number(__ENV.REGISTRATIONS || 100);
// How many compete for each name.
const RIVALS = 10;
const NAMES = Math.ceil(REGISTRATIONS / RIVALS);
// By then the last registration of the first part has its answer: it may wait for its hash until the
// deadline.
const CONTEST_STARTS = staunch.DEADLINE + 10;

const created = new Counter('created');
const won = new Counter('contested_won');
const lost = new Counter('contested_lost');
const answered = new Trend('registration_time', true);

const atOnce = (exec, startTime) => ({
  executor: 'per-vu-iterations',
  vus: REGISTRATIONS,
  iterations: 1,
  maxDuration: `${CONTEST_STARTS}s`,
  gracefulStop: '0s',
  exec,
  startTime,
});

export const options = Object.assign({}, staunch.common, {
  scenarios: { distinct: atOnce('distinct', '0s'), contested: atOnce('contested', `${CONTEST_STARTS}s`) },
  thresholds: {
    unexpected: ['count==0'],
    created: [`count==${REGISTRATIONS}`],
    contested_won: [`count==${NAMES}`],
    contested_lost: [`count==${NAMES * RIVALS - NAMES}`],
    registration_time: [`max<${(staunch.DEADLINE + 5) * 1000}`],
  },
});

export function distinct() {
  const response = staunch.register(staunch.address(__VU), staunch.newAccount());
  answered.add(staunch.took(response));
  created.add(response.status === 201 ? 1 : 0);
}

export function setup() {
  return { run: Date.now().toString(36) };
}

export function contested({ run }) {
  const name = `wanted-${__VU % NAMES}-${run}`;
  const account = { email: `${name}@example.com`, username: name, password: staunch.PASSWORD };
  const response = staunch.register(staunch.address(100000 + __VU), account, [201, 409]);
  won.add(response.status === 201 ? 1 : 0);
  lost.add(response.status === 409 ? 1 : 0);
}
