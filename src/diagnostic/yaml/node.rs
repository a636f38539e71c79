//! YAML as it stands: values and names, each with its place.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value as Json};
use serde_saphyr::Spanned;

use super::place;
use crate::diagnostic::{Location, SourceFile};

/// A value with its place.
pub type Node = Spanned<Content>;

/// A value.
#[derive(Clone, Debug)]
pub enum Content {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// Items.
    List(Vec<Node>),
    /// Values by name.
    Fields(Named<Node>),
}

impl Content {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&Node> {
        match self {
            Content::Fields(Named(fields)) => fields.iter().find(|(own, _)| own.value == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a field.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.field(name)?.value.text()
    }

    /// The same as JSON.
    pub fn json(&self) -> Json {
        match self {
            Content::Null => Json::Null,
            Content::Boolean(value) => Json::Bool(*value),
            Content::Number(number) => Json::Number(number.clone()),
            Content::Text(text) => Json::String(text.clone()),
            Content::List(items) => items.iter().map(|item| item.value.json()).collect(),
            Content::Fields(Named(fields)) => Json::Object(fields.iter().map(|(name, node)| (name.value.clone(), node.value.json())).collect()),
        }
    }

    /// What it is, without what it says.
    pub fn kind(&self) -> &'static str {
        match self {
            Content::Null => "nothing",
            Content::Boolean(_) => "true or false",
            Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Fields(_) => "keys with values",
        }
    }

    /// In words, as what was found.
    pub fn shown(&self) -> String {
        match self {
            Content::Null => "nothing".to_owned(),
            Content::List(_) => "a list".to_owned(),
            Content::Fields(_) => "fields".to_owned(),
            Content::Text(text) => format!("`{text}`"),
            other => format!("`{}`", other.json()),
        }
    }
}

/// The place of a value.
pub fn at(source: &Arc<SourceFile>, node: &Node) -> Location {
    let length = match &node.value {
        Content::Text(text) => text.len(),
        Content::Boolean(_) | Content::Number(_) => node.value.json().to_string().len(),
        _ => 1,
    };
    place(source, node, length)
}

/// Values by name, in the order in which they are written.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(Spanned<String>, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Named(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content::Null)
            }

            fn visit_none<E>(self) -> Result<Content, E> {
                Ok(Content::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
                Ok(Content::Boolean(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
                Ok(Content::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
                Ok(Content::Number(value.into()))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Content, E> {
                Number::from_f64(value).map(Content::Number).ok_or_else(|| E::custom("expected a finite number"))
            }

            fn visit_str<E>(self, value: &str) -> Result<Content, E> {
                Ok(Content::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Content::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Content::Fields(Named(fields)))
            }
        }

        deserializer.deserialize_any(Any)
    }
}
