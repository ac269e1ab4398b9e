// A text spoken through the official Node package and the Vercel AI SDK. Prints what came, as JSON.
//
// crates/api/tests/suite/speech.rs runs this.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { join } from "node:path";

const { SDK_URL: url, SDK_KEY: key, SDK_NODE_MODULES: modules } = process.env;
// Modules are looked for beside the importing file, and they are installed elsewhere.
const required = createRequire(join(modules, "..", "beside.js"));
const OpenAI = required("openai");
const { createOpenAI } = required("@ai-sdk/openai");
const { experimental_generateSpeech: generateSpeech } = required("ai");

const text = "Twenty letters here.";
const sha = (bytes) => createHash("sha256").update(bytes).digest("hex");

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const asked = { model: "voice-model", voice: "alloy", input: text, response_format: "pcm" };
const response = await client.audio.speech.create(asked);
const whole = sha(Buffer.from(await response.arrayBuffer()));
const refused = await client.audio.speech.create({ ...asked, voice: "nobody" }).then(
  () => null,
  (error) => error.param,
);
const spoken = await generateSpeech({
  model: createOpenAI({ baseURL: url, apiKey: key }).speech("voice-model"),
  text,
  voice: "nova",
  outputFormat: "pcm",
});
console.log(JSON.stringify({ whole, ai: sha(spoken.audio.uint8Array), refused }));
