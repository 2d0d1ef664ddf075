//! The slow halves of instructions: errors, strings, printing, and everything that is not done
//! often.

use greywave::{Gc, Mutator};

use crate::dialect::Dialect;
use crate::error::RuntimeError;
use crate::object::{Bound, Class, Foreign, Instance, Site};
use crate::shape::{self, Property};
use crate::strings::text_of;
use crate::thread::Shared;
use crate::value::Value;

pub(super) type Result<T> = std::result::Result<T, Box<RuntimeError>>;

/// The name of the value's type, as errors say it.
#[cold]
pub(super) fn kind_of(value: Value<'_>) -> String {
    let kind = if value.is_nil() {
        "nil"
    } else if value.as_bool().is_some() {
        "bool"
    } else if value.as_number().is_some() {
        "number"
    } else if value.as_text().is_some() {
        "string"
    } else if value.as_closure().is_some() {
        "function"
    } else if value.as_class().is_some() {
        "class"
    } else if value.as_instance().is_some() {
        "instance"
    } else if value.as_bound().is_some() {
        "bound method"
    } else {
        match value.as_foreign().map(Gc::as_ref) {
            Some(Foreign::Native(_)) => "native",
            Some(Foreign::Thread { .. }) => "thread",
            Some(Foreign::Channel { .. }) => "channel",
            None => "nothing",
        }
    };
    kind.to_owned()
}

fn class_of<'gc>(object: Gc<'gc, Instance<'gc>>) -> Option<Gc<'gc, Class<'gc>>> {
    object.header().shape.get().map(|shape| shape.class)
}

fn class_name<'gc>(object: Gc<'gc, Instance<'gc>>) -> String {
    class_of(object).map_or_else(String::new, |class| text_of(class.name))
}

fn function_name<'gc>(closure: Gc<'gc, crate::object::Closure<'gc>>) -> Option<String> {
    closure.header().name.map(text_of)
}

/// The value as `print` shows it.
pub(crate) fn show(value: Value<'_>, dialect: Dialect) -> String {
    if let Some(number) = value.as_number() {
        return show_number(number);
    }
    if let Some(text) = value.as_text() {
        return text_of(text);
    }
    if value.is_nil() {
        return "nil".to_owned();
    }
    if let Some(bool) = value.as_bool() {
        return bool.to_string();
    }
    match dialect {
        Dialect::Book => show_in_the_book(value),
        Dialect::Loxcraft => show_in_loxcraft(value),
    }
}

fn show_number(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    number.to_string()
}

fn show_function(name: Option<String>) -> String {
    name.map_or_else(|| "<script>".to_owned(), |name| format!("<fn {name}>"))
}

fn show_in_the_book(value: Value<'_>) -> String {
    if let Some(closure) = value.as_closure() {
        return show_function(function_name(closure));
    }
    if let Some(bound) = value.as_bound() {
        return show_function(function_name(bound.method));
    }
    if let Some(class) = value.as_class() {
        return text_of(class.name);
    }
    if let Some(object) = value.as_instance() {
        return format!("{} instance", class_name(object));
    }
    match value.as_foreign().map(Gc::as_ref) {
        Some(Foreign::Native(_)) => "<native fn>".to_owned(),
        _ => format!("<{}>", kind_of(value)),
    }
}

fn show_in_loxcraft(value: Value<'_>) -> String {
    if let Some(closure) = value.as_closure() {
        return function_name(closure)
            .map_or_else(|| "<script>".to_owned(), |n| format!("<function {n}>"));
    }
    if let Some(bound) = value.as_bound() {
        let name = function_name(bound.method).unwrap_or_default();
        return format!("<bound method {name}>");
    }
    if let Some(class) = value.as_class() {
        return format!("<class {}>", text_of(class.name));
    }
    if let Some(object) = value.as_instance() {
        return format!("<object {}>", class_name(object));
    }
    match value.as_foreign().map(Gc::as_ref) {
        Some(Foreign::Native(native)) => format!("<native {}>", native.name()),
        _ => format!("<{}>", kind_of(value)),
    }
}

#[inline(never)]
pub(super) fn print(value: Value<'_>, shared: &Shared) -> Result<()> {
    let written = match value.as_text() {
        Some(text) => shared.print(text.items()),
        None => shared.print(show(value, shared.dialect).as_bytes()),
    };
    written.map_err(|error| Box::new(RuntimeError::Output(error.to_string())))
}

#[cold]
#[inline(never)]
pub(super) fn bad_operands(
    operator: &'static str,
    left: Value<'_>,
    right: Value<'_>,
) -> Box<RuntimeError> {
    Box::new(RuntimeError::Operands {
        operator,
        left: kind_of(left),
        right: kind_of(right),
    })
}

#[cold]
#[inline(never)]
pub(super) fn bad_operand(value: Value<'_>) -> Box<RuntimeError> {
    Box::new(RuntimeError::Operand(kind_of(value)))
}

/// `+` between values that are not both numbers.
#[inline(never)]
pub(super) fn add<'m>(
    m: &'m Mutator,
    shared: &Shared,
    a: Value<'m>,
    b: Value<'m>,
) -> Result<Value<'m>> {
    let (Some(left), Some(right)) = (a.as_text(), b.as_text()) else {
        return Err(bad_operands("+", a, b));
    };
    let text = [left.items(), right.items()].concat();
    let realm = shared.realm.get(m);
    Ok(Value::text(realm.as_ref().strings.intern(m, &text)))
}

#[cold]
#[inline(never)]
pub(super) fn undefined_variable(name: Gc<'_, crate::object::Text>) -> Box<RuntimeError> {
    Box::new(RuntimeError::UndefinedVariable(text_of(name)))
}

/// Reads a property that the site's cache does not know.
#[inline(never)]
pub(super) fn get_property<'m>(
    m: &'m Mutator,
    value: Value<'m>,
    site: &Site<'m>,
) -> Result<Value<'m>> {
    let Some(object) = value.as_instance() else {
        return Err(Box::new(RuntimeError::NoProperties {
            kind: kind_of(value),
            name: text_of(site.name),
            method: false,
        }));
    };
    match shape::find_property(object, site) {
        Some(Property::Field(value)) => Ok(value),
        Some(Property::Method(method)) => Ok(bind(m, value, method)),
        None => Err(undefined_property(object, site)),
    }
}

/// Writes a field that the site's cache does not know.
#[inline(never)]
pub(super) fn set_property<'m>(
    m: &'m Mutator,
    object: Value<'m>,
    site: &Site<'m>,
    value: Value<'m>,
) -> Result<()> {
    let Some(instance) = object.as_instance() else {
        return Err(Box::new(RuntimeError::NoFields {
            kind: kind_of(object),
            name: text_of(site.name),
        }));
    };
    shape::set_field(m, instance, site, value);
    Ok(())
}

/// What is to be called by `receiver.name()`, if the site's cache does not know.
#[inline(never)]
pub(super) fn find_callee<'m>(receiver: Value<'m>, site: &Site<'m>) -> Result<Property<'m>> {
    let Some(object) = receiver.as_instance() else {
        return Err(Box::new(RuntimeError::NoProperties {
            kind: kind_of(receiver),
            name: text_of(site.name),
            method: true,
        }));
    };
    if let Some(field) = shape::cached_field(object, site) {
        return Ok(Property::Field(field));
    }
    shape::find_property(object, site).ok_or_else(|| undefined_property(object, site))
}

#[cold]
fn undefined_property<'m>(object: Gc<'m, Instance<'m>>, site: &Site<'m>) -> Box<RuntimeError> {
    Box::new(RuntimeError::UndefinedProperty {
        class: class_name(object),
        name: text_of(site.name),
    })
}

pub(super) fn bind<'m>(
    m: &'m Mutator,
    receiver: Value<'m>,
    method: Gc<'m, crate::object::Closure<'m>>,
) -> Value<'m> {
    Value::bound(m.alloc(Bound { receiver, method }))
}

/// The method of the superclass.
#[inline(never)]
pub(super) fn find_super<'m>(
    class: Gc<'m, Class<'m>>,
    site: &Site<'m>,
) -> Result<Gc<'m, crate::object::Closure<'m>>> {
    shape::cached_super(class, site)
        .or_else(|| shape::find_super(class, site))
        .ok_or_else(|| {
            Box::new(RuntimeError::UndefinedProperty {
                class: text_of(class.name),
                name: text_of(site.name),
            })
        })
}
