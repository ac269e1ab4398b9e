//! Holds: the list of models, in Anthropic's shape.

use serde::Serialize;

/// A model of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "model")]
pub struct ListedModel {
    /// The name by which it is asked for.
    pub id: String,
    /// The name for people.
    pub display_name: String,
    /// RFC 3339.
    pub created_at: String,
    /// Most tokens of a conversation.
    pub max_input_tokens: u32,
    /// Most tokens of one answer.
    pub max_tokens: u32,
    /// Whether it can be asked for.
    pub lifecycle: Lifecycle,
}

/// Whether a model can be asked for. What is not served is in no list, so there is one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// It can.
    Active,
}

/// A page of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelsPage {
    data: Vec<ListedModel>,
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
}

/// A page with these models; `has_more` is whether others follow.
pub fn models_page(models: Vec<ListedModel>, has_more: bool) -> ModelsPage {
    let id = |model: Option<&ListedModel>| model.map(|model| model.id.clone());
    ModelsPage { first_id: id(models.first()), last_id: id(models.last()), data: models, has_more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_exact() {
        let model = |id: &str| ListedModel {
            id: id.to_owned(),
            display_name: id.to_uppercase(),
            created_at: "2026-01-02T03:04:05Z".to_owned(),
            max_input_tokens: 8_192,
            max_tokens: 1_024,
            lifecycle: Lifecycle::Active,
        };
        let page = serde_json::to_string(&models_page(vec![model("a"), model("b")], true)).unwrap();
        let expected = r#"{"data":[{"type":"model","id":"a","display_name":"A","created_at":"2026-01-02T03:04:05Z","max_input_tokens":8192,"max_tokens":1024,"lifecycle":"active"},{"type":"model","id":"b","display_name":"B","created_at":"2026-01-02T03:04:05Z","max_input_tokens":8192,"max_tokens":1024,"lifecycle":"active"}],"has_more":true,"first_id":"a","last_id":"b"}"#;
        assert_eq!(page, expected);
        let none = serde_json::to_string(&models_page(Vec::new(), false)).unwrap();
        assert_eq!(none, r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#);
    }
}
