// @x402/fetch against a server, as the key SDK_PAYER. Two accounts whose balances are empty: SDK_KEY pays at the call that is for
// paying, SDK_OTHER_KEY, where there is one, by the chat that was refused. Then signs what SDK_TO_SIGN asks for, a JSON list, in
// place of what the server asks SDK_KEY for. Prints JSON.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const beside = createRequire(join(process.env.SDK_NODE_MODULES, "..", "beside.js"));
const { wrapFetchWithPayment, x402Client, x402HTTPClient, decodePaymentResponseHeader } = beside("@x402/fetch");
const { ExactEvmScheme } = beside("@x402/evm/exact/client");
const { privateKeyToAccount } = beside("viem/accounts");
const OpenAI = beside("openai").default;

const client = new x402Client().register("eip155:*", new ExactEvmScheme(privateKeyToAccount(process.env.SDK_PAYER)));
const http = new x402HTTPClient(client);
const sent = [];
const noting = async (request) => {
  const signature = request.headers.get("PAYMENT-SIGNATURE");
  if (signature) sent.push(signature);
  return fetch(request);
};
const paying = wrapFetchWithPayment(noting, client);
const url = process.env.SDK_URL;
const call = (key, body) => ({
  method: "POST", body: JSON.stringify(body),
  headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
});
const chat = { model: "chat-model", messages: [{ role: "user", content: "hello" }], max_tokens: 5 };

async function pay() {
  // Refused, with what to pay beside the error.
  const refused = await fetch(`${url}/v1/chat/completions`, call(process.env.SDK_KEY, chat));
  assert.equal(refused.status, 402);
  assert.equal((await refused.json()).error.code, "payment_required");
  assert.equal(http.getPaymentRequiredResponse((name) => refused.headers.get(name)).x402Version, 2);

  // Paid where one pays, and the same request works.
  const paid = await paying(`${url}/v1/topup/x402`, call(process.env.SDK_KEY, {}));
  const told = await paid.json();
  assert.equal(paid.status, 200, JSON.stringify(told));
  assert.equal(told.status, "credited");
  const response = decodePaymentResponseHeader(paid.headers.get("PAYMENT-RESPONSE"));
  assert.deepEqual([response.success, response.transaction], [true, told.transaction]);
  const again = await fetch(`${url}/v1/chat/completions`, call(process.env.SDK_KEY, chat));
  assert.equal(again.status, 200, await again.text());

  // OpenAI's own client, whose balance is empty, with fetch wrapped: one call, and it is answered.
  const openai = new OpenAI({ apiKey: process.env.SDK_OTHER_KEY, baseURL: `${url}/v1`, fetch: (input, init) => paying(input, init) });
  const { data: answer, response: raw } = await openai.chat.completions.create(chat).withResponse();
  assert.ok(answer.choices[0].message.content);
  assert.ok(decodePaymentResponseHeader(raw.headers.get("PAYMENT-RESPONSE")).success);
}

const asked = await fetch(`${url}/v1/topup/x402`, { method: "POST", headers: { authorization: `Bearer ${process.env.SDK_KEY}` } });
assert.equal(asked.status, 402);
const required = http.getPaymentRequiredResponse((name) => asked.headers.get(name));
if (process.env.SDK_OTHER_KEY) await pay();

// Whatever is asked for: what is signed here is not meant to be paid.
client.setSpendControls(false);
const signed = [];
for (const other of JSON.parse(process.env.SDK_TO_SIGN)) {
  const payload = await http.createPaymentPayload({ ...required, accepts: [{ ...required.accepts[0], ...other }] });
  signed.push(http.encodePaymentSignatureHeader(payload)["PAYMENT-SIGNATURE"]);
}
console.log(JSON.stringify({ required, sent, signed }));
