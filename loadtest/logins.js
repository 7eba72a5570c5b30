// 1,000 logins at the same moment. Each one gets tokens before the deadline, or is refused at once because
// it would take longer (503 with Retry-After).
//
//   loadtest/run logins.js [--cost 10] [--set STAUNCH_HASH_DEADLINE=30s] [-e LOGINS=1000]
//   loadtest/run logins.js --cost 12 --set STAUNCH_HASH_DEADLINE=60s     # all answered 200
//
// If the server's capacity times the deadline exceeds LOGINS by a tenth, no refusal is allowed.
//
// defaults: --cost 10 --users 1000

import { Counter, Trend } from 'k6/metrics';
import * as staunch from './lib.js';

const LOGINS = Number(__ENV.LOGINS || 1000);
const { CAPACITY, DEADLINE } = staunch;
const ALL = CAPACITY * DEADLINE > LOGINS * 1.1;

const answered = new Counter('logins_answered');
const accepted = new Trend('accepted_time', true);
const refused = new Trend('refused_time', true);

export const options = Object.assign({}, staunch.common, {
  scenarios: {
    logins: {
      executor: 'per-vu-iterations',
      vus: LOGINS,
      iterations: 1,
      maxDuration: `${DEADLINE + 30}s`,
      gracefulStop: '0s',
    },
  },
  thresholds: {
    unexpected: ['count==0'],
    logins_answered: [`count==${LOGINS}`],
    // The deadline covers the wait before the hash. The rest is the hash itself and the client.
    accepted_time: [`max<${(DEADLINE + 5) * 1000}`],
    // Early, but not within 10 ms (which overload.js tests), because a thousand connections are opened
    // at this moment. If other programs take the cores, a few predictions are too short, and those
    // logins are refused later.
    refused_time: ['med<1000', `max<${(DEADLINE + 5) * 1000}`],
  },
});

export default function () {
  const user = __VU - 1;
  const allowed = ALL ? [200] : [200, 503];
  const response = staunch.login(staunch.address(user), staunch.username(user), staunch.PASSWORD, allowed);
  answered.add(response.status === 200 || response.status === 503 ? 1 : 0);
  if (response.status === 200) accepted.add(staunch.took(response));
  if (response.status === 503) refused.add(staunch.took(response));
}
