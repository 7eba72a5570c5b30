// Shared by all scripts: staunch's HTTP API from the client's side, a client address for each user, and
// the numbers that every script reports. `loadtest/run` sets the environment; a script that is run with
// k6 alone has these defaults:
//
//   BASE_URL  the server                                    http://127.0.0.1:8080
//   USERS     accounts that were imported, load000000 on    2000
//   PASSWORD  the one password of all of them
//   CAPACITY  staunch_hash_capacity of the server           30
//   DEADLINE  STAUNCH_HASH_DEADLINE of the server           30s
//   CLIENT_ID, CLIENT_SECRET  an OAuth client of the server; only smoke.js needs one
//   SETTLE    seconds to wait after a call that ends sessions     0
//             (several nodes: the others learn of it within 1)
//
// The server must trust 127.0.0.1 as a proxy (STAUNCH_TRUSTED_PROXIES). Then the rate limits stay on and
// count by the address that each request names.

import encoding from 'k6/encoding';
import { sleep } from 'k6';
import http from 'k6/http';
import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';

export const BASE = __ENV.BASE_URL || 'http://127.0.0.1:8080';
export const USERS = Number(__ENV.USERS || 2000);
export const PASSWORD = __ENV.PASSWORD || 'Load-test-password-1';
export const CAPACITY = Number(__ENV.CAPACITY || 30);
export const DEADLINE = seconds(__ENV.DEADLINE || '30s');
const SETTLE = Number(__ENV.SETTLE || 0);
export const CLIENT = { id: __ENV.CLIENT_ID, secret: __ENV.CLIENT_SECRET };

// Answers that the script did not allow, including transport errors (status 0) and every 5xx except an
// allowed 503.
const unexpected = new Counter('unexpected');
// How late an iteration began, compared with the schedule of its arrival rate. A generator that falls
// behind measures a lighter load than it claims.
const lateness = new Trend('schedule_lateness', true);

// Options that every script shares.
export const common = {
  // Only what the runner reads, because more costs time.
  systemTags: ['method', 'name', 'scenario', 'status', 'error_code'],
  summaryTrendStats: ['avg', 'min', 'med', 'p(95)', 'p(99)', 'max'],
  setupTimeout: '60s',
};

// Every operation that this user has called, as "GET /metrics".
export const called = new Set();

// The operations that end sessions.
const ENDS = new Set(['logout', 'logout_all', 'end_session', 'password', 'revoke']);

// One request. `op` names it in the results; `allowed` are the statuses that are not a failure.
// `route` is the path as the API's description has it, where that differs from `path`.
function call(op, method, path, address, allowed, body, headers, route = path) {
  const response = http.request(method, BASE + path, body, {
    headers: Object.assign({}, headers, address && { 'X-Forwarded-For': address }),
    tags: { name: route, op },
    timeout: '120s',
  });
  called.add(`${method} ${route}`);
  // A refresh that is refused may have ended its session, as a stolen token does.
  if (SETTLE && (ENDS.has(op) || (op === 'refresh' && response.status === 401))) sleep(SETTLE);
  const early = response.status === 503 && !(retryAfter(response) >= 1);
  if (!allowed.includes(response.status) || early) {
    unexpected.add(1, { op, status: String(response.status) });
    // The first ones of each user are enough to see what is wrong.
    if (exec.vu.iterationInInstance < 3) {
      console.error(`${op}: ${response.status} ${response.error} ${response.body}`);
    }
  }
  return response;
}

const JSON_BODY = { 'Content-Type': 'application/json' };

export function register(address, account, allowed = [201]) {
  const body = typeof account === 'string' ? account : JSON.stringify(account);
  return call('register', 'POST', '/api/v1/auth/register', address, allowed, body, JSON_BODY);
}

// k6 encodes an object as a form.
export function login(address, username, password = PASSWORD, allowed = [200]) {
  const form = { username, password };
  return call('login', 'POST', '/api/v1/auth/token', address, allowed, form);
}

export function refresh(address, refresh_token, allowed = [200]) {
  const body = JSON.stringify({ refresh_token });
  return call('refresh', 'POST', '/api/v1/auth/refresh', address, allowed, body, JSON_BODY);
}

export function refreshByForm(address, refresh_token, allowed = [200]) {
  const form = { grant_type: 'refresh_token', refresh_token };
  return call('refresh', 'POST', '/api/v1/auth/token', address, allowed, form);
}

export function logout(address, refresh_token, allowed = [204]) {
  const body = JSON.stringify({ refresh_token });
  return call('logout', 'POST', '/api/v1/auth/logout', address, allowed, body, JSON_BODY);
}

const bearer = (access_token) => (access_token ? { Authorization: `Bearer ${access_token}` } : {});

export function me(address, access_token, allowed = [200]) {
  return call('me', 'GET', '/api/v1/auth/me', address, allowed, null, bearer(access_token));
}

export function logoutAll(address, access_token, allowed = [204]) {
  const path = '/api/v1/auth/logout-all';
  return call('logout_all', 'POST', path, address, allowed, null, bearer(access_token));
}

export function sessions(address, access_token, allowed = [200]) {
  const path = '/api/v1/auth/sessions';
  return call('sessions', 'GET', path, address, allowed, null, bearer(access_token));
}

export function endSession(address, access_token, id, allowed = [204]) {
  const path = '/api/v1/auth/sessions/';
  const headers = bearer(access_token);
  return call('end_session', 'DELETE', path + id, address, allowed, null, headers, `${path}{id}`);
}

export function changePassword(address, access_token, current_password, new_password, allowed = [204]) {
  const body = JSON.stringify({ current_password, new_password });
  const headers = Object.assign(bearer(access_token), JSON_BODY);
  return call('password', 'POST', '/api/v1/auth/password', address, allowed, body, headers);
}

export function introspect(address, token, client = CLIENT, allowed = [200]) {
  const path = '/api/v1/auth/introspect';
  return call('introspect', 'POST', path, address, allowed, { token }, basic(client));
}

export function revoke(address, token, client = CLIENT, allowed = [200]) {
  return call('revoke', 'POST', '/api/v1/auth/revoke', address, allowed, { token }, basic(client));
}

const basic = ({ id, secret }) => ({ Authorization: `Basic ${encoding.b64encode(`${id}:${secret}`)}` });

const document = (op, path) => (address) => call(op, 'GET', path, address, [200]);
export const jwks = document('jwks', '/.well-known/jwks.json');
export const metadata = document('metadata', '/.well-known/oauth-authorization-server');
export const openapi = document('openapi', '/openapi.json');

export const liveness = () => call('liveness', 'GET', '/health/liveness', null, [200]);
export const readiness = () => call('readiness', 'GET', '/health/readiness', null, [200]);
export const metrics = () => call('metrics', 'GET', '/metrics', null, [200]);

// A sample of /metrics by its name and labels; 0 if there is none, because a counter appears with its
// first event.
export function sample(text, name) {
  const line = text.split('\n').find((line) => line.startsWith(`${name} `));
  return line ? Number(line.slice(name.length)) : 0;
}

// The n-th client address, in 10.0.0.0/8. Every user has one, and so stays below the rate limits.
export function address(n) {
  return `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`;
}

// The n-th imported account.
export const username = (n) => `load${String(n % USERS).padStart(6, '0')}`;

// An account that no other iteration and no earlier run has registered.
export function newAccount() {
  const name = `new-${exec.vu.idInTest}-${exec.vu.iterationInInstance}-${Date.now().toString(36)}`;
  return { email: `${name}@example.com`, username: name, password: PASSWORD };
}

export const retryAfter = (response) => Number(response.headers['Retry-After']);

// A request's whole time. http_req_duration alone does not include the wait for a connection.
export const took = (response) => response.timings.blocked + response.timings.duration;

// Records how late this iteration of a constant arrival rate began.
export function onSchedule(rate) {
  const due = exec.scenario.startTime + (exec.scenario.iterationInTest * 1000) / rate;
  lateness.add(Math.max(0, Date.now() - due));
}

// Thresholds of an open loop: it kept its schedule, and skipped almost nothing for lack of a free user (a
// user is busy as long as its request is).
export const keptSchedule = (rate) => ({
  schedule_lateness: ['p(99)<100'],
  dropped_iterations: [`rate<${rate / 1000}`],
});

// 90s, 5m, 1h, 500ms as seconds.
export function seconds(text) {
  const [, number, unit] = /^([\d.]+)(ms|s|m|h)$/.exec(text);
  return Number(number) * { ms: 0.001, s: 1, m: 60, h: 3600 }[unit];
}
