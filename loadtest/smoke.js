// Smoke test: every endpoint, with right and with wrong input, once or a few times. Shows that the
// server does what the README's table says; says nothing about speed.
//
//   loadtest/run smoke.js
//
// defaults: --cost 4 --users 10

import { check } from 'k6';
import * as staunch from './lib.js';

export const options = Object.assign({}, staunch.common, {
  scenarios: { smoke: { executor: 'shared-iterations', vus: 1, iterations: 1, maxDuration: '30s' } },
  thresholds: { checks: ['rate==1'], unexpected: ['count==0'], iterations: ['count==1'] },
});

let user = 0;
// Another address for each part, so that no part meets another's limits.
const another = () => staunch.address(++user);

export default function () {
  health();
  registration();
  tokens();
  wrongTokens();
}

function health() {
  const text = staunch.metrics().body;
  check(null, {
    'liveness is alive': () => staunch.liveness().json('status') === 'alive',
    'readiness is ready': () => staunch.readiness().json('status') === 'ready',
    'metrics say the version': () => /^staunch_build_info\{version="[^"]+"\} 1$/m.test(text),
  });
}

function registration() {
  const account = staunch.newAccount();
  const made = staunch.register(another(), account);
  check(made, {
    'registration shows the account': (r) => r.json('username') === account.username,
    'registration keeps the password to itself': (r) => !r.body.includes(account.password),
    'every answer has a request id': (r) => Boolean(r.headers['X-Request-Id']),
  });
  const shouted = Object.assign({}, account, { username: account.username.toUpperCase() });
  check(staunch.register(another(), shouted, [409]), { 'a taken name is 409': problem(409) });
  const bad = { email: 'no address', username: 'a', password: 'short' };
  check(staunch.register(another(), bad, [422]), {
    'invalid fields are 422': problem(422),
    'all invalid fields are named': (r) => r.json('errors').length === 3,
  });
  const common = Object.assign(staunch.newAccount(), { password: 'password1' });
  check(staunch.register(another(), common, [422]), { 'a common password is 422': problem(422) });
  check(staunch.register(another(), '{"email":', [400]), { 'broken JSON is 400': problem(400) });
}

function tokens() {
  const at = another();
  const first = staunch.login(at, staunch.username(0));
  check(first, {
    'login gives tokens': (r) => r.json('token_type') === 'bearer' && r.json('expires_in') > 0,
    'tokens are not to be stored': (r) => r.headers['Cache-Control'] === 'no-store',
  });
  staunch.login(at, `${staunch.username(1)}@example.com`);
  check(staunch.me(at, first.json('access_token')), {
    'me shows the account': (r) => r.json('username') === staunch.username(0),
  });

  const second = staunch.refresh(at, first.json('refresh_token'));
  const again = staunch.refresh(at, first.json('refresh_token'));
  const third = staunch.refreshByForm(at, second.json('refresh_token'));
  const token = (r) => r.json('refresh_token');
  check(null, {
    'refresh rotates the token': () => token(second) !== token(first),
    'a repeated refresh gets the same successor': () => token(again) === token(second),
    'the token endpoint refreshes too': () => token(third) !== token(second),
    'me takes the new token': () => staunch.me(at, third.json('access_token')).status === 200,
  });
  // Two generations old: a stolen copy, for all the server knows.
  staunch.refresh(at, token(first), [401]);
  check(staunch.me(at, third.json('access_token'), [401]), { 'reuse ends the session': problem(401) });

  const session = staunch.login(at, staunch.username(2));
  staunch.logout(at, token(session));
  check(staunch.refresh(at, token(session), [401]), { 'logout ends the session': problem(401) });
  check(staunch.me(at, session.json('access_token'), [401]), { 'and its access': problem(401) });
}

function wrongTokens() {
  const at = another();
  const wrong = staunch.login(at, staunch.username(0), 'not the password', [401]);
  const unknown = staunch.login(at, 'nobody-has-this-name', 'not the password', [401]);
  check(wrong, {
    'a wrong password is 401': problem(401),
    'an unknown name gets the same words': (r) => r.body === unknown.body,
    'a 401 says how to do it right': (r) => Boolean(r.headers['Www-Authenticate']),
  });
  check(staunch.login(at, '', '', [400, 401]), { 'an empty login is refused': (r) => r.status >= 400 });
  check(staunch.me(at, null, [401]), { 'me without a token is 401': problem(401) });
  check(staunch.me(at, 'a.b.c', [401]), { 'me with a made-up token is 401': problem(401) });
  check(staunch.refresh(at, 'made-up', [401]), { 'a made-up refresh is 401': problem(401) });
  staunch.logout(at, 'made-up', [204]);
}

// A problem document (RFC 9457) of that status.
function problem(status) {
  return (response) =>
    response.status === status &&
    response.headers['Content-Type'] === 'application/problem+json' &&
    response.json('status') === status;
}
