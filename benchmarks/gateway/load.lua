-- The load that wrk sends: one chat request of about 440 bytes of prompt, its number new each time, so that no server
-- can answer, or classify, from memory. Arguments: "plain" or "stream", the model, a first number, the JSON-safe prompt.
local body_format, number

function init(args)
   local stream = args[1] == "stream" and "true" or "false"
   number = tonumber(args[3])
   body_format = '{"model":"' .. args[2] .. '","stream":' .. stream
      .. ',"messages":[{"role":"user","content":"' .. args[4] .. '"}]}'
   wrk.method = "POST"
   wrk.headers["content-type"] = "application/json"
end

function request()
   number = number + 1
   return wrk.format(nil, nil, nil, string.format(body_format, number))
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\nRESULT {"requests":%d,"seconds":%.6f,"p50_ms":%.4f,"p99_ms":%.4f,"errors":%d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
