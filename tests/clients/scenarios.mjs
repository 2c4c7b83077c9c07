// What an application does with openai-node, and what it sees: one JSON object, a key a scenario.
//
//     node tests/clients/scenarios.mjs BASE_URL KEY LIMITED_KEY
//
// The same as scenarios.py; what each must see stands in test_matrix.py. A scenario that throws is reported, not hidden.

import { readFileSync } from 'node:fs';
import OpenAI from 'openai';

const [baseURL, KEY, LIMITED_KEY] = process.argv.slice(2);
const HELLO = [{ role: 'user', content: 'hello' }];
const WEATHER = [
  { type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } },
];
const SCHEMA = {
  type: 'json_schema',
  json_schema: {
    name: 'report',
    strict: true,
    schema: { type: 'object', properties: { degrees: { type: 'integer' } }, required: ['degrees'] },
  },
};

// A client, and the paths of the requests that it has sent: each retry is one more.
function client(apiKey = KEY, more = {}) {
  const sent = [];
  const counted = (url, init) => {
    sent.push(new URL(url).pathname);
    return fetch(url, init);
  };
  return [new OpenAI({ baseURL, apiKey, fetch: counted, ...more }), sent];
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const text = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');

// What an application catches, and how many requests that took.
async function failure(act, { key = KEY, maxRetries = 2 } = {}) {
  const [at, sent] = client(key, { maxRetries });
  try {
    await act(at);
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return {
      class: error.constructor.name,
      status: error.status ?? null,
      code: error.code,
      param: error.param,
      requests: sent.length,
    };
  }
  return { class: null };
}

const ask = (model, more = {}) => (at) => at.chat.completions.create({ model, messages: HELLO, ...more });

const scenarios = {
  async plain() {
    const [at] = client();
    const { data, response } = await at.chat.completions.create({ model: 'echo', messages: HELLO }).withResponse();
    return {
      content: data.choices[0].message.content,
      total_tokens: data.usage.total_tokens,
      expert: response.headers.get('x-conclave-expert'),
      same_id: response.headers.get('x-request-id') === data.conclave.request_id,
    };
  },

  async stream_with_usage() {
    const [at] = client();
    const options = { model: 'echo', messages: HELLO, stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await at.chat.completions.create(options));
    const last = chunks.at(-1);
    return {
      role: chunks[0].choices[0].delta.role,
      content: text(chunks),
      finish_reason: chunks.findLast((chunk) => chunk.choices.length).choices[0].finish_reason,
      last_choices: last.choices.length,
      total_tokens: last.usage.total_tokens,
      usage_before: chunks.slice(0, -1).filter((chunk) => chunk.usage != null).length,
    };
  },

  async tools_in_streams() {
    const [at] = client();
    const messages = [{ role: 'user', content: 'weather in Paris?' }];
    const call = { id: '', name: '', arguments: '' };
    let finish = null;
    for await (const chunk of await at.chat.completions.create({ model: 'tools', messages, tools: WEATHER, stream: true })) {
      for (const choice of chunk.choices) {
        finish = choice.finish_reason ?? finish;
        for (const piece of choice.delta.tool_calls ?? []) {
          call.id += piece.id ?? '';
          call.name += piece.function?.name ?? '';
          call.arguments += piece.function?.arguments ?? '';
        }
      }
    }
    const made = { id: call.id, type: 'function', function: { name: call.name, arguments: call.arguments } };
    messages.push({ role: 'assistant', content: null, tool_calls: [made] });
    messages.push({ role: 'tool', tool_call_id: call.id, content: '21 degrees' });
    const answer = await collect(await at.chat.completions.create({ model: 'tools', messages, tools: WEATHER, stream: true }));
    const heard = text(answer).split('\n')[1]; // the expert says again what it got: the result, between markers
    return { ...call, arguments: JSON.parse(call.arguments), finish_reason: finish, heard };
  },

  async json_schema() {
    const [at] = client();
    const answer = await at.chat.completions.create({ model: 'schema', messages: HELLO, response_format: SCHEMA });
    return { parsed: JSON.parse(answer.choices[0].message.content) };
  },

  async several_choices() {
    const [at] = client();
    const answer = await at.chat.completions.create({ model: 'echo', messages: HELLO, n: 2, logprobs: true, top_k: 7 });
    return {
      contents: answer.choices.map((choice) => choice.message.content),
      tokens: answer.choices[0].logprobs.content.map((token) => token.token),
      top_k: answer.top_k,
    };
  },

  wrong_key: () => failure(ask('echo'), { key: 'cv_000000000000_00' }),
  bad_request: () => failure(ask('picky')),
  out_of_range: () => failure(ask('echo', { temperature: 9 })),
  unknown_model: () => failure(ask('gpt-9')),
  server_error: () => failure(ask('down'), { maxRetries: 1 }),
  error_in_a_stream: () => failure(async (at) => collect(await ask('cut', { stream: true })(at))),

  // Ask until the limit; then again with retries, which must wait as long as they are told.
  async rate_limit() {
    const [at] = client(LIMITED_KEY, { maxRetries: 0 });
    const [patient, sent] = client(LIMITED_KEY, { maxRetries: 2 });
    let refused;
    let atMs;
    while (!refused) {
      await at.models.list().catch((error) => {
        if (!(error instanceof OpenAI.RateLimitError)) throw error;
        refused = error;
        atMs = performance.now();
      });
    }
    await patient.models.list();
    return {
      code: refused.code,
      header: Number(refused.headers.get('retry-after')) >= 1,
      requests: sent.length,
      waited: performance.now() - atMs >= Number(refused.headers.get('retry-after-ms')),
    };
  },

  async abort() {
    const [at] = client();
    const { data, response } = await ask('long', { stream: true })(at).withResponse();
    const began = performance.now();
    let seen = 0;
    for await (const _ of data) {
      if (++seen === 3) break; // leaving the loop aborts the request
    }
    return { seen, request_id: response.headers.get('x-request-id'), at_once: performance.now() - began < 5000 };
  },

  async embeddings() {
    const [at] = client();
    const answer = await at.embeddings.create({ model: 'embed', input: ['one', 'two'] }); // asks for base64 and unpacks it
    const floats = await at.embeddings.create({ model: 'embed', input: 'one', encoding_format: 'float' });
    return {
      vectors: answer.data.map((entry) => Array.from(entry.embedding)),
      float: floats.data[0].embedding,
      prompt_tokens: answer.usage.prompt_tokens,
    };
  },

  async completions() {
    const [at] = client();
    const answer = await at.completions.create({ model: 'echo', prompt: 'hello' });
    const streamed = await collect(await at.completions.create({ model: 'echo', prompt: 'hello', stream: true }));
    return { text: answer.choices[0].text, streamed: streamed.map((chunk) => chunk.choices[0]?.text ?? '').join('') };
  },

  async models() {
    const [at] = client();
    const listed = new Set((await collect(await at.models.list())).map((model) => model.id));
    return {
      listed: ['auto', 'echo'].filter((id) => listed.has(id)),
      retrieved: (await at.models.retrieve('acme/large:1')).id,
    };
  },

  async asynchronous() {
    const [at] = client();
    const both = await Promise.all([ask('echo')(at), ask('echo')(at)]);
    const streamed = await collect(await ask('echo', { stream: true })(at));
    return { contents: both.map((answer) => answer.choices[0].message.content), streamed: text(streamed) };
  },
};

const seen = {};
for (const [name, scenario] of Object.entries(scenarios)) {
  try {
    seen[name] = await scenario();
  } catch (error) {
    seen[name] = { raised: `${error.constructor.name}: ${error.message}`.slice(0, 500) };
  }
}
const { version } = JSON.parse(readFileSync(new URL('node_modules/openai/package.json', import.meta.url)));
process.stdout.write(JSON.stringify({ version, seen }));
