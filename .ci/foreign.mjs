// Verifies an access token as a resource server on Node would: by the key set of the running server.
import { createRemoteJWKSet, jwtVerify } from 'jose'

const [jwks, issuer, algorithm, token] = process.argv.slice(2)
const keys = createRemoteJWKSet(new URL(jwks))
const expected = { issuer, audience: 'staunch', algorithms: [algorithm], typ: 'at+jwt' }
const { payload, protectedHeader } = await jwtVerify(token, keys, expected)
if (payload.sub !== '1' || protectedHeader.alg !== algorithm) {
  throw new Error(`unexpected token: ${JSON.stringify({ payload, protectedHeader })}`)
}
const [header, body, signature] = token.split('.')
const altered = `${header}.${body}.${signature[0] === 'A' ? 'B' : 'A'}${signature.slice(1)}`
await jwtVerify(altered, keys, expected).then(
  () => { throw new Error('an altered token passes') },
  (error) => { if (error.code !== 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED') throw error },
)
