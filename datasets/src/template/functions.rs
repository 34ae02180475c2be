//! Functions and tests that templates use and minijinja lacks or has otherwise.
//!
//! In:    an environment, the plan's day.
//! Out:   the environment with them.
//! Never: reads the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::arguments::{Arguments, wrong};
use super::source::GENERATION;
use super::strftime::Day;
use super::{CLOSE, OPEN, python};

/// Most numbers of a `range`, as Jinja2's sandbox has it.
const RANGE_MAX: i64 = 100_000;

/// Adds functions and tests.
pub(crate) fn add(environment: &mut Environment<'static>, day: Day) {
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, python::str(&message)?))
    });
    environment.add_function("strftime_now", move |format: String| day.format(&format));
    environment.add_function("range", range);
    environment.add_function("joiner", |separator: Option<String>| {
        Value::from_object(Joiner {
            separator: separator.unwrap_or_else(|| ", ".to_owned()),
            used: AtomicUsize::new(0),
        })
    });
    environment.add_function("cycler", |items: Rest<Value>| {
        Value::from_object(Cycler { items: items.0, at: AtomicUsize::new(0) })
    });
    environment.add_function(GENERATION, generation);
    environment.remove_global("debug");
    let sequence = |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Undefined) || python::is_dict(value)
    };
    environment.add_test("sequence", move |value: &Value| sequence(value));
    environment.add_test("iterable", move |value: &Value| sequence(value) || value.kind() == ValueKind::Iterable);
    environment.add_test("mapping", python::is_dict);
    environment.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    environment.add_test("integer", |value: &Value| value.kind() == ValueKind::Number && value.is_integer());
    environment.add_test("callable", |value: &Value| {
        value
            .as_object()
            .is_some_and(|object| object.type_name().contains("Macro") || object.type_name().contains("unction"))
    });
}

/// What a generation block becomes: its text between two marks.
fn generation(state: &mut State, options: Kwargs) -> Result<Value, Error> {
    let caller: Value = options.get("caller")?;
    let text = caller.call(state, &[])?;
    Ok(Value::from(format!("{OPEN}{}{CLOSE}", python::str(&text)?)))
}

fn range(arguments: Rest<Value>) -> Result<Value, Error> {
    let numbers = arguments.iter().map(super::arguments::integer).collect::<Result<Vec<i64>, Error>>()?;
    let (start, stop, step) = match numbers.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] if *step != 0 => (*start, *stop, *step),
        _ => return Err(wrong("range takes one to three numbers, the third not 0")),
    };
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let size = i64::try_from(step.unsigned_abs()).unwrap_or(i64::MAX);
    let count = if distance <= 0 { 0 } else { (distance - 1) / size + 1 };
    if count > RANGE_MAX {
        return Err(wrong(format!("a range of {count} numbers is larger than {RANGE_MAX}")));
    }
    let items = (0..count).map(|index| Value::from(start + index * step)).collect();
    Ok(Value::from_object(Numbers { items, start, stop, step }))
}

/// A range: a sequence that prints as Python's.
#[derive(Debug)]
pub(crate) struct Numbers {
    items: Vec<Value>,
    start: i64,
    stop: i64,
    step: i64,
}

impl Numbers {
    /// As Python prints it.
    pub(crate) fn text(&self) -> String {
        match self.step {
            1 => format!("range({}, {})", self.start, self.stop),
            step => format!("range({}, {}, {step})", self.start, self.stop),
        }
    }
}

impl Object for Numbers {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

/// Empty the first time it is called, then the separator.
#[derive(Debug)]
struct Joiner {
    separator: String,
    used: AtomicUsize,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        let first = self.used.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(Value::from(if first { "" } else { &self.separator }))
    }
}

/// Its items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = self.at.load(Ordering::Relaxed) % self.items.len().max(1);
        (key.as_str() == Some("current")).then(|| self.items.get(at).cloned()).flatten()
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        Arguments::new(args, &[])?;
        if method == "reset" {
            self.at.store(0, Ordering::Relaxed);
            return Ok(Value::from(()));
        }
        if method != "next" || self.items.is_empty() {
            return Err(Error::from(ErrorKind::UnknownMethod));
        }
        let at = self.at.fetch_add(1, Ordering::Relaxed) % self.items.len();
        Ok(self.items[at].clone())
    }
}
