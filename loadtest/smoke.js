// Smoke test: every endpoint with right and wrong input, once or a few times each. It shows that the
// server does what the API's description says. It does not measure speed.
//
//   loadtest/run smoke.js
//
// defaults: --cost 4 --users 10

import { check } from 'k6';
import * as staunch from './lib.js';

export const options = Object.assign({}, staunch.common, {
  // Each check by its name, for the comparison of one node with several.
  systemTags: [...staunch.common.systemTags, 'check', 'group'],
  scenarios: { smoke: { executor: 'shared-iterations', vus: 1, iterations: 1, maxDuration: '60s' } },
  thresholds: { checks: ['rate==1'], unexpected: ['count==0'], iterations: ['count==1'] },
});

let user = 0;
// A new address for each part, so that one part does not use up another's limits.
const another = () => staunch.address(++user);

export default function () {
  health();
  registration();
  tokens();
  wrongTokens();
  sessions();
  password();
  clients();
  documents();
  // Last, when everything else has been called.
  everyOperation();
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
    'registration does not return the password': (r) => !r.body.includes(account.password),
    'every answer has a request id': (r) => Boolean(r.headers['X-Request-Id']),
  });
  const upperCase = Object.assign({}, account, { username: account.username.toUpperCase() });
  check(staunch.register(another(), upperCase, [409]), { 'a taken name is 409': problem(409) });
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
  // Two generations old, as a stolen copy would be.
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
    'an unknown name gets the same text': (r) => r.body === unknown.body,
    'a 401 has WWW-Authenticate': (r) => Boolean(r.headers['Www-Authenticate']),
  });
  check(staunch.login(at, '', '', [400, 401]), { 'an empty login is refused': (r) => r.status >= 400 });
  check(staunch.me(at, null, [401]), { 'me without a token is 401': problem(401) });
  check(staunch.me(at, 'a.b.c', [401]), { 'me with a made-up token is 401': problem(401) });
  check(staunch.refresh(at, 'made-up', [401]), { 'a made-up refresh is 401': problem(401) });
  staunch.logout(at, 'made-up', [204]);
}

function sessions() {
  const at = another();
  const name = staunch.username(4);
  const [first, second, third] = [1, 2, 3].map(() => staunch.login(at, name).json());
  const list = staunch.sessions(at, first.access_token).json();
  check(list, {
    'the list has each session': (list) => list.length === 3,
    'one of them is the current one': (list) => list.filter((one) => one.current).length === 1,
    'a session shows its address': (list) => list.every((one) => one.ip === at),
  });
  const current = list.find((one) => one.current).id;
  const other = list.find((one) => !one.current).id;
  staunch.endSession(at, first.access_token, other);
  const ended = (one) => staunch.me(at, one.access_token, [200, 401]).status === 401;
  check(null, {
    'ending a session ends that one alone': () => [second, third].filter(ended).length === 1 && !ended(first),
  });
  check(staunch.endSession(at, first.access_token, other, [404]), { 'an ended session is 404': problem(404) });
  check(staunch.endSession(at, null, current, [401]), { 'ending one without a token is 401': problem(401) });
  check(staunch.sessions(at, null, [401]), { 'the list without a token is 401': problem(401) });
  staunch.logoutAll(at, first.access_token);
  check(null, { 'logout-all ends every session': () => [first, second, third].every(ended) });
  check(staunch.logoutAll(at, first.access_token, [401]), { 'logout-all of an ended session is 401': problem(401) });
}

function password() {
  const at = another();
  const account = staunch.newAccount();
  const next = `${account.password}-next`;
  staunch.register(at, account);
  const token = staunch.login(at, account.username).json('access_token');
  const other = staunch.login(at, account.username).json('access_token');
  const change = (from, to, allowed) => staunch.changePassword(at, token, from, to, allowed);
  check(change('not the password', next, [401]), { 'a wrong current password is 401': problem(401) });
  check(change(account.password, 'short', [422]), { 'a bad new password is 422': problem(422) });
  check(staunch.changePassword(at, null, account.password, next, [401]), {
    'a change without a token is 401': problem(401),
  });
  change(account.password, next);
  check(null, {
    'the session that changed it goes on': () => staunch.me(at, token).status === 200,
    'the other sessions end': () => staunch.me(at, other, [401]).status === 401,
    'the old password is refused': () => staunch.login(at, account.username, account.password, [401]).status === 401,
    'the new password logs in': () => staunch.login(at, account.username, next).status === 200,
  });
}

function clients() {
  const at = another();
  const { access_token, refresh_token } = staunch.login(at, staunch.username(5)).json();
  const name = (r) => r.json('active') && r.json('username') === staunch.username(5);
  check(null, {
    'an access token is active': () => name(staunch.introspect(at, access_token)),
    'a refresh token is active': () => name(staunch.introspect(at, refresh_token)),
    'a made-up token is inactive': () => staunch.introspect(at, 'made-up').json('active') === false,
  });
  const stranger = { id: staunch.CLIENT.id, secret: 'wrong' };
  const rejected = (r) => r.status === 401 && r.json('error') === 'invalid_client';
  check(staunch.introspect(at, access_token, stranger, [401]), { 'a wrong secret may not introspect': rejected });
  check(staunch.revoke(at, refresh_token, stranger, [401]), { 'a wrong secret may not revoke': rejected });
  staunch.revoke(at, 'made-up');
  staunch.revoke(at, refresh_token);
  check(null, {
    'a revoked token is inactive': () => staunch.introspect(at, access_token).json('active') === false,
    'its session has ended': () => staunch.me(at, access_token, [401]).status === 401,
  });
}

function documents() {
  const at = another();
  check(staunch.jwks(at), { 'the key set has a key': (r) => r.json('keys').length >= 1 });
  check(staunch.metadata(at), {
    'the metadata name the endpoints': (r) => r.json('token_endpoint') === `${r.json('issuer')}/api/v1/auth/token`,
  });
}

// Compares the API's description with what this script has called.
function everyOperation() {
  const paths = staunch.openapi(another()).json('paths');
  const described = Object.keys(paths).flatMap((path) =>
    Object.keys(paths[path]).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const missed = described.filter((operation) => !staunch.called.has(operation));
  if (missed.length) console.error(`not called: ${missed.join(', ')}`);
  check(missed, { 'every operation of the description was called': (missed) => missed.length === 0 });
}

// A problem document (RFC 9457) of that status.
function problem(status) {
  return (response) =>
    response.status === status &&
    response.headers['Content-Type'] === 'application/problem+json' &&
    response.json('status') === status;
}
