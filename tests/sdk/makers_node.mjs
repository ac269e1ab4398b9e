// Pictures and films through the official Node package, and pictures through the Vercel AI SDK. Prints what came, as JSON.
//
// crates/api/tests/suite/makers.rs starts the server with a fake maker of both behind it, and runs this.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { join } from "node:path";

const { SDK_URL: url, SDK_KEY: key, SDK_NODE_MODULES: modules } = process.env;
// Modules are looked for beside the importing file, and they are installed elsewhere.
const required = createRequire(join(modules, "..", "beside.js"));
const OpenAI = required("openai");
const { createOpenAI } = required("@ai-sdk/openai");
const { generateImage } = required("ai");

const sha = (bytes) => createHash("sha256").update(bytes).digest("hex");
const bytesOf = async (response) => Buffer.from(await response.arrayBuffer());
// The server's own address is not known when it starts.
const fetched = async (at) => bytesOf(await fetch(at.replace("http://batchin.test", url.replace(/\/v1$/, ""))));
const all = async (page) => {
  const found = [];
  for await (const one of page) found.push(one);
  return found;
};

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const asked = { model: "draw-model", prompt: "A red kite.", size: "96x64" };
const byUrl = await client.images.generate({ ...asked, n: 2, response_format: "url" });
const { data: byBytes, response } = await client.images
  .generate({ ...asked, response_format: "b64_json" })
  .withResponse();
if (!response.headers.get("x-request-id") || byBytes.data[0].url) throw new Error(JSON.stringify(byBytes));
const pictures = [...(await Promise.all(byUrl.data.map((picture) => fetched(picture.url))))];
pictures.push(Buffer.from(byBytes.data[0].b64_json, "base64"));
const refused = await client.images.generate({ ...asked, size: "9x9999999" }).then(
  () => null,
  (error) => error.param,
);
const drawn = await generateImage({
  model: createOpenAI({ baseURL: url, apiKey: key }).image("draw-model"),
  prompt: "A red kite.",
  size: "96x64",
  n: 2,
});

const film = { model: "film-model", prompt: "A kite.", seconds: "4", size: "480x848" };
const made = await client.videos.create(film);
let ended = made;
while (ended.status === "queued" || ended.status === "in_progress") {
  await new Promise((resolve) => setTimeout(resolve, 20));
  ended = await client.videos.retrieve(made.id);
}
const listed = (await all(client.videos.list({ limit: 1 }))).map((video) => video.id);
const content = await bytesOf(await client.videos.downloadContent(made.id));
const deleted = await client.videos.delete(made.id);
const left = await all(client.videos.list());
const gone = await client.videos.retrieve(made.id).then(
  () => false,
  (error) => error instanceof OpenAI.NotFoundError,
);
console.log(
  JSON.stringify({
    pictures: pictures.map(sha),
    ai: drawn.images.map((image) => [image.mediaType, sha(image.uint8Array)]),
    refused,
    film: [ended.status, ended.seconds, ended.size, ended.progress, ended.error],
    listed: listed.includes(made.id),
    content: sha(content),
    deleted: [deleted.deleted, deleted.id === made.id, left.every((video) => video.id !== made.id), gone],
  }),
);
