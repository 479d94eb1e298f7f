//! YAML as JSON, as far as the corpus uses it: one document, without anchors and tags.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The document; a key that comes twice is an error, as is anything after it.
pub(crate) fn read(text: &str) -> anyhow::Result<Value> {
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event?;
        match event {
            Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd => events.push((event, span.start.line())),
            Event::Alias(_) => anyhow::bail!("line {}: no anchors here", span.start.line()),
            _ => {}
        }
    }
    let mut events = events.into_iter();
    let value = next(&mut events)?;
    anyhow::ensure!(events.next().is_none(), "more than one document");
    Ok(value)
}

type Events<'t> = std::vec::IntoIter<(Event<'t>, usize)>;

fn next(events: &mut Events<'_>) -> anyhow::Result<Value> {
    let Some((event, line)) = events.next() else {
        anyhow::bail!("the document ends early");
    };
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => Ok(plain(&text)),
        Event::Scalar(text, ..) => Ok(Value::String(text.into_owned())),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            while !matches!(events.as_slice().first(), Some((Event::SequenceEnd, _))) {
                list.push(next(events)?);
            }
            events.next();
            Ok(Value::Array(list))
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            loop {
                match events.next() {
                    Some((Event::MappingEnd, _)) => return Ok(Value::Object(map)),
                    Some((Event::Scalar(key, ..), line)) => {
                        let value = next(events)?;
                        let held = map.insert(key.to_string(), value);
                        anyhow::ensure!(held.is_none(), "line {line}: {key:?} comes twice");
                    }
                    other => anyhow::bail!("a key is a text, not {other:?}"),
                }
            }
        }
        other => anyhow::bail!("line {line}: not expected here: {other:?}"),
    }
}

/// What a text without quotes stands for: nothing, truth, a number, or itself.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => match text.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => text.into(),
        },
    }
}
