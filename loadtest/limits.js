// The default rate limits: 5 registrations, 10 logins, 20 refreshes and 200 calls per minute from one
// address, then 429 with Retry-After and RateLimit. Other addresses are not affected.
//
//   loadtest/run limits.js
//
// defaults: --cost 6 --users 20

import { check, sleep } from 'k6';
import * as staunch from './lib.js';

export const options = Object.assign({}, staunch.common, {
  scenarios: { limits: { executor: 'shared-iterations', vus: 1, iterations: 1, maxDuration: '60s' } },
  thresholds: { checks: ['rate==1'], unexpected: ['count==0'], iterations: ['count==1'] },
});

// Calls per minute from one address.
const QUOTAS = { register: 5, login: 10, refresh: 20, global: 200 };
const [ONE, OTHER, SPOOFER] = ['10.0.0.1', '10.0.0.2', '10.0.0.3'];

export default function () {
  const { access_token, refresh_token } = staunch.login(OTHER, staunch.username(0)).json();

  const logins = burst('login', 10, (allowed) => staunch.login(ONE, staunch.username(1), undefined, allowed));
  staunch.login(OTHER, staunch.username(2));

  burst('register', 5, (allowed) =>
    staunch.register(
      ONE,
      staunch.newAccount(),
      allowed.map((status) => (status === 200 ? 201 : status)),
    ),
  );
  staunch.register(OTHER, staunch.newAccount());

  // The same token again is a retry, and gets the same successor each time.
  burst('refresh', 20, (allowed) => staunch.refresh(ONE, refresh_token, allowed));
  staunch.refresh(OTHER, refresh_token);

  // What a client itself writes into X-Forwarded-For is to the left of what the proxy adds.
  burst('login', 10, (allowed, i) =>
    staunch.login(`10.9.9.${i}, ${SPOOFER}`, staunch.username(3), undefined, allowed),
  );

  // The first address has used 35 of its 200 calls.
  burst('global', 200 - 35, (allowed) => staunch.me(ONE, access_token, allowed));
  staunch.me(OTHER, access_token);
  check(staunch.liveness(), { 'health is exempt': (r) => !r.headers['Ratelimit'] });

  // A client may return when Retry-After has passed, and not before.
  check(logins, { 'Retry-After is at most the time of one token': (r) => staunch.retryAfter(r) <= 6 });
  sleep(staunch.retryAfter(logins));
  staunch.login(ONE, staunch.username(1));
}

// Uses up a limit: `quota` calls pass, plus what was refilled meanwhile, and the next one is refused.
// Returns the refusal.
function burst(policy, quota, send) {
  const began = Date.now();
  for (let i = 0; i < quota; i++) send([200], i);
  const refilled = () => ((Date.now() - began) / 60000) * QUOTAS[policy];
  let answer = null;
  let more = 0;
  do {
    answer = send([200, 429], quota + more);
    more += 1;
  } while (answer.status !== 429 && more <= refilled() + 1);
  check(answer, {
    [`${policy}: one too many is 429`]: (r) => r.status === 429,
    [`${policy}: with Retry-After`]: (r) => staunch.retryAfter(r) >= 1,
    [`${policy}: RateLimit says that none is left`]: (r) =>
      r.headers['Ratelimit'].startsWith(`"${policy}";r=0;t=`),
    [`${policy}: RateLimit-Policy says the quota`]: (r) =>
      r.headers['Ratelimit-Policy'] === `"${policy}";q=${QUOTAS[policy]};w=60`,
  });
  return answer;
}
