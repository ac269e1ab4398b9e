"""A mail server that tests send to: aiosmtpd, on loopback, with STARTTLS and one password.

It says where it listens and then, a line of JSON each, what it answered for which message. The local part of an address says
how it treats a recipient: "gone" is refused for good, "busy" is put off once, "slow" is taken once without a word, and every
other is taken.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

SEEN = set()


def say(**line):
    print(json.dumps(line), flush=True)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone@"):
            say(answer=550, to=address)
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        how = envelope.rcpt_tos[0].split("@")[0]
        first = message["Message-ID"] not in SEEN
        SEEN.add(message["Message-ID"])
        answer = {"busy": 451, "slow": None}.get(how, 250) if first else 250
        say(
            answer=answer,
            to=",".join(envelope.rcpt_tos),
            mail_from=envelope.mail_from,
            tls=session.ssl is not None,
            user=session.auth_data,
            headers={name.lower(): str(value) for name, value in message.items()},
            text=message.get_content(),
        )
        if answer is None:
            await asyncio.sleep(3600)
        return "451 4.3.0 come back later" if answer == 451 else "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    user, password = data.login.decode(), data.password.decode()
    return AuthResult(success=(user, password) == ("batchin", sys.argv[3]), handled=False, auth_data=user)


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])

    def serve():
        return SMTP(
            Handler(),
            tls_context=context,
            require_starttls=True,
            authenticator=authenticate,
            auth_required=True,
        )

    server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0)
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
