// The official facilitator of x402 (@x402/core, @x402/evm) on the chain at SDK_CHAIN_URL, over HTTP as they all speak it, for who
// knows SDK_FACILITATOR_KEY. Prints its address. With SDK_LIES it is a liar: it carries nothing out and says that it did.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const beside = createRequire(join(process.env.SDK_NODE_MODULES, "..", "beside.js"));
const { x402Facilitator } = beside("@x402/core/facilitator");
const { toFacilitatorEvmSigner } = beside("@x402/evm");
const { registerExactEvmScheme } = beside("@x402/evm/exact/facilitator");
const { createWalletClient, defineChain, http, publicActions } = beside("viem");
const { mnemonicToAccount } = beside("viem/accounts");

// Anvil's own first account pays for gas.
const account = mnemonicToAccount("test test test test test test test test test test test junk");
const chain = defineChain({
  id: Number(process.env.SDK_CHAIN_ID), name: "test", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [process.env.SDK_CHAIN_URL] } },
});
const client = createWalletClient({ account, chain, transport: http(), pollingInterval: 50 }).extend(publicActions);
const facilitator = new x402Facilitator();
const signer = toFacilitatorEvmSigner({ ...client, address: account.address });
registerExactEvmScheme(facilitator, { signer, networks: [`eip155:${chain.id}`] });

const lie = { success: true, isValid: true, transaction: `0x${"11".repeat(32)}`, network: `eip155:${chain.id}` };
const asked = { "/verify": 0, "/settle": 0 };
const calls = {
  "/verify": (told) => facilitator.verify(told.paymentPayload, told.paymentRequirements),
  "/settle": (told) => facilitator.settle(told.paymentPayload, told.paymentRequirements),
  "/supported": () => facilitator.getSupported(),
  "/asked": () => asked,
};

const server = createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  const answer = (status, told) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(told));
  const call = calls[request.url];
  if (!call) return answer(404, { error: "no such call" });
  if (request.url !== "/asked" && request.headers.authorization !== `Bearer ${process.env.SDK_FACILITATOR_KEY}`) return answer(401, {});
  if (request.url in asked) asked[request.url] += 1;
  if (process.env.SDK_LIES && request.url in asked) return answer(200, lie);
  try {
    answer(200, await call(body ? JSON.parse(body) : undefined));
  } catch (error) {
    answer(500, { error: String(error) });
  }
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
// It ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
