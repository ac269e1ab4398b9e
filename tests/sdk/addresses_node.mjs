// Addresses by viem, from a phrase and so from private keys: COUNT of them in the account m/44'/60'/0', after its xpub.
import { createRequire } from "node:module";
import { join } from "node:path";

const { SDK_PHRASE: phrase, SDK_COUNT: count, SDK_NODE_MODULES: modules } = process.env;
const beside = createRequire(join(modules, "..", "beside.js"));
const { HDKey, mnemonicToAccount, privateKeyToAddress } = beside("viem/accounts");
const { mnemonicToSeedSync } = createRequire(beside.resolve("viem/accounts"))("@scure/bip39");

const account = HDKey.fromMasterSeed(mnemonicToSeedSync(phrase)).derive("m/44'/60'/0'");
const receiving = account.deriveChild(0);
const addresses = Array.from({ length: Number(count) }, (_, index) =>
  privateKeyToAddress(`0x${Buffer.from(receiving.deriveChild(index).privateKey).toString("hex")}`));
// The way that viem itself goes, for one.
const last = addresses.length - 1;
if (mnemonicToAccount(phrase, { addressIndex: last }).address !== addresses[last]) throw new Error("viem contradicts itself");
console.log(JSON.stringify({ xpub: account.publicExtendedKey, xprv: account.privateExtendedKey, master: HDKey.fromMasterSeed(mnemonicToSeedSync(phrase)).publicExtendedKey, addresses }));
