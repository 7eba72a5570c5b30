// One operation over and over: as fast as a number of clients can (a closed loop: the next request waits
// for the last answer), or at a fixed rate. It is for loadtest/crosscheck, which does the same with another
// load generator. It says nothing about a server under real load.
//
//   loadtest/run closed.js -e OP=login -e CLIENTS=16 -e DURATION=10s
//
//   OP        login or me
//   CLIENTS   requests in flight at most
//   RATE      if set: requests per second
//   DURATION  for how long
//
// defaults: --cost 10 --users 100 --set STAUNCH_LIMIT_LOGIN=off --set STAUNCH_LIMIT_GLOBAL=off

import exec from 'k6/execution';
import { Counter } from 'k6/metrics';
import * as staunch from './lib.js';

const OP = __ENV.OP || 'login';
const CLIENTS = Number(__ENV.CLIENTS || 16);
const RATE = Number(__ENV.RATE || 0);
const DURATION = __ENV.DURATION || '10s';

// Answers within the measured time; the last answer of each client comes after it.
const in_time = new Counter('in_time');

const closed = { executor: 'constant-vus', vus: CLIENTS, duration: DURATION };
const open = {
  executor: 'constant-arrival-rate',
  rate: RATE,
  duration: DURATION,
  preAllocatedVUs: CLIENTS,
  maxVUs: CLIENTS,
};

export const options = Object.assign({}, staunch.common, {
  scenarios: { measured: Object.assign(RATE ? open : closed, { exec: OP }) },
  // Named by scenario, so that the summary does not mix them with those of setup().
  thresholds: {
    unexpected: ['count==0'],
    'http_req_duration{scenario:measured}': ['max>=0'],
    'http_reqs{scenario:measured}': ['count>0'],
  },
});

export function setup() {
  return staunch.login(null, staunch.username(0)).json('access_token');
}

export function me(token) {
  staunch.me(null, token);
  count();
}

export function login() {
  staunch.login(null, staunch.username(exec.scenario.iterationInTest));
  count();
}

function count() {
  const end = exec.scenario.startTime + staunch.seconds(DURATION) * 1000;
  if (Date.now() <= end) in_time.add(1);
}
