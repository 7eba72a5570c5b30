-- The time of the server in milliseconds since 1970, so that the clocks of the nodes do not matter.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
