//! Holds: what a mail says: plain words in English and Chinese. It carries ids alone, as webhooks do: what there is to know is
//! asked for with a key, and no amount lies in a mailbox.

use batchin_domain::{Timestamp, webhook::EventKind};
use uuid::Uuid;

/// A mail's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    /// One line.
    pub(crate) subject: String,
    /// Lines, the same on every try.
    pub(crate) body: String,
}

/// What a mail tells of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News<'a> {
    pub(crate) kind: EventKind,
    pub(crate) subject: Uuid,
    pub(crate) at: Timestamp,
    /// How clients reach the server.
    pub(crate) service: &'a str,
    /// What shows whose the address is; for a mail that asks for it.
    pub(crate) code: &'a str,
}

/// An event in words; nothing for one that does not go by mail.
pub(crate) fn letter(news: &News<'_>) -> Option<Letter> {
    let News { kind, subject, at, service, code } = *news;
    let (title, titel, english, chinese) = match kind {
        EventKind::EmailCode => (
            "Confirm your e-mail address",
            "确认您的邮箱",
            format!(
                "Somebody asked {service} to send alerts of an account to this address.\n\
                 If that was you, send this code with POST {service}/v1/alerts/email:\n\n    {code}\n\n\
                 If it was not you, do nothing: nothing else will be sent here."
            ),
            format!(
                "有人请求 {service} 将某个账户的提醒发送到此邮箱。\n\
                 如果是您本人,请通过 POST {service}/v1/alerts/email 提交上面的验证码。\n\
                 如果不是您,请忽略本邮件:我们不会再向此邮箱发送其他内容。"
            ),
        ),
        EventKind::BalanceLow => (
            "Your balance is low",
            "余额不足提醒",
            format!("Your balance at {service} fell below the limit that you set."),
            format!("您在 {service} 的余额已低于您设置的提醒值。"),
        ),
        EventKind::BudgetThreshold => (
            "A key has used much of its budget",
            "密钥预算提醒",
            format!(
                "A key of yours at {service} has spent the share of its monthly budget that you set.\nKey: {subject}"
            ),
            format!("您在 {service} 的一个密钥已用到您设置的月度预算比例。\n密钥:{subject}"),
        ),
        EventKind::TopupSucceeded => (
            "Your payment was credited",
            "充值成功",
            format!("A payment to your account at {service} was credited.\nPayment: {subject}"),
            format!("您在 {service} 账户的一笔充值已到账。\n充值编号:{subject}"),
        ),
        EventKind::TopupFailed => (
            "Your payment failed",
            "充值失败",
            format!(
                "A payment to your account at {service} did not succeed; nothing was credited.\nPayment: {subject}"
            ),
            format!("您在 {service} 账户的一笔充值未成功,未增加余额。\n充值编号:{subject}"),
        ),
        EventKind::TopupReversed => (
            "A payment was taken back",
            "充值被撤销",
            format!(
                "A payment to your account at {service}, or a part of it, went back; the credit was taken back with it.\n\
                 Payment: {subject}"
            ),
            format!("您在 {service} 账户的一笔充值已全部或部分退回,相应余额已扣除。\n充值编号:{subject}"),
        ),
        EventKind::BatchCompleted | EventKind::BatchFailed | EventKind::BatchExpired | EventKind::BatchCancelled => {
            return None;
        }
    };
    let body = format!("{english}\n\n{chinese}\n\n{at}\n{}\n", kind.name());
    Some(Letter { subject: format!("{title} / {titel}"), body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_an_alert_has_words() {
        for kind in EventKind::ALL {
            let news = News {
                kind,
                subject: Uuid::from_u128(7),
                at: Timestamp::from_seconds(0),
                service: "https://batch.example",
                code: "abcd",
            };
            let letter = letter(&news);
            assert_eq!(letter.is_none(), kind.is_of_batch(), "{kind:?}");
            let Some(letter) = letter else { continue };
            assert!(!letter.subject.contains('\n') && letter.subject.len() < 200);
            assert!(letter.body.contains("https://batch.example") && letter.body.contains(kind.name()));
            assert_eq!(letter.body.contains("abcd"), kind == EventKind::EmailCode);
        }
    }
}
