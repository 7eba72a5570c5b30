//! Checks every answer against `openapi.json`: the server sends only what is documented there.
//!
//! The check is stricter than a client should be: undocumented members and headers are errors.
//! `.ci/openapi` checks patterns and formats.

use super::Reply;
use hyper::Method;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../src/http/openapi.json")).expect("JSON")
});

/// Headers that depend on the connection or the trace, for every operation.
const BESIDE: [&str; 5] = ["connection", "content-length", "content-type", "date", "traceresponse"];

/// The document.
pub(crate) fn document() -> &'static Value {
    &DOCUMENT
}

/// Every operation, as method and path.
pub(crate) fn operations() -> Vec<(String, &'static str)> {
    let paths = members(&DOCUMENT["paths"]);
    let methods = |item| members(item).keys().map(|method| method.to_uppercase());
    paths
        .iter()
        .flat_map(|(path, item)| methods(item).map(move |method| (method, path.as_str())))
        .collect()
}

/// Every documented answer of an operation: its status, and its problem code, if any.
pub(crate) fn answers(method: &str, path: &str) -> Vec<(u16, Option<&'static str>)> {
    let mut all = Vec::new();
    let described = &DOCUMENT["paths"][path][method.to_lowercase()]["responses"];
    for (status, answer) in members(described) {
        let status = status.parse().expect("a status");
        let problem = resolve(&resolve(answer)["content"]["application/problem+json"]["schema"]);
        let choices = problem["oneOf"]
            .as_array()
            .map_or_else(|| vec![problem], |choices| choices.iter().map(resolve).collect());
        for choice in choices {
            let kind = choice["properties"]["type"]["const"].as_str();
            all.push((status, kind.and_then(|kind| kind.strip_prefix("urn:staunch:problem:"))));
        }
    }
    all
}

/// Checks the answer to a request.
#[track_caller]
pub(super) fn check(method: &Method, target: &str, reply: &Reply) {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let asked = if *method == Method::HEAD { &Method::GET } else { method };
    let item = members(&DOCUMENT["paths"]).iter().find(|(template, _)| is_of(template, path));
    let operation = item.and_then(|(_, item)| item.get(asked.as_str().to_lowercase()));
    let Some(operation) = operation else {
        // The document describes other paths and methods in words.
        let others: &[u16] = match (item, method == Method::OPTIONS) {
            (None, _) => &[400, 404, 429, 431],
            (Some(_), true) => &[204, 400, 429, 431],
            (Some(_), false) => &[400, 405, 429, 431],
        };
        assert!(others.contains(&reply.status), "{method} {target}: {}", reply.status);
        return;
    };
    let answer = &operation["responses"][reply.status.to_string()];
    let fault = if answer.is_null() {
        Err("this status is not documented".to_owned())
    } else {
        check_answer(resolve(answer), method == Method::HEAD, reply)
    };
    if let Err(fault) = fault {
        panic!("{method} {target}, {}: {fault}: {}", reply.status, reply.text());
    }
}

fn check_answer(answer: &'static Value, head: bool, reply: &Reply) -> Result<(), String> {
    let described: Vec<(String, &'static Value)> = match answer["headers"].as_object() {
        Some(headers) => headers.iter().map(|(n, v)| (n.to_lowercase(), resolve(v))).collect(),
        None => Vec::new(),
    };
    for (name, header) in &described {
        let schema = &header["schema"];
        match reply.header(name) {
            Some(text) => {
                let number = schema["type"] == "integer";
                let value = if number { text.parse::<u64>().ok().into() } else { text.into() };
                fault(schema, &value, name)?;
            }
            None if header["required"] == true => return Err(format!("no {name}")),
            None => {}
        }
    }
    for name in reply.headers.keys().map(hyper::header::HeaderName::as_str) {
        if !BESIDE.contains(&name) && described.iter().all(|(known, _)| known != name) {
            return Err(format!("the header {name} is not documented"));
        }
    }
    let Some(content) = answer["content"].as_object() else {
        return if reply.header("content-type").is_none() && reply.text().is_empty() {
            Ok(())
        } else {
            Err("a body that is not documented".to_owned())
        };
    };
    let media_type = reply.header("content-type").unwrap_or_default();
    let body = content.get(media_type).ok_or_else(|| format!("{media_type} is not documented"))?;
    if head {
        return Ok(());
    }
    let value = if media_type.ends_with("json") { reply.json() } else { reply.text().into() };
    fault(&body["schema"], &value, "body")
}

/// Checks a value against a schema; the error says where they differ.
fn fault(schema: &'static Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(schema);
    let size = match value {
        Value::String(text) => text.chars().count() as u64,
        Value::Array(items) => items.len() as u64,
        Value::Object(members) => members.len() as u64,
        Value::Null | Value::Bool(_) | Value::Number(_) => value.as_u64().unwrap_or_default(),
    };
    for (keyword, rule) in members(schema) {
        let holds = match keyword.as_str() {
            "title" | "description" | "format" | "pattern" | "default" | "writeOnly" => true,
            "type" => match rule.as_array() {
                Some(types) => types.iter().any(|kind| is_a(kind, value)),
                None => is_a(rule, value),
            },
            "const" => rule == value,
            "minLength" | "minItems" | "minimum" => rule.as_u64().expect("a bound") <= size,
            "maxLength" | "maxItems" | "maxProperties" => size <= rule.as_u64().expect("a bound"),
            "required" => {
                let names = rule.as_array().expect("names").iter();
                names
                    .map(|name| name.as_str().expect("a name"))
                    .all(|name| value.get(name).is_some())
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let known =
                        rule.get(name).ok_or_else(|| format!("{at}.{name} is not documented"))?;
                    fault(known, member, &format!("{at}.{name}"))?;
                }
                true
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fault(rule, item, &format!("{at}[]"))?;
                }
                true
            }
            "oneOf" => {
                let choices = rule.as_array().expect("choices").iter();
                choices.filter(|choice| fault(choice, value, at).is_ok()).count() == 1
            }
            other => panic!("the checker does not know {other}"),
        };
        if !holds {
            return Err(format!("{at} breaks {keyword}: {rule}"));
        }
    }
    Ok(())
}

fn is_a(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the checker does not know {other}"),
    }
}

/// Whether a path matches the template, in which `{id}` is a session id.
fn is_of(template: &str, path: &str) -> bool {
    let Some(start) = template.strip_suffix("{id}") else { return template == path };
    let id = path.strip_prefix(start).unwrap_or_default();
    id.parse::<uuid::Uuid>().is_ok_and(|parsed| parsed.to_string() == id)
}

/// The target of a `$ref`, or the value itself.
fn resolve(value: &'static Value) -> &'static Value {
    let Some(pointer) = value["$ref"].as_str() else { return value };
    let pointer = pointer.strip_prefix('#').expect("within the document");
    DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{pointer} does not exist"))
}

fn members(value: &'static Value) -> &'static Map<String, Value> {
    value.as_object().expect("an object")
}

#[test]
fn the_checker_finds_undocumented_responses() {
    let schema = &DOCUMENT["components"]["schemas"]["NewAccount"];
    let good = json!({"id": 1, "email": "a@example.com", "username": "ada", "is_active": true});
    assert_eq!(fault(schema, &good, "body"), Ok(()));
    for (member, value) in [
        ("id", json!("1")),
        ("id", json!(0)),
        ("id", json!(1.5)),
        ("email", json!(null)),
        ("is_active", json!(1)),
        ("password_hash", json!("$2b$")),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        assert!(fault(schema, &bad, "body").is_err(), "{bad}");
    }
    for member in ["id", "username"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(member);
        assert!(fault(schema, &bad, "body").is_err(), "{bad}");
    }
    let schema = &DOCUMENT["components"]["schemas"]["Introspection"];
    assert!(fault(schema, &json!({"active": false}), "body").is_ok());
    assert!(fault(schema, &json!({"active": true}), "body").is_err());
    assert!(fault(schema, &json!({"active": false, "sub": "1"}), "body").is_err());
}
