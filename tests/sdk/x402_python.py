"""x402's package for Python against a server, as the key SDK_PAYER. Two accounts whose balances are empty: SDK_KEY pays at the call
that is for paying, SDK_OTHER_KEY by the chat that was refused."""

import asyncio
import os

from eth_account import Account
from openai import AsyncOpenAI
from x402 import x402Client
from x402.http import decode_payment_response_header
from x402.http.clients import x402HttpxClient
from x402.mechanisms.evm.exact import ExactEvmScheme

URL = os.environ["SDK_URL"]
CHAT = {"model": "chat-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


async def main():
    client = x402Client()
    client.register("eip155:*", ExactEvmScheme(Account.from_key(os.environ["SDK_PAYER"])))
    own = {"authorization": f"Bearer {os.environ['SDK_KEY']}"}
    async with x402HttpxClient(client, timeout=60) as http:
        paid = await http.post(f"{URL}/v1/topup/x402", headers=own)
        assert paid.status_code == 200, paid.text
        assert paid.json()["status"] == "credited", paid.text
        told = decode_payment_response_header(paid.headers["PAYMENT-RESPONSE"])
        assert told.success and told.transaction == paid.json()["transaction"], told
        answer = await http.post(f"{URL}/v1/chat/completions", headers=own, json=CHAT)
        assert answer.status_code == 200 and "PAYMENT-RESPONSE" not in answer.headers, answer.text

    async with x402HttpxClient(client, timeout=60) as http:
        openai = AsyncOpenAI(api_key=os.environ["SDK_OTHER_KEY"], base_url=f"{URL}/v1", http_client=http)
        answer = await openai.chat.completions.with_raw_response.create(**CHAT)
        assert decode_payment_response_header(answer.headers["PAYMENT-RESPONSE"]).success
        assert answer.parse().choices[0].message.content


asyncio.run(main())
