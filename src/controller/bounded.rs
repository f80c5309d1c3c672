//! A JSON value that is decoded only if the value is short enough. The decoder skips the rest of a longer value, so that the rest takes no
//! memory.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The remaining length of the value as compact JSON, without escapes in strings. `None`: the value is too long.
pub struct Bounded<'a>(&'a mut Option<usize>);

impl Bounded<'_> {
    /// The value, if the value has at most the permitted length.
    pub fn decode<'de, D: Deserializer<'de>>(most: usize, deserializer: D) -> Result<Option<Value>, D::Error> {
        let mut left = Some(most);
        let value = Bounded(&mut left).deserialize(deserializer)?;
        Ok(left.map(|_| value))
    }

    fn take(&mut self, length: usize) {
        *self.0 = self.0.and_then(|left| left.checked_sub(length));
    }

    fn is_over(&self) -> bool {
        self.0.is_none()
    }

    fn again(&mut self) -> Bounded<'_> {
        Bounded(self.0)
    }

    fn number(mut self, number: impl Into<Number>) -> Value {
        let number = number.into();
        self.take(number.to_string().len());
        Value::Number(number)
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.is_over() {
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        // The braces. Each entry counts a comma, so one brace is counted there.
        self.take(1);
        while !self.is_over() {
            let Some(key) = map.next_key::<String>()? else {
                if kept.is_empty() {
                    self.take(1);
                }
                return Ok(Value::Object(kept));
            };
            // The quotes, a colon and a comma.
            self.take(key.len() + 4);
            let value = map.next_value_seed(self.again())?;
            kept.insert(key, value);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        self.take(1);
        while !self.is_over() {
            let Some(value) = list.next_element_seed(self.again())? else {
                if kept.is_empty() {
                    self.take(1);
                }
                return Ok(Value::Array(kept));
            };
            self.take(1);
            kept.push(value);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_str<E: de::Error>(mut self, text: &str) -> Result<Value, E> {
        self.take(text.len() + 2);
        Ok(if self.is_over() { Value::Null } else { text.into() })
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<Value, E> {
        self.take(if value { 4 } else { 5 });
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(self.number(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(self.number(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, |number| self.number(number)))
    }

    fn visit_unit<E: de::Error>(mut self) -> Result<Value, E> {
        self.take(4);
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decode(most: usize, text: &str) -> Option<Value> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Bounded::decode(most, &mut deserializer).expect("JSON");
        deserializer.end().expect("all of it was read");
        value
    }

    #[test]
    fn a_value_is_kept_if_its_json_is_short_enough() {
        for value in [
            json!({}),
            json!([]),
            json!(null),
            json!({"a": [], "b": {}, "c": null, "d": true, "e": false}),
            json!({"a": [1, -2, 3.5, "four", {"five": [6]}], "b": u64::MAX}),
            json!([[[]], [{"a": {}}], "", 0]),
        ] {
            let text = value.to_string();
            assert_eq!(decode(text.len(), &text).as_ref(), Some(&value));
            assert_eq!(decode(text.len() - 1, &text), None, "{text}");
        }
    }

    #[test]
    fn the_decoded_part_of_a_long_value_is_limited() {
        let text = json!({"services": vec![json!({"name": "a", "port": 1}); 45_000]}).to_string();
        let mut left = Some(1_000);
        let kept = Bounded(&mut left)
            .deserialize(&mut serde_json::Deserializer::from_str(&text))
            .expect("JSON");
        assert_eq!((left, kept), (None, Value::Null));
        assert_eq!(decode(text.len() - 1, &text), None);
        assert!(decode(text.len(), &text).is_some());
    }
}
