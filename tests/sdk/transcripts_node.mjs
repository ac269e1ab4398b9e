// OpenAI's Node package has a sound written down, with nothing but its base URL changed. It sends the file first.
//
// crates/api/tests/suite/hearing.rs starts the server with a real recogniser behind it, and runs this.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const env = (name) => process.env[name] ?? assert.fail(`${name} is not set`);
// Modules are looked for beside the importing file, and they are installed elsewhere.
const OpenAI = createRequire(join(env("SDK_NODE_MODULES"), "..", "beside.js"))("openai");

// The recogniser does not say that it is well while it hears, and is then given a pause where the machine is slow.
const client = new OpenAI({ baseURL: `${env("SDK_URL")}/v1`, apiKey: env("SDK_KEY"), maxRetries: 8, timeout: 120_000 });
const model = "hear-model";
const said = "good morning please open the window and close the door".split(" ");
const words = (text) => text.toLowerCase().match(/[a-z]+/g);
const file = () => createReadStream(env("SDK_SOUND"));

const answer = await client.audio.transcriptions.create({ file: file(), model });
assert.deepEqual(words(answer.text), said);
assert.equal(answer.usage.type, "duration");

const events = [];
for await (const event of await client.audio.transcriptions.create({ file: file(), model, stream: true })) events.push(event);
assert.equal(events.at(-1).type, "transcript.text.done");
assert.deepEqual(words(events.at(-1).text), said);
assert.ok(events.slice(0, -1).every((event) => event.type === "transcript.text.delta"));

assert.deepEqual(words((await client.audio.translations.create({ file: file(), model })).text), said);
await assert.rejects(
  client.audio.transcriptions.create({ file: file(), model: "nobody" }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);
