//! Holds: the objects of the fake Stripe, and how they are told: alone, expanded, in lists, in events.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use serde_json::{Value, json};

use super::{
    asked::{Asked, Refused},
    script::{Kept, SavedOutcome, StripeFault},
};

/// Objects with every member that there is; most are empty.
static BODIES: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("bodies.json")).unwrap_or_default());

/// All there is. Ids are given out in order, so that the order of a kind's ids is that of time.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) now: i64,
    pub(super) objects: BTreeMap<String, Value>,
    /// What payments of open sessions will have: metadata, and whether the method is kept.
    pub(super) intended: HashMap<String, (Value, bool)>,
    pub(super) outcomes: HashMap<String, SavedOutcome>,
    pub(super) lies: Vec<(String, String, Value)>,
    pub(super) faults: Vec<(String, String, StripeFault)>,
    pub(super) kept: HashMap<String, Kept>,
    /// Of the call that is being answered.
    pub(super) idempotency_key: Option<String>,
    count: u64,
}

impl State {
    pub(super) fn at(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    pub(super) fn next_id(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}_{:024}", self.count)
    }

    /// Makes an object of a kind with these members: its id.
    pub(super) fn make(&mut self, kind: &str, prefix: &str, members: Value) -> String {
        let id = self.next_id(prefix);
        let mut object = BODIES[kind].clone();
        object["id"] = json!(id);
        object["created"] = json!(self.now);
        self.objects.insert(id.clone(), object);
        self.set(&id, members);
        id
    }

    pub(super) fn set(&mut self, id: &str, members: Value) {
        if let (Some(Value::Object(object)), Value::Object(members)) = (self.objects.get_mut(id), members) {
            object.extend(members);
        }
    }

    pub(super) fn get(&self, id: &str, member: &str) -> Value {
        self.objects.get(id).map(|object| object[member].clone()).unwrap_or_default()
    }

    pub(super) fn text(&self, id: &str, member: &str) -> Option<String> {
        self.get(id, member).as_str().map(str::to_owned)
    }

    pub(super) fn number(&self, id: &str, member: &str) -> i64 {
        self.get(id, member).as_i64().unwrap_or(0)
    }

    pub(super) fn is(&self, id: &str, kind: &str) -> bool {
        self.text(id, "object").as_deref() == Some(kind)
    }

    /// Oldest first.
    pub(super) fn ids_of(&self, kind: &str) -> Vec<String> {
        self.objects.keys().filter(|id| self.is(id, kind)).cloned().collect()
    }

    /// Writes an event of an object as it stands, for whoever takes the webhooks.
    pub(super) fn happens(&mut self, kind: &str, id: &str) {
        let object = self.objects.get(id).cloned().unwrap_or_default();
        let request = json!({ "id": null, "idempotency_key": self.idempotency_key });
        let livemode = object["livemode"].as_bool().unwrap_or(false);
        let event = json!({ "type": kind, "data": { "object": object }, "request": request, "livemode": livemode });
        self.make("event", "evt", event);
    }

    /// The object as it is told, with the lies about it.
    pub(super) fn told(&self, id: &str) -> Option<Value> {
        let mut object = self.objects.get(id)?.clone();
        for (_, member, value) in self.lies.iter().filter(|(of, ..)| of == id) {
            object[member] = value.clone();
        }
        Some(object)
    }

    /// Puts objects in the place of ids, along a path such as `payment_intent.latest_charge`.
    fn expand(&self, object: &mut Value, path: &str) {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let member = &mut object[first];
        if let Some(told) = member.as_str().and_then(|id| self.told(id)) {
            *member = told;
        }
        match (&mut *member, rest) {
            (_, "") => {}
            (Value::Array(all), rest) => all.iter_mut().for_each(|each| self.expand(each, rest)),
            (Value::Object(_), rest) => self.expand(member, rest),
            _ => {}
        }
    }

    pub(super) fn one(&self, kind: &str, id: &str, asked: &Asked) -> Result<Value, Refused> {
        let told = self.told(id).filter(|_| self.is(id, kind));
        let mut object = told.ok_or_else(|| Refused::missing(404, kind, id))?;
        asked.all("expand").iter().for_each(|path| self.expand(&mut object, path));
        Ok(object)
    }

    /// A page, newest first.
    pub(super) fn list(&self, (kind, path): (&str, &str), asked: &Asked) -> Result<Value, Refused> {
        asked.only(&[
            "limit",
            "starting_after",
            "payment_intent",
            "charge",
            "customer",
            "created[gte]",
            "created[lte]",
            "expand[",
            "type",
            "types[",
        ])?;
        let types = asked.all("types");
        if types.len() > 20 {
            return Err(Refused::param(
                "parameter_invalid",
                "types",
                "Array types exceeded maximum 20 allowed elements.",
            ));
        }
        let is_listed =
            |id: &String| types.is_empty() || types.iter().any(|kind| self.text(id, "type").as_deref() == Some(kind));
        let limit =
            asked.get("limit").map_or(Some(10), |limit| limit.parse().ok()).filter(|limit| (1..=100).contains(limit));
        let limit: usize =
            limit.ok_or_else(|| Refused::param("parameter_invalid_integer", "limit", "Invalid limit"))?;
        let is_of = |id: &String, member: &str| asked.get(member).is_none_or(|of| self.get(id, member) == of);
        let within = |id: &String| {
            let created = self.number(id, "created");
            asked.number("created[gte]").is_none_or(|from| created >= from)
                && asked.number("created[lte]").is_none_or(|to| created <= to)
        };
        let mut ids = self.ids_of(kind);
        ids.reverse();
        ids.retain(|id| {
            ["payment_intent", "charge", "customer", "type"].iter().all(|member| is_of(id, member))
                && within(id)
                && is_listed(id)
        });
        if let Some(after) = asked.get("starting_after") {
            let at = ids.iter().position(|id| id == after).ok_or_else(|| Refused::missing(400, kind, after))?;
            ids.drain(..=at);
        }
        let has_more = ids.len() > limit;
        let data: Vec<_> = ids.iter().take(limit).filter_map(|id| self.told(id)).collect();
        let mut list = json!({ "object": "list", "data": data, "has_more": has_more, "url": path });
        asked.all("expand").iter().for_each(|path| self.expand(&mut list, path));
        Ok(list)
    }
}
