// The official Node package against a running server, with nothing but its base URL changed.
//
// crates/server/tests/sdk.rs starts the server, makes the keys and runs this. The first check that fails ends the run.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const env = (name) => process.env[name] ?? assert.fail(`${name} is not set`);
const [url, key, poorKey, limitedKey] = ["SDK_URL", "SDK_KEY", "SDK_POOR_KEY", "SDK_LIMITED_KEY"].map(env);
// Modules are looked for beside the importing file, and they are installed elsewhere.
const OpenAI = createRequire(join(env("SDK_NODE_MODULES"), "..", "beside.js"))("openai");

const chatModel = "smollm2-135m-instruct";
const embedModel = "all-minilm-l6-v2";
const bases = ["", "/v1", "/openai/v1"];

const client = (base = "/v1", options = {}) =>
  new OpenAI({ baseURL: url + base, apiKey: key, maxRetries: 0, timeout: 120_000, ...options });
const user = (content) => [{ role: "user", content }];

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** The error that `call` rejects with, which must be of exactly this class. */
async function refused(kind, call) {
  const error = await call().then(() => assert.fail(`no ${kind.name}`), (error) => error);
  assert.equal(error.constructor.name, kind.name, String(error.stack));
  return error;
}

/** An API error carries the documented body, and the id of its request. */
function told(error, status, code, param = null) {
  assert.deepEqual([error.status, error.code, error.param], [status, code, param], error.message);
  assert.ok(error.error.message && error.type);
  assert.equal(error.requestID, error.headers.get("x-request-id"));
  assert.ok(error.requestID);
}

function countsAddUp(usage) {
  assert.ok(usage.prompt_tokens > 0 && usage.completion_tokens > 0);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
}

const onEveryBase = {
  async chat(base) {
    const answer = await client(base).chat.completions.create({
      model: chatModel,
      messages: user("Name three colours."),
      max_tokens: 24,
      temperature: 0,
    });
    assert.match(answer.id, /^chatcmpl_/);
    assert.deepEqual([answer.object, answer.model], ["chat.completion", chatModel]);
    assert.match(answer.choices[0].message.content, /red|blue|green/i);
    assert.ok(["stop", "length"].includes(answer.choices[0].finish_reason));
    countsAddUp(answer.usage);
    assert.ok(answer._request_id);
  },

  async stream(base) {
    const stream = await client(base).chat.completions.create({
      model: chatModel,
      messages: user("Name three colours."),
      max_tokens: 16,
      stream: true,
    });
    const chunks = await collect(stream);
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    assert.ok(chunks.every((chunk) => chunk.choices.length === 1 && !chunk.usage), "usage although nobody asked");
    assert.ok(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("").trim());
    assert.ok(["stop", "length"].includes(chunks.at(-1).choices[0].finish_reason));
  },

  async "stream with usage"(base) {
    const stream = client(base).chat.completions.stream({
      model: chatModel,
      messages: user("Name three colours."),
      max_tokens: 16,
      stream_options: { include_usage: true },
    });
    countsAddUp(await stream.totalUsage());
    assert.ok((await stream.finalContent()).trim());
  },

  async completions(base) {
    const asked = { model: chatModel, prompt: "One, two, three,", max_tokens: 8, temperature: 0 };
    const answer = await client(base).completions.create(asked);
    assert.match(answer.id, /^cmpl_/);
    assert.equal(answer.object, "text_completion");
    assert.match(answer.choices[0].text, /four/);
    countsAddUp(answer.usage);
    const chunks = await collect(await client(base).completions.create({ ...asked, stream: true }));
    assert.match(chunks.map((chunk) => chunk.choices[0].text).join(""), /four/);
  },

  async embeddings(base) {
    const input = ["A kitten sleeps.", "A small cat naps.", "The invoice is due on Monday."];
    // Without encoding_format the package asks for base64 and decodes it itself.
    const answer = await client(base).embeddings.create({ model: embedModel, input });
    const [kitten, cat, invoice] = answer.data.map((item) => item.embedding);
    assert.deepEqual([kitten.length, cat.length, invoice.length], [384, 384, 384]);
    const alike = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);
    assert.ok(Math.abs(alike(kitten, kitten) - 1) < 1e-3);
    assert.ok(alike(kitten, cat) > 0.5 && alike(kitten, invoice) < 0.5);
    const plain = await client(base).embeddings.create({ model: embedModel, input: input[0], encoding_format: "float" });
    assert.ok(Math.abs(plain.data[0].embedding[0] - kitten[0]) < 1e-3);
  },

  async models(base) {
    const listed = (await collect(await client(base).models.list())).map((model) => model.id);
    assert.ok(listed.includes(chatModel) && listed.includes(embedModel));
    assert.equal((await client(base).models.retrieve(embedModel)).id, embedModel);
    const missing = await refused(OpenAI.NotFoundError, () => client(base).models.retrieve("no-such-model"));
    told(missing, 404, "model_not_found", "model");
  },

  async refusals(base) {
    const ask = (changes, options) =>
      client(base, options).chat.completions.create({
        ...{ model: chatModel, messages: user("Hello"), max_tokens: 4 },
        ...changes,
      });
    const wrong = await refused(OpenAI.AuthenticationError, () => ask({}, { apiKey: "batchin_api_wrong" }));
    told(wrong, 401, "unauthorized");
    told(await refused(OpenAI.NotFoundError, () => ask({ model: "gpt-99" })), 404, "model_not_found", "model");
    for (const [param, changes] of [
      ["temperature", { temperature: "hot" }],
      ["max_tokens", { max_tokens: -1 }],
      ["messages", { messages: [] }],
      ["model", { model: embedModel }],
    ]) {
      told(await refused(OpenAI.BadRequestError, () => ask(changes)), 400, "invalid_request", param);
    }
    for (const stream of [false, true]) {
      told(await refused(OpenAI.APIError, () => ask({ stream }, { apiKey: poorKey })), 402, "payment_required");
    }
  },
};

const once = {
  async "a prompt over the context"() {
    const asked = { model: chatModel, messages: user("word ".repeat(9_000)), max_tokens: 4 };
    const error = await refused(OpenAI.BadRequestError, () => client().chat.completions.create(asked));
    told(error, 400, "context_length_exceeded", "messages");
  },

  async "the rate limit"() {
    const limited = client("/v1", { apiKey: limitedKey });
    const error = await refused(OpenAI.RateLimitError, async () => {
      // Two a minute: whatever minute it is, one of five is refused.
      for (let count = 0; count < 5; count += 1) await limited.embeddings.create({ model: embedModel, input: "Hello" });
    });
    told(error, 429, "rate_limit_exceeded");
    assert.equal(error.headers.get("x-ratelimit-limit-requests"), "2");
    assert.equal(error.headers.get("x-ratelimit-remaining-requests"), "0");
    const pause = Number(error.headers.get("retry-after"));
    assert.ok(pause > 0 && pause <= 60);
  },

  async "files"() {
    const files = client("/openai/v1").files;
    const text = '{"custom_id": "a"}\n'.repeat(1_000);
    const made = await files.create({
      file: await OpenAI.toFile(Buffer.from(text), "input ü.jsonl"),
      purpose: "batch",
      expires_after: { anchor: "created_at", seconds: 3_600 },
    });
    assert.ok(made.id.startsWith("file-"));
    assert.deepEqual([made.object, made.bytes, made.filename], ["file", text.length, "input ü.jsonl"]);
    assert.equal(made.expires_at, made.created_at + 3_600);
    const other = await files.create({ file: await OpenAI.toFile(Buffer.from("x"), "x.txt"), purpose: "user_data" });
    assert.deepEqual(await files.retrieve(made.id), made);
    assert.deepEqual((await collect(await files.list({ limit: 1 }))).map((file) => file.id), [other.id, made.id]);
    const content = await files.content(made.id);
    assert.equal(content.headers.get("content-length"), String(text.length));
    assert.equal(await content.text(), text);
    const wrong = () => files.create({ file: new File(["x"], "x"), purpose: "fun" });
    told(await refused(OpenAI.BadRequestError, wrong), 400, "invalid_request", "purpose");
    for (const id of [made.id, other.id]) {
      assert.deepEqual(await files.delete(id), { id, object: "file", deleted: true });
    }
    told(await refused(OpenAI.NotFoundError, () => files.content(made.id)), 404, "not_found");
  },

  async "batches"() {
    const api = client("/openai/v1");
    const request = (custom_id, changes = {}) => ({
      custom_id,
      method: "POST",
      url: "/v1/chat/completions",
      body: { model: chatModel, messages: user("Name three colours."), max_tokens: 8, ...changes },
    });
    const submit = async (lines, options = {}) => {
      const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
      const file = await api.files.create({ file: await OpenAI.toFile(Buffer.from(text), "in.jsonl"), purpose: "batch" });
      const asked = { input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h", ...options };
      return api.batches.create(asked);
    };
    const until = async (status, batch) => {
      const last = performance.now() + 60_000;
      while (batch.status !== status) {
        const goesOn = ["validating", "in_progress", "finalizing", "cancelling"].includes(batch.status);
        assert.ok(goesOn && performance.now() < last, JSON.stringify(batch));
        await new Promise((resolve) => setTimeout(resolve, 200));
        batch = await api.batches.retrieve(batch.id);
      }
      return batch;
    };
    const linesOf = async (id) => {
      const text = id ? await (await api.files.content(id)).text() : "";
      return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
    };

    const tooLong = { messages: user("word ".repeat(9_000)) };
    const lines = [request("a"), request("too long", tooLong), request("b")];
    const made = await submit(lines, { metadata: { team: "a" } });
    assert.match(made.id, /^batch_[0-9a-f]{32}$/);
    assert.deepEqual([made.object, made.metadata.team, made.errors], ["batch", "a", null]);
    assert.equal(made.expires_at, made.created_at + 86_400);
    const done = await until("completed", made);
    assert.deepEqual(done.request_counts, { total: 3, completed: 2, failed: 1 });
    const good = await linesOf(done.output_file_id);
    assert.deepEqual(good.map((line) => line.custom_id).sort(), ["a", "b"]);
    assert.ok(good.every((line) => line.response.body.choices[0].message.content));
    const output = good.reduce((sum, line) => sum + line.response.body.usage.completion_tokens, 0);
    assert.equal(done.usage.output_tokens, output);
    const [bad] = await linesOf(done.error_file_id);
    assert.equal(bad.response.body.error.code, "context_length_exceeded");

    const failed = await until("failed", await submit([request("a", { model: "gpt-99" })]));
    const [fault] = failed.errors.data;
    assert.deepEqual([fault.line, fault.code, fault.param], [1, "model_not_found", "body.model"]);

    const long = Array.from({ length: 40 }, (_, at) => request(String(at), { max_tokens: 1_500, ignore_eos: true }));
    const running = await until("in_progress", await submit(long));
    const used = await refused(OpenAI.ConflictError, () => api.files.delete(running.input_file_id));
    assert.equal(used.headers.get("x-should-retry"), "false");
    const stopped = await api.batches.cancel(running.id);
    assert.ok(stopped.cancelling_at);
    const cancelled = await until("cancelled", stopped);
    const [kept, left] = [await linesOf(cancelled.output_file_id), await linesOf(cancelled.error_file_id)];
    assert.equal(new Set([...kept, ...left].map((line) => line.custom_id)).size, 40);
    assert.ok(left.every((line) => line.error.code === "batch_cancelled"));
    assert.deepEqual(cancelled.request_counts, { total: 40, completed: kept.length, failed: left.length });

    const listed = (await collect(await api.batches.list({ limit: 2 }))).map((batch) => batch.id);
    assert.deepEqual(listed, [cancelled.id, failed.id, done.id]);
    const strange = client("/openai/v1", { apiKey: poorKey });
    told(await refused(OpenAI.NotFoundError, () => strange.batches.retrieve(done.id)), 404, "not_found");
  },

  // Below /v1 and at the root the documented batches have another shape, and this client still has OpenAI's.
  async "batches under every base"() {
    for (const base of bases) {
      const api = client(base);
      const body = { model: chatModel, messages: user("Hello"), max_tokens: 2 };
      const line = JSON.stringify({ custom_id: "a", method: "POST", url: "/v1/chat/completions", body });
      const file = await api.files.create({ file: await OpenAI.toFile(Buffer.from(line), "in.jsonl"), purpose: "batch" });
      assert.deepEqual(await api.files.retrieve(file.id), file);
      const asked = { input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" };
      const made = await api.batches.create(asked);
      assert.match(made.id, /^batch_[0-9a-f]{32}$/);
      let batch = made;
      for (const last = performance.now() + 60_000; batch.status !== "completed"; ) {
        assert.ok(performance.now() < last && batch.object === "batch", JSON.stringify(batch));
        await new Promise((resolve) => setTimeout(resolve, 200));
        batch = await api.batches.retrieve(made.id);
      }
      assert.equal(JSON.parse(await (await api.files.content(batch.output_file_id)).text()).custom_id, "a");
      assert.deepEqual(await api.batches.cancel(batch.id), batch);
      assert.equal((await collect(await api.batches.list({ limit: 1 })))[0].id, batch.id);
      const wrong = () => api.batches.create({ ...asked, input_file_id: "file-none" });
      told(await refused(OpenAI.NotFoundError, wrong), 404, "not_found", "input_file_id");
      assert.ok((await api.files.delete(file.id)).deleted);
    }
  },

  async "early answers are read"() {
    const apiKey = `batchin_api_${"A".repeat(43)}`;
    const chat = { model: chatModel, messages: user("x".repeat(3_000_000)) };
    for (let turn = 0; turn < 10; turn += 1) {
      const file = new File(['{"a": "bcd"}'], "a.jsonl");
      const upload = () => client("/openai/v1", { apiKey }).files.create({ file, purpose: "batch" });
      told(await refused(OpenAI.AuthenticationError, upload), 401, "unauthorized");
      const ask = (base, options) => () => client(base, options).chat.completions.create(chat);
      told(await refused(OpenAI.AuthenticationError, ask("/v1", { apiKey })), 401, "unauthorized");
      told(await refused(OpenAI.NotFoundError, ask("/v9")), 404, "not_found");
    }
  },

  async "timeouts and leaving"() {
    const long = { model: chatModel, messages: user("Tell a long story."), max_tokens: 1_500, ignore_eos: true };
    const began = performance.now();
    await refused(OpenAI.APIConnectionTimeoutError, () => client("/v1", { timeout: 300 }).chat.completions.create(long));
    assert.ok(performance.now() - began < 5_000);
    const stream = await client().chat.completions.create({ ...long, stream: true });
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      break;
    }
    assert.ok((await client().embeddings.create({ model: embedModel, input: "Hello" })).data.length);
  },

  async "several at once"() {
    const ask = (number) =>
      client().chat.completions.stream({ model: chatModel, messages: user(`Count to ${number}.`), max_tokens: 12 });
    const texts = await Promise.all([1, 2, 3, 4].map((number) => ask(number).finalContent()));
    assert.ok(texts.every((text) => text.trim()));
  },
};

const runs = [
  ...bases.flatMap((base) => Object.entries(onEveryBase).map(([name, check]) => [`${name} ${base}`, () => check(base)])),
  ...Object.entries(once),
];
for (const [name, check] of runs) {
  try {
    await check();
  } catch (error) {
    console.error(error);
    console.error(`${name} failed`);
    process.exit(1);
  }
  console.log(`${name}: fine`);
}
