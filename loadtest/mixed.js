// Ordinary traffic of a login service: 70 % refreshes, 25 % /me, 4 % logins, 1 % registrations. It is an
// open loop: requests come at their rate, however long the answers take. Every user has a session and a
// client address, and always presents its latest refresh token.
//
//   loadtest/run mixed.js [-e RATE=250] [-e DURATION=60s] [-e PEAK=500] [-e USERS_BUSY=100]
//   loadtest/run mixed.js --cost 12 -e DURATION=1h
//
//   RATE        requests per second
//   DURATION    for how long
//   PEAK        if set: the rate climbs to it until half-time, and back
//   USERS_BUSY  requests in flight at most: RATE times the longest stall that it must survive
//
// defaults: --cost 10 --users 2000

import exec from 'k6/execution';
import * as staunch from './lib.js';

const RATE = Number(__ENV.RATE || 250);
const PEAK = Number(__ENV.PEAK || 0);
const DURATION = staunch.seconds(__ENV.DURATION || '60s');
const VUS = Number(__ENV.USERS_BUSY || 100);
const [REFRESH, ME, LOGIN] = [70, 25, 4];

// Enough sessions that each is refreshed 15 times per minute on average; 20 are allowed.
const WANTED = (Math.max(RATE, PEAK) * 60 * REFRESH) / 100 / 15;
const PER_VU = Math.ceil(WANTED / VUS);
// The time to log all of them in before the measurement, with two fifths of the capacity.
const WARM = Math.ceil((PER_VU * VUS * 2.5) / staunch.CAPACITY) + 5;

const arrivals = PEAK
  ? {
      executor: 'ramping-arrival-rate',
      startRate: RATE,
      stages: [PEAK, RATE].map((target) => ({ target, duration: `${DURATION / 2}s` })),
    }
  : { executor: 'constant-arrival-rate', rate: RATE, duration: `${DURATION}s` };

// k6 gives the second scenario the users of the first, with their sessions, because there are no others.
export const scenarios = {
  warm: {
    executor: 'per-vu-iterations',
    vus: VUS,
    iterations: 1,
    maxDuration: `${WARM}s`,
    gracefulStop: '0s',
    exec: 'warm',
  },
  mixed: Object.assign(arrivals, {
    startTime: `${WARM}s`,
    timeUnit: '1s',
    preAllocatedVUs: VUS,
    maxVUs: VUS,
    exec: 'mixed',
  }),
};

export const thresholds = Object.assign(staunch.keptSchedule(RATE), {
  unexpected: ['count==0'],
  'http_req_duration{op:me,scenario:mixed}': ['p(99)<25'],
  'http_req_duration{op:refresh,scenario:mixed}': ['p(99)<50'],
  // Far below capacity almost nothing waits: a few times one hash, and two queries.
  'http_req_duration{op:login,scenario:mixed}': [`p(99)<${Math.ceil(50 + 40000 / staunch.CAPACITY)}`],
});
if (PEAK) delete thresholds.schedule_lateness;

export const options = Object.assign({}, staunch.common, { scenarios, thresholds });

// This user's sessions: {user, address, access, refresh}.
const sessions = [];
let turn = 0;

export function warm() {
  for (let i = 0; i < PER_VU; i++) {
    const user = (__VU - 1) * PER_VU + i;
    sessions.push(open({ user, address: staunch.address(user) }));
  }
}

export function mixed() {
  if (!sessions.length) exec.test.abort('a user without sessions: the warm-up was too short');
  if (!PEAK) staunch.onSchedule(RATE);
  const session = sessions[turn++ % sessions.length];
  const dice = Math.random() * 100;
  if (dice < REFRESH) {
    keep(session, staunch.refresh(session.address, session.refresh));
  } else if (dice < REFRESH + ME) {
    staunch.me(session.address, session.access);
  } else if (dice < REFRESH + ME + LOGIN) {
    open(session);
  } else {
    staunch.register(session.address, staunch.newAccount());
  }
}

// Logs in and keeps the tokens.
function open(session) {
  return keep(session, staunch.login(session.address, staunch.username(session.user)));
}

function keep(session, response) {
  if (response.status === 200) {
    session.access = response.json('access_token');
    session.refresh = response.json('refresh_token');
  }
  return session;
}
