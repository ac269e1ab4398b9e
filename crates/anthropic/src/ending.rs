//! Holds: why an answer ended, in Anthropic's words.

use batchin_openai::Finish;

/// What a choice said that tells why it ended.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// Why, in the chat's words.
    pub(crate) finish: Option<Finish>,
    /// The stop sequence that its server names.
    pub(crate) stopped_by: Option<String>,
    /// It said a refusal.
    pub(crate) refuses: bool,
    /// It calls tools.
    pub(crate) calls: bool,
}

impl Ending {
    /// The `stop_reason`, and the `stop_sequence` if it is one of those that the request named.
    pub(crate) fn told(&self, asked: &[String]) -> (&'static str, Option<&str>) {
        let sequence = self.stopped_by.as_deref().filter(|sequence| asked.iter().any(|one| one == sequence));
        match self.finish {
            _ if self.refuses => ("refusal", None),
            Some(Finish::ContentFilter) => ("refusal", None),
            Some(Finish::Length) => ("max_tokens", None),
            // Clients run what is called when they are told so, and wait for a call if there is none. Servers say either
            // reason with calls and without.
            _ if self.calls => ("tool_use", None),
            Some(Finish::Stop | Finish::ToolCalls) | None if sequence.is_some() => ("stop_sequence", sequence),
            Some(Finish::Stop | Finish::ToolCalls) | None => ("end_turn", None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_what_clients_act_by() {
        let told = |finish, stopped_by: Option<&str>, refuses, calls| {
            let ending = Ending { finish, stopped_by: stopped_by.map(String::from), refuses, calls };
            let (reason, sequence) = ending.told(&["END".to_owned()]);
            (reason, sequence.map(String::from))
        };
        let end = Some("END".to_owned());
        assert_eq!(told(Some(Finish::Stop), None, false, false), ("end_turn", None));
        assert_eq!(told(None, None, false, false), ("end_turn", None));
        assert_eq!(told(Some(Finish::Stop), Some("END"), false, false), ("stop_sequence", end));
        assert_eq!(told(Some(Finish::Stop), Some("</s>"), false, false), ("end_turn", None));
        assert_eq!(told(Some(Finish::Length), Some("END"), false, true), ("max_tokens", None));
        assert_eq!(told(Some(Finish::Stop), None, false, true), ("tool_use", None));
        assert_eq!(told(Some(Finish::ToolCalls), None, false, true), ("tool_use", None));
        assert_eq!(told(Some(Finish::ToolCalls), None, false, false), ("end_turn", None));
        assert_eq!(told(Some(Finish::ContentFilter), None, false, true), ("refusal", None));
        assert_eq!(told(Some(Finish::Stop), None, true, false), ("refusal", None));
    }
}
