//! Holds: one try by mail: one message over one connection to the operator's SMTP server.
//!
//! Customers choose nothing of a message but whether it comes: it goes to the address that their account has.

use std::{
    error::Error,
    time::{Duration, UNIX_EPOCH},
};

use batchin_domain::{
    Timestamp,
    webhook::{EventId, FailureKind, TryResult},
};
pub use lettre::message::Mailbox;
use lettre::{
    Address, Message,
    message::header::{ContentType, HeaderName, HeaderValue},
    transport::smtp::{
        Error as SmtpError,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, TlsParameters},
        extension::ClientId,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use tracing::warn;

use crate::letter::Letter;

/// What a server may take until it lets us in: name, connection, TLS, greeting and password.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// What it may take for the message itself: servers look at a mail before they answer for it.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// What it may take to say good-bye; nothing hangs on that.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How a connection is kept from others' eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// TLS after STARTTLS; without it nothing is sent.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// None at all.
    None,
}

/// The server that mail leaves by, and in whose name.
#[derive(Clone, Debug)]
pub struct MailOptions {
    /// The server's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is kept.
    pub security: MailSecurity,
    /// User name and password, where the server wants them.
    pub credentials: Option<(String, SecretString)>,
    /// Whom mail is from.
    pub from: Mailbox,
    /// Where answers go, if not there.
    pub reply_to: Option<Mailbox>,
    /// How clients reach this server, without a slash at its end: mails say so.
    pub service: String,
}

/// What is wrong with a mail server, or with a mail for it.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// TLS cannot be set up for this host name.
    #[error("TLS cannot be set up for the mail server's name")]
    Tls(#[source] SmtpError),
    /// It did not let us in: connection, certificate, greeting.
    #[error("the mail server could not be reached, or has no certificate that this machine trusts")]
    Connect(#[source] SmtpError),
    /// It offers no STARTTLS, or that failed.
    #[error("the mail server did not change over to TLS")]
    StartTls(#[source] SmtpError),
    /// It refused the user name and password.
    #[error("the mail server did not take the user name and password")]
    Login(#[source] SmtpError),
    /// It refused the message.
    #[error("the mail server did not take the message")]
    Message(#[source] SmtpError),
    /// The address is none that mail can go to.
    #[error("the address is none that mail can go to")]
    Address,
    /// It took longer than we wait.
    #[error("the mail server did not answer in time")]
    TimedOut,
}

impl MailError {
    /// Whether it is about the server, and so the operator's to repair. What a server says of a message may name its
    /// recipient, and stays out of logs.
    fn is_of_server(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Connect(_) | Self::StartTls(_) | Self::Login(_) | Self::TimedOut => true,
            Self::Message(_) | Self::Address => false,
        }
    }

    /// What a try came to. What is wrong with the server, or with what it knows of us, is the operator's to repair, and the
    /// mail waits; its word on the message itself is final where it says so.
    fn result(&self) -> TryResult {
        let (cause, failure) = match self {
            Self::Tls(cause) | Self::Connect(cause) if cause.is_timeout() => (Some(cause), FailureKind::TimedOut),
            Self::Tls(cause) | Self::Connect(cause) => (Some(cause), FailureKind::Unreachable),
            Self::StartTls(cause) | Self::Login(cause) => (Some(cause), FailureKind::MailDeferred),
            // `is_client`: the address needs what the server does not have.
            Self::Message(cause) if cause.is_permanent() || cause.is_client() => {
                (Some(cause), FailureKind::MailRefused)
            }
            Self::Message(cause) if cause.is_transient() => (Some(cause), FailureKind::MailDeferred),
            Self::Message(cause) => (Some(cause), FailureKind::Broken),
            Self::Address => (None, FailureKind::MailRefused),
            Self::TimedOut => (None, FailureKind::TimedOut),
        };
        let status = cause.and_then(SmtpError::status).map(u16::from);
        TryResult { status, failure: Some(failure), retry_after: None }
    }
}

/// Sends mail. Cheap to clone.
#[derive(Clone)]
pub struct Mailer {
    options: MailOptions,
    tls: Option<TlsParameters>,
}

impl Mailer {
    /// Reads the certificates that this machine trusts, where TLS is wanted.
    pub fn new(options: MailOptions) -> Result<Self, MailError> {
        let tls = match options.security {
            MailSecurity::None => None,
            MailSecurity::StartTls | MailSecurity::Tls => {
                Some(TlsParameters::new(options.host.clone()).map_err(MailError::Tls)?)
            }
        };
        Ok(Self { options, tls })
    }

    /// Whether the server lets us in; no mail is sent.
    pub async fn probe(&self) -> Result<(), MailError> {
        let connection = self.connect().await?;
        quit(connection).await;
        Ok(())
    }

    pub(crate) fn service(&self) -> &str {
        &self.options.service
    }

    /// One try.
    pub(crate) async fn send(&self, id: EventId, to: &str, letter: Letter, at: Timestamp) -> TryResult {
        match self.try_to_send(id, to, letter, at).await {
            Ok(status) => TryResult { status: Some(status), failure: None, retry_after: None },
            Err(cause) => {
                if cause.is_of_server() {
                    warn!(error = &cause as &dyn Error, "the mail server cannot be used");
                }
                cause.result()
            }
        }
    }

    async fn try_to_send(&self, id: EventId, to: &str, letter: Letter, at: Timestamp) -> Result<u16, MailError> {
        let message = self.message(id, to, letter, at)?;
        let mut connection = self.connect().await?;
        let text = message.formatted();
        let sending = connection.send(message.envelope(), &text);
        let answer = timeout(SEND_TIMEOUT, sending).await.map_err(|_| MailError::TimedOut)?;
        let status = u16::from(answer.map_err(MailError::Message)?.code());
        quit(connection).await;
        Ok(status)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, MailError> {
        timeout(CONNECT_TIMEOUT, self.come_in()).await.map_err(|_| MailError::TimedOut)?
    }

    async fn come_in(&self) -> Result<AsyncSmtpConnection, MailError> {
        let MailOptions { host, port, security, credentials, from, .. } = &self.options;
        // As the machine's own name may tell of the operator's network.
        let name = ClientId::Domain(from.email.domain().to_owned());
        let at_once = self.tls.clone().filter(|_| *security == MailSecurity::Tls);
        let server = (host.as_str(), *port);
        let connecting = AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_TIMEOUT), &name, at_once, None);
        let mut connection = connecting.await.map_err(MailError::Connect)?;
        if let Some(tls) = self.tls.clone().filter(|_| *security == MailSecurity::StartTls) {
            connection.starttls(tls, &name).await.map_err(MailError::StartTls)?;
        }
        if let Some((user, password)) = credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await.map_err(MailError::Login)?;
        }
        Ok(connection)
    }

    /// The same on every try, `Message-ID` and date included, so that one that came twice can be told.
    fn message(&self, id: EventId, to: &str, letter: Letter, at: Timestamp) -> Result<Message, MailError> {
        let MailOptions { from, reply_to, .. } = &self.options;
        let to: Address = to.parse().map_err(|_| MailError::Address)?;
        let date = UNIX_EPOCH + Duration::from_secs(u64::try_from(at.seconds()).unwrap_or_default());
        let mut message = Message::builder()
            .from(from.clone())
            .to(to.into())
            .date(date)
            .message_id(Some(format!("<{id}@{}>", from.email.domain())))
            .subject(letter.subject)
            .header(ContentType::TEXT_PLAIN);
        if let Some(reply_to) = reply_to {
            message = message.reply_to(reply_to.clone());
        }
        // Nobody's holiday answers this.
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let message = message.raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
        message.body(letter.body).map_err(|_| MailError::Address)
    }
}

/// Politeness; how it goes changes nothing.
async fn quit(mut connection: AsyncSmtpConnection) {
    let _ = timeout(QUIT_TIMEOUT, connection.quit()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailer() -> Mailer {
        let from = "BatchIn 批量 <noreply@batch.example>".parse().unwrap();
        let service = "https://batch.example".to_owned();
        let (host, security) = ("127.0.0.1".to_owned(), MailSecurity::None);
        Mailer::new(MailOptions { host, port: 25, security, credentials: None, from, reply_to: None, service }).unwrap()
    }

    fn written(to: &str, subject: &str) -> Result<String, MailError> {
        let letter = Letter { subject: subject.to_owned(), body: "余额\n.\nBcc: eve@example.com\n".to_owned() };
        let id = EventId::new(uuid::Uuid::from_u128(7));
        let message = mailer().message(id, to, letter, Timestamp::from_seconds(1_000))?;
        Ok(String::from_utf8(message.formatted()).unwrap())
    }

    #[test]
    fn a_message_is_the_same_every_time_and_ascii() {
        let text = written("ada@example.com", "Low / 余额").unwrap();
        assert_eq!(written("ada@example.com", "Low / 余额").unwrap(), text);
        assert!(text.is_ascii(), "{text}");
        for line in [
            "Message-ID: <evt_00000000000000000000000000000007@batch.example>",
            "Date: Thu, 01 Jan 1970 00:16:40 +0000",
            "To: ada@example.com",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in {text}");
        }
    }

    #[test]
    fn nothing_that_comes_in_becomes_a_header() {
        for to in [
            "ada@example.com\r\nBcc: eve@example.com",
            "a b@example.com",
            "ada",
            "<ada@example.com>",
            "ada@example.com,eve@example.com",
        ] {
            assert!(matches!(written(to, "x"), Err(MailError::Address)), "{to}");
        }
        let text = written("ada@example.com", "x\r\nBcc: eve@example.com").unwrap();
        let head = text.split("\r\n\r\n").next().unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
    }
}
